import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax

from cnnjax.functional.loss import (
    accuracy,
    binary_cross_entropy,
    check_labels,
    cross_entropy,
    focal,
    l2_penalty,
    squared_error,
)

LABELS = np.array([0, 3, 1, 3, 2])
ONE_HOT = np.eye(4)[LABELS]


@pytest.fixture
def logits(rng) -> np.ndarray:
    return rng.normal(size=(5, 4)) * 3


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_is_its_definition(logits, soft, label_smoothing):
    labels = jnp.float32(ONE_HOT) if soft else jnp.int32(LABELS)
    target = (1 - label_smoothing) * ONE_HOT + label_smoothing / 4
    expected = -(target * log_softmax(logits, axis=-1)).sum(axis=-1)
    loss = cross_entropy(jnp.float32(logits), labels, label_smoothing=label_smoothing)
    assert loss.shape == (5,)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_gradient_of_cross_entropy_is_probability_minus_label(logits):
    gradient = jax.jit(jax.grad(lambda x: cross_entropy(x, jnp.int32(LABELS)).sum()))(jnp.float32(logits))
    np.testing.assert_allclose(gradient, np.exp(log_softmax(logits, axis=-1)) - ONE_HOT, atol=1e-6)


def test_cross_entropy_keeps_leading_axes_and_takes_uint8(logits):
    images = jnp.float32(logits).reshape(5, 1, 4)
    loss = cross_entropy(images, jnp.uint8(LABELS).reshape(5, 1))
    np.testing.assert_allclose(loss[:, 0], cross_entropy(images[:, 0], jnp.int32(LABELS)), rtol=1e-6)


@pytest.mark.parametrize("label", [-1, 4, 200])
@pytest.mark.parametrize(
    "loss", [cross_entropy, focal, lambda x, y: cross_entropy(x, y, label_smoothing=0.1)]
)
def test_label_out_of_range_gives_nan(loss, label):
    values = loss(jnp.ones((2, 4)), jnp.array([label, 1]))
    assert jnp.isnan(values[0]) and jnp.isfinite(values[1])


@pytest.mark.parametrize("label", [-1, 4])
def test_label_out_of_range_leaves_the_gradient_of_a_row_without_target(logits, label):
    x = jnp.float32(logits)
    gradient = jax.grad(lambda x: cross_entropy(x, jnp.full(5, label)).sum())(x)
    np.testing.assert_allclose(gradient, np.exp(log_softmax(logits, axis=-1)), rtol=1e-5)


def test_binary_cross_entropy_is_its_definition(rng):
    logits, labels = rng.normal(size=8) * 3, np.array([0, 1, 0, 1, 1, 0, 0.25, 0.9])
    p = expit(logits)
    expected = -labels * np.log(p) - (1 - labels) * np.log(1 - p)
    loss = binary_cross_entropy(jnp.float32(logits), jnp.float32(labels))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_binary_cross_entropy_at_large_logits_is_finite():
    loss = binary_cross_entropy(jnp.float32([1e4, -1e4, 1e4]), jnp.array([0, 1, 1]))
    np.testing.assert_array_equal(loss, [1e4, 1e4, 0])


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_binary_focal_is_its_definition(rng, gamma):
    logits, labels = rng.normal(size=6), np.array([0, 1, 0, 1, 1, 0])
    p = np.where(labels == 1, expit(logits), expit(-logits))
    weight = np.where(labels == 1, 0.25, 0.75)
    expected = -weight * (1 - p) ** gamma * np.log(p)
    loss = focal(jnp.float32(logits), jnp.int32(labels), gamma=gamma, alpha=0.25)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_multiclass_focal_is_its_definition(logits, gamma):
    log_p = log_softmax(logits, axis=-1)[np.arange(5), LABELS]
    alpha = np.array([0.1, 0.2, 0.3, 0.4])
    expected = -alpha[LABELS] * (1 - np.exp(log_p)) ** gamma * log_p
    loss = focal(jnp.float32(logits), jnp.int32(LABELS), gamma=gamma, alpha=jnp.float32(alpha))
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_focal_with_gamma_zero_is_cross_entropy(logits):
    x, y = jnp.float32(logits), jnp.int32(LABELS)
    np.testing.assert_allclose(focal(x, y, gamma=0), cross_entropy(x, y), rtol=1e-6)
    bits = jnp.int32(ONE_HOT)
    np.testing.assert_allclose(focal(x, bits, gamma=0), binary_cross_entropy(x, bits), rtol=1e-6)


