"""The tally against scikit-learn and the definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, top_k_accuracy_score

from cnnjax import functional as F
from cnnjax.training.metrics import BINS, Tally

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 7, 200)
LOGITS = jnp.asarray(RNG.normal(size=(200, 7)) + 1.5 * np.eye(7)[LABELS], jnp.float32)


def tally(logits, labels, **options):
    labels = jnp.asarray(labels)
    return jax.jit(Tally.of)(logits, labels, F.cross_entropy(logits, labels), **options)


def test_all_metrics_are_those_of_their_definitions():
    found = tally(LOGITS, LABELS).metrics()
    predicted = np.asarray(LOGITS).argmax(1)
    expected = confusion_matrix(LABELS, predicted)
    np.testing.assert_array_equal(found["confusion"], expected)
    assert found["examples"] == 200
    assert found["accuracy"] == pytest.approx((predicted == LABELS).mean(), rel=1e-6)
    assert found["top5"] == pytest.approx(top_k_accuracy_score(LABELS, LOGITS, k=5), rel=1e-6)
    assert found["loss"] == pytest.approx(
        float(F.cross_entropy(LOGITS, jnp.asarray(LABELS)).mean()), rel=1e-5
    )
    np.testing.assert_allclose(found["class_accuracy"], expected.diagonal() / expected.sum(1), rtol=1e-6)


def test_the_calibration_error_is_the_gap_of_each_bin_weighted_by_its_examples():
    probabilities = np.asarray(jax.nn.softmax(LOGITS))
    confidence, right = probabilities.max(1), probabilities.argmax(1) == LABELS
    expected = 0.0
    for low, high in zip(np.arange(BINS) / BINS, np.arange(1, BINS + 1) / BINS, strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert tally(LOGITS, LABELS).metrics()["calibration_error"] == pytest.approx(expected, rel=1e-4)


def test_batches_add_up_and_filling_does_not_count():
    whole = tally(LOGITS, LABELS).metrics()
    filled = jnp.concatenate([LOGITS[120:], jnp.zeros((40, 7))])
    weights = jnp.concatenate([jnp.ones(80), jnp.zeros(40)])
    rest = tally(filled, np.concatenate([LABELS[120:], np.zeros(40, int)]), weights=weights)
    parts = (tally(LOGITS[:120], LABELS[:120]) + rest).metrics()
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-5, err_msg=name)


def test_a_class_without_examples_and_no_examples():
    found = tally(LOGITS[:3], np.array([0, 0, 2])).metrics()
    assert np.isnan(found["class_accuracy"][[1, 3, 4, 5, 6]]).all()
    with pytest.raises(ValueError, match="there are no examples to measure"):
        tally(LOGITS[:2], LABELS[:2], weights=jnp.zeros(2)).metrics()


def test_few_classes_are_all_among_the_first_five_and_ties_go_to_the_first():
    found = tally(jnp.zeros((4, 3)), np.array([0, 0, 1, 2])).metrics()
    assert (found["top5"], found["accuracy"]) == (1.0, 0.5)
    ranked = tally(jnp.zeros((6, 6)), np.arange(6)).metrics()
    assert ranked["top5"] == pytest.approx(5 / 6)
