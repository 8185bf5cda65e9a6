"""The tally of several labels against scikit-learn and the definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from cnnjax.training.label_tally import LabelTally
from cnnjax.training.labels import LABELS
from cnnjax.training.metrics import BINS

RNG = np.random.default_rng(0)
THERE = RNG.random((300, 5)) < [0.5, 0.3, 0.1, 0.05, 0.0]
LOGITS = np.asarray(RNG.normal(size=THERE.shape) + 1.5 * (THERE - 0.5), np.float32)


def tally(logits, labels, **options):
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    losses = LABELS["multi"].loss(logits, labels)
    return jax.jit(LabelTally.of)(logits, labels, losses, **options)


def test_all_metrics_are_those_of_their_definitions():
    found, predicted = tally(LOGITS, THERE).metrics(), LOGITS > 0
    assert found["examples"] == 300
    assert found["accuracy"] == pytest.approx((predicted == THERE).mean())
    assert found["exact_match"] == pytest.approx(metrics.accuracy_score(THERE, predicted))
    probabilities = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    loss = -np.where(THERE, np.log(probabilities), np.log1p(-probabilities)).sum(axis=1).mean()
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    for average, prefix in (("micro", ""), (None, "class_")):
        expected = metrics.precision_recall_fscore_support(
            THERE, predicted, average=average, zero_division=np.nan
        )
        for name, value in zip(("precision", "recall", "f1"), expected[:3], strict=True):
            np.testing.assert_allclose(found[prefix + name], value, rtol=1e-6, err_msg=name)
    np.testing.assert_array_equal(found["class_examples"], THERE.sum(axis=0))


def test_average_precision_takes_the_logits_of_a_bin_as_equal():
    found = tally(LOGITS, THERE).metrics()
    bins = np.ceil(LOGITS / np.float32(0.05))
    expected = [metrics.average_precision_score(THERE[:, i], bins[:, i]) for i in range(4)]
    np.testing.assert_allclose(found["class_average_precision"], [*expected, np.nan], rtol=1e-6)
    assert found["mean_average_precision"] == pytest.approx(np.mean(expected))
    exact = [metrics.average_precision_score(THERE[:, i], LOGITS[:, i]) for i in range(4)]
    np.testing.assert_allclose(expected, exact, atol=0.02)


def test_logits_beyond_the_bins_count_in_the_outer_ones():
    there = np.array([[True], [False], [True]])
    found = tally(np.array([[1e4], [-1e4], [np.inf]], np.float32), there).metrics()
    assert found["mean_average_precision"] == found["accuracy"] == found["f1"] == 1


def test_the_calibration_error_is_over_labels():
    probabilities = 1 / (1 + np.exp(-LOGITS))
    expected = 0.0
    for low, high in zip(np.arange(BINS) / BINS, np.arange(1, BINS + 1) / BINS, strict=True):
        inside = (probabilities > low) & (probabilities <= high)
        if inside.any():
            expected += inside.mean() * abs(THERE[inside].mean() - probabilities[inside].mean())
    assert tally(LOGITS, THERE).metrics()["calibration_error"] == pytest.approx(expected, rel=1e-4)


def test_batches_add_up_and_filling_does_not_count():
    whole = tally(LOGITS, THERE).metrics()
    filled = np.concatenate([LOGITS[120:], np.ones((40, 5), np.float32)])
    weights = jnp.concatenate([jnp.ones(180), jnp.zeros(40)])
    rest = tally(filled, np.concatenate([THERE[120:], np.ones((40, 5), bool)]), weights=weights)
    parts = (tally(LOGITS[:120], THERE[:120]) + rest).metrics()
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-5, err_msg=name)


def test_what_has_nothing_to_divide_by_is_none_in_json():
    found = tally(np.full((4, 2), -1, np.float32), np.zeros((4, 2), bool)).report()
    assert found["accuracy"] == found["exact_match"] == 1
    assert found["precision"] is found["recall"] is found["mean_average_precision"] is None
    assert found["class_f1"] == [None, None] and found["class_examples"] == [0, 0]
    assert sum(found["reliability"]["count"]) == 8
    with pytest.raises(ValueError, match="there are no examples to measure"):
        tally(LOGITS[:2], THERE[:2], weights=jnp.zeros(2)).metrics()
