import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from cnnjax import models, probes
from cnnjax.training import embed, fit_linear, linear_probe

from ..drawn import images, variables

MODEL = models.create("plain", depth=3, width=4, norm="batch", num_classes=3)
IMAGES = images(7, 6, 6, 1)
MADE = variables(MODEL, IMAGES)


def classes(n, features, distance, *, seed=0):
    """Two Gaussian classes whose means are some deviations apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    x = rng.normal(size=(n, features))
    x[:, 0] += distance * (labels - 0.5)
    return x, labels


def test_what_enters_the_head():
    features = embed(MODEL, MADE, IMAGES)
    head = MADE["params"]["head"]["linear"]
    logits = features @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    np.testing.assert_allclose(logits, jax.jit(MODEL.apply)(MADE, IMAGES), rtol=1e-5, atol=1e-6)


def test_batches_make_no_difference():
    np.testing.assert_array_equal(embed(MODEL, MADE, IMAGES, batch_size=3), embed(MODEL, MADE, IMAGES))


def test_features_of_a_layer():
    found = embed(MODEL, MADE, IMAGES, layer="stem")
    maps = jax.jit(lambda made: probes.features(MODEL, made, IMAGES))(MADE)["stem"]
    np.testing.assert_allclose(found, np.mean(maps, (1, 2)), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="unknown layer 'sten'; did you mean 'stem'"):
        embed(MODEL, MADE, IMAGES, layer="sten")


def test_no_images():
    with pytest.raises(ValueError, match=r"expected images .*, got \(0, 6, 6, 1\)"):
        embed(MODEL, MADE, np.zeros((0, 6, 6, 1), np.float32))


def test_the_best_accuracy_of_two_gaussians_is_reached():
    # Two classes 2 deviations apart: Phi(1) = 0.841 at best.
    found = linear_probe(*classes(400, 3, 2.0), penalties=(1.0, 10.0), folds=5)
    assert found.accuracy.n == 5 and found.accuracy.value == pytest.approx(np.mean(found.folds))
    assert abs(found.accuracy.value - 0.841) < 3 * np.sqrt(0.841 * 0.159 / 400)
    assert found.accuracy.low < found.accuracy.value < found.accuracy.high
    assert str(found).startswith("accuracy 0.") and str(found).endswith("(n = 5)")


def test_nothing_is_learned_from_noise():
    # With more features than examples, any classifier is right about the examples that it has seen.
    x, labels = classes(60, 100, 0.0)
    found = linear_probe(x, labels, penalties=(1.0,), folds=4)
    assert fit_linear(x, labels, penalties=(1.0,)).score(x, labels) == 1
    # 3 deviations of 60 fair coins.
    assert abs(found.accuracy.value - 0.5) < 3 * 0.5 / np.sqrt(60)


def test_each_fold_sees_its_own_examples_only():
    x, labels = classes(60, 60, 2.0)
    penalties = (1e-4, 1e2)
    found = linear_probe(x, labels, penalties=penalties, folds=3)
    splits = StratifiedKFold(3, shuffle=True, random_state=0).split(x, labels)
    for score, penalty, (train, test) in zip(found.folds, found.penalties, splits, strict=True):
        fitted = fit_linear(x[train], labels[train], penalties=penalties)
        assert fitted.score(x[test], labels[test]) == score
        assert fitted.best_params_ == {"logisticregression__C": 1 / penalty}


def test_one_example_of_each_class():
    x = np.float32([[0, 1], [3, 1], [0, 9]])
    fitted = fit_linear(x, [4, 5, 6])
    assert fitted.score(x, [4, 5, 6]) == 1 and fitted["logisticregression"].C == 1


@pytest.mark.parametrize(
    ("labels", "options", "text"),
    [
        (np.zeros(6, int), {}, "examples of two classes or more, got 1"),
        (np.arange(5) % 2, {}, r"features \(n, features\) and labels \(n,\), got \(6, 2\) and \(5,\)"),
        (np.arange(6) % 2, {"folds": 4}, "folds must be 2 or more, and 3 at most, .* got 4"),
        (np.arange(6) % 2, {"folds": 1}, "folds must be 2 or more"),
    ],
)
def test_bad_input(labels, options, text):
    with pytest.raises(ValueError, match=text):
        linear_probe(np.zeros((6, 2)), labels, **options)


def test_a_model_without_head():
    from flax.linen import Module, compact

    from cnnjax import nn

    class Bare(Module):
        @compact
        def __call__(self, x, *, train=False):
            return nn.Layer(lambda **options: nn.Dense(2, **options), name="only")(x)

    made = variables(Bare(), jnp.ones((2, 3)))
    assert embed(Bare(), made, jnp.ones((2, 3)), layer="only").shape == (2, 2)
    with pytest.raises(ValueError, match="Bare has no layer called 'head'"):
        embed(Bare(), made, jnp.ones((2, 3)))