def test_multiclass_focal_of_two_classes_is_binary_focal(rng):
    x, y = jnp.float32(rng.normal(size=6)), jnp.array([0, 1, 0, 1, 1, 0])
    np.testing.assert_allclose(focal(jnp.stack([jnp.zeros(6), x], -1), y), focal(x, y), rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("shape", [(2, 3), (2,)])
def test_focal_gradient_is_finite_at_large_logits(gamma, shape):
    logits = jnp.full((2,), 1e4) if shape == (2,) else jnp.float32([[1e4, 0, -1e4], [1e4, 0, -1e4]])
    gradient = jax.grad(lambda x: focal(x, jnp.array([0, 1]), gamma=gamma).sum())(logits)
    assert jnp.isfinite(gradient).all()


def test_squared_error_is_one_mean_for_each_example(rng):
    predictions, targets = rng.normal(size=(2, 3, 4, 5))
    expected = ((predictions - targets) ** 2).mean(axis=(1, 2))
    np.testing.assert_allclose(
        squared_error(jnp.float32(predictions), jnp.float32(targets)), expected, rtol=1e-5
    )
    np.testing.assert_array_equal(squared_error(jnp.ones(2), jnp.array([0, 3])), [1, 4])


@pytest.mark.parametrize("loss", [cross_entropy, focal])
def test_low_precision_logits_are_computed_in_float32(logits, loss):
    low = jnp.asarray(logits, jnp.bfloat16)
    value = loss(low, jnp.int32(LABELS))
    assert value.dtype == jnp.float32
    np.testing.assert_array_equal(value, loss(low.astype(jnp.float32), jnp.int32(LABELS)))


def test_accuracy_of_integer_and_soft_labels(logits):
    labels = logits.argmax(axis=-1)
    labels[2] = (labels[2] + 1) % 4
    for form in (jnp.int32(labels), jnp.float32(np.eye(4)[labels])):
        np.testing.assert_array_equal(accuracy(jnp.float32(logits), form), [1, 1, 0, 1, 1])


def test_l2_penalty_counts_kernels_and_its_gradient_is_the_kernel():
    params = {"stack": {"kernel": jnp.full((5, 3, 2), 2.0), "bias": jnp.ones((5, 2))}, "kernel": jnp.ones(3)}
    assert l2_penalty(params) == 0.5 * (30 * 4 + 3)
    gradient = jax.grad(l2_penalty)(params)
    np.testing.assert_array_equal(gradient["stack"]["kernel"], params["stack"]["kernel"])
    np.testing.assert_array_equal(gradient["stack"]["bias"], 0)


def test_l2_penalty_of_chosen_leaves():
    params = {"a": [jnp.full(3, 2.0, jnp.bfloat16), jnp.ones((2, 2))]}
    assert l2_penalty(params, where=lambda path, leaf: path == "a/0") == 6
    assert l2_penalty(params, where=lambda path, leaf: leaf.ndim >= 2) == 2
    with pytest.raises(ValueError, match=r"no parameter to penalize among \['a/0', 'a/1'\].*where="):
        l2_penalty(params)


def test_check_labels():
    check_labels(np.array([0, 9], np.uint8), 10)
    check_labels(np.array([], np.int32), 10)
    with pytest.raises(ValueError, match=r"label 10 at index 1 is out of range: 10 classes.*0 to 9 \(2 of 4"):
        check_labels(jnp.array([3, 10, 4, -1]), 10)
    with pytest.raises(ValueError, match="label -1 at index 0, 1"):
        check_labels(np.array([[3, -1]]), 10)
    with pytest.raises(TypeError, match="labels must be integers, got float32"):
        check_labels(np.ones(3, np.float32), 10)


@pytest.mark.parametrize("function", [cross_entropy, focal, accuracy])
def test_labels_that_do_not_fit(function):
    with pytest.raises(
        ValueError, match=r"integers of shape \(5,\) or probabilities of shape \(5, 4\).*got shape \(4,\)"
    ):
        function(jnp.ones((5, 4)), jnp.ones(4, int))
    with pytest.raises(TypeError, match=r"labels of shape \(5,\) must be integers, got float32"):
        function(jnp.ones((5, 4)), jnp.ones(5))


def test_bad_options():
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\), got 1"):
        cross_entropy(jnp.ones((5, 4)), jnp.ones(5, int), label_smoothing=1)
    with pytest.raises(ValueError, match="gamma must be at least 0, got -1"):
        focal(jnp.ones((5, 4)), jnp.ones(5, int), gamma=-1)
    with pytest.raises(ValueError, match=r"alpha must be a number or of shape \(4,\), got shape \(3,\)"):
        focal(jnp.ones((5, 4)), jnp.ones(5, int), alpha=jnp.ones(3))
    with pytest.raises(ValueError, match=r"alpha must be a number, got shape \(4,\)"):
        focal(jnp.ones((5, 4)), jnp.ones((5, 4)), alpha=jnp.ones(4))
    with pytest.raises(ValueError, match="needs at least 2 classes"):
        focal(jnp.ones((5, 1)), jnp.ones(5, int))
    with pytest.raises(ValueError, match=r"labels must have the shape of logits, \(5,\), got \(4,\)"):
        binary_cross_entropy(jnp.ones(5), jnp.ones(4))
    with pytest.raises(ValueError, match=r"targets must have the shape of predictions, \(5, 1\), got \(5,\)"):
        squared_error(jnp.ones((5, 1)), jnp.ones(5))
