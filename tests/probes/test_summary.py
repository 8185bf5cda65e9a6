import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models
from cnnjax.probes import (
    COLUMNS,
    EXPLODING,
    VANISHING,
    Flow,
    classify,
    gradient_flow,
    gradient_ratio,
    gradient_slope,
    underflow_depth,
)

from ..drawn import images, variables


def flow(*moments, head="identity"):
    """A flow with these log10 second moments; the last one is the head's."""
    names = tuple(f"layer{i}" for i in range(len(moments)))
    table = np.full((len(names), len(COLUMNS)), np.nan, np.float32)
    table[:, COLUMNS.index("gradient_log10_second_moment")] = moments
    return Flow(names, ("tanh",) * (len(names) - 1) + (head,), table)


HEAD = 7.0  # far from the others, so that it shows where it is counted


def test_the_ratio_is_first_over_last_without_the_head():
    assert gradient_ratio(flow(-9, -5, -3, HEAD)) == -6
    assert gradient_ratio(flow(2, 1, 0, HEAD)) == 2
    assert gradient_ratio(flow(-3, HEAD)) == 0
    assert gradient_ratio(flow(-3)) == 0


def test_without_a_head_the_last_layer_is_a_hidden_one():
    assert gradient_ratio(flow(-9, -5, -3, head="tanh")) == -6


@pytest.mark.parametrize("slope", [-0.2, 0.0, 0.3])
def test_the_slope_of_a_line(slope):
    line = [slope * i - 5 for i in range(10)]
    assert gradient_slope(flow(*line, HEAD)) == pytest.approx(slope, abs=1e-6)


def test_the_slope_is_that_of_least_squares():
    # Of (0, 0), (1, 2), (2, 1): sum of (i - 1)(m - 1) = 1 over sum of (i - 1)^2 = 2.
    assert gradient_slope(flow(0, 2, 1, HEAD)) == pytest.approx(0.5)


def test_the_slope_leaves_out_what_is_not_finite():
    assert gradient_slope(flow(-np.inf, -8, np.nan, -6, HEAD)) == pytest.approx(1.0)
    assert np.isnan(gradient_slope(flow(-np.inf, -8, HEAD)))
    assert np.isnan(gradient_slope(flow(-8, HEAD)))


@pytest.mark.parametrize(
    "moments, ratio, word",
    [
        ((VANISHING - 0.01, 0, HEAD), VANISHING - 0.01, "vanishing"),
        ((VANISHING, 0, HEAD), VANISHING, "stable"),
        ((0, 0, HEAD), 0, "stable"),
        ((EXPLODING, 0, HEAD), EXPLODING, "stable"),
        ((EXPLODING + 0.01, 0, HEAD), EXPLODING + 0.01, "exploding"),
        ((-np.inf, -3, HEAD), -np.inf, "vanishing"),
        ((-np.inf, -np.inf, HEAD), -np.inf, "vanishing"),
        ((np.nan, 0, HEAD), np.nan, "not finite"),
        ((0, np.nan, HEAD), np.nan, "not finite"),
        ((np.inf, 0, HEAD), np.inf, "not finite"),
    ],
)
def test_the_word_for_a_ratio(moments, ratio, word):
    assert gradient_ratio(flow(*moments)) == pytest.approx(ratio, nan_ok=True)
    assert classify(flow(*moments)) == word


def test_a_gradient_that_is_not_finite_anywhere_is_not_stable():
    assert classify(flow(0, np.nan, 0, HEAD)) == "not finite"


@pytest.mark.parametrize(
    "dtype, tiny",
    # The smallest normal numbers: 2^-126, 2^-126 and 2^-14.
    [("float32", 2.0**-126), ("bfloat16", 2.0**-126), ("float16", 2.0**-14)],
)
def test_underflow_depth(dtype, tiny):
    # The second moment falls from 1e-4 to tiny^2 by half a decade a layer.
    depth = underflow_depth(0.5, last=-4.0, dtype=dtype)
    assert depth == pytest.approx((-4 - 2 * np.log10(tiny)) / 0.5)
    assert -4 - 0.5 * depth == pytest.approx(2 * np.log10(tiny))


def test_what_has_underflowed_has_no_depth_left():
    assert underflow_depth(0.5, last=-90.0) == 0


@pytest.mark.parametrize("dtype", ["float99", "int32"])
def test_a_format_that_is_none(dtype):
    with pytest.raises(ValueError, match="dtype must be a float format such as 'bfloat16'; got"):
        underflow_depth(0.5, dtype=dtype)


@pytest.mark.parametrize("slope", [0.0, -0.3, float("nan")])
def test_what_does_not_shrink_does_not_underflow(slope):
    assert underflow_depth(slope) == np.inf


def test_a_summary_is_of_one_network():
    batched = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), flow(0, 1, 2))
    for summary in (gradient_ratio, gradient_slope, classify):
        with pytest.raises(ValueError, match=r"flow of one network; this one has columns of shape \(2, 3\)"):
            summary(batched)


# Against theory, on a wide network without a border: circular padding, 48 channels, 25 layers.

WIDTH, DEPTH = 48, 25


@pytest.fixture(scope="module")
def flows():
    """By name: ReLU under Xavier and under He initialization (the same draws, sqrt 2 larger), and batch norm."""
    x, labels = images(8, 4, 4, 3), jnp.arange(8)
    options = dict(depth=DEPTH, width=WIDTH, padding="CIRCULAR", initializer="xavier_normal")

    model = models.create("plain", **options)
    normalized = model.clone(norm="batch")

    @jax.jit
    def compute(gains, made):
        def under(gain):
            drawn = model.clone(gain=gain).init(jax.random.key(0), x)
            return gradient_flow(model, drawn, x, labels)

        return jax.lax.map(under, gains), gradient_flow(normalized, made, x, labels)

    by_gain, batch = compute(jnp.array([1.0, np.sqrt(2)]), variables(normalized, x))
    xavier, he = (jax.tree.map(lambda leaf, i=i: leaf[i], by_gain) for i in range(2))
    return {"xavier": xavier, "he": he, "batch": batch}


# ln |g|^2 is a random walk over layers whose steps have variance 5 / n at width n (Hanin & Nica 2020), and a line
# through L points of such a walk has a slope of variance 6 / (5 L) times that: here 0.0054, so 4 deviations are
# 0.29 in ln and 0.13 in log10. (Positions and examples average, so that it is less in truth.)
TOLERANCE = 4 * np.sqrt(6 / (5 * (DEPTH - 2)) * 5 / WIDTH) / np.log(10)


def test_relu_halves_the_gradient_in_each_layer_under_xavier(flows):
    assert gradient_slope(flows["xavier"]) == pytest.approx(np.log10(2), abs=TOLERANCE)
    assert classify(flows["xavier"]) == "vanishing"
    # All of it is the factor sqrt 2 of each kernel: ReLU passes it on, and the draws are the same.
    difference = gradient_slope(flows["xavier"]) - gradient_slope(flows["he"])
    assert difference == pytest.approx(np.log10(2), abs=1e-3)


def test_he_initialization_keeps_the_gradient(flows):
    assert gradient_slope(flows["he"]) == pytest.approx(0, abs=TOLERANCE)
    assert classify(flows["he"]) == "stable"


def test_the_weight_gradients_hide_what_the_gradients_show(flows):
    # Glorot & Bengio 2010, equation 14: what shrinks backward has shrunk forward, and the product stays.
    norms = np.asarray(flows["xavier"].columns["kernel_gradient_log10_norm"])
    assert abs(norms[1] - norms[-2]) < 1
    assert gradient_ratio(flows["xavier"]) < -5


def test_the_gradient_explodes_through_batch_norm(flows):
    # Yang et al. 2019: |g|^2 grows by pi / (pi - 1) a layer toward the input, as the batch grows.
    slope = gradient_slope(flows["batch"])
    assert slope == pytest.approx(-np.log10(np.pi / (np.pi - 1)), abs=0.03)
    assert gradient_ratio(flows["batch"]) > 2
