import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import functional as F
from cnnjax.functional import statistics

moments, log10_norm = jax.jit(statistics.moments), jax.jit(statistics.log10_norm)
pair_correlation = jax.jit(statistics.pair_correlation)
SCALES = [1e-30, 1e-3, 1.0, 1e30]


def numbers(rng, *shape, scale=1.0):
    return np.asarray(scale * rng.normal(1, 2, size=shape), np.float32)


@pytest.mark.parametrize("scale", SCALES)
def test_moments_are_those_of_float64(scale, rng):
    x = numbers(rng, 3, 4, 2, scale=scale)
    wide = x.astype(np.float64)
    result = moments(x)
    assert result.mean == pytest.approx(wide.mean(), rel=1e-5)
    # float32 holds log10 values near 60 to about 4e-6.
    assert result.log10_second_moment == pytest.approx(np.log10(np.square(wide).mean()), abs=2e-5)
    assert result.log10_max == pytest.approx(np.log10(np.abs(wide).max()), abs=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_log10_norm_is_that_of_float64(scale, rng):
    x = numbers(rng, 3, 4, 2, scale=scale)
    assert log10_norm(x) == pytest.approx(np.log10(np.linalg.norm(x.astype(np.float64))), abs=2e-5)


def test_zeros_and_nothing_are_minus_infinity():
    for x in (jnp.zeros((2, 3)), -jnp.zeros(1)):
        assert moments(x).log10_second_moment == moments(x).log10_max == log10_norm(x) == -np.inf
        assert moments(x).mean == 0
    assert log10_norm(jnp.zeros((0, 3))) == -np.inf


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_a_number(value):
    x = jnp.array([1.0, value])
    assert np.isnan(moments(x).log10_second_moment)
    assert np.isnan(log10_norm(x))


def test_statistics_are_float32_whatever_comes_in():
    x = jnp.full(1000, 256.0, jnp.bfloat16)
    result = moments(x)
    assert {leaf.dtype for leaf in result} == {jnp.dtype(jnp.float32)}
    # A sum in bfloat16 would stop growing at 256 x 256.
    assert result.mean == 256
    assert log10_norm(x) == pytest.approx(np.log10(256 * np.sqrt(1000)), abs=1e-5)


@pytest.mark.parametrize(
    "name, z, dead, saturated",
    [
        ("relu", [-2.0, -1.0, 0.0, 1.0], 0.75, 0.75),
        ("identity", [-2.0, -1.0, 0.0, 1.0], 0.0, 0.0),
        # 1 - tanh(z)^2 is below 0.1 beyond |z| = 1.8184.
        ("tanh", [0.0, 1.81, -1.83, 5.0], 0.0, 0.5),
        # s (1 - s) is below a tenth of its maximum 1/4 beyond |z| = 3.6373, and exactly 0 in float32 at 200.
        ("sigmoid", [0.0, 3.63, -3.65, 200.0], 0.25, 0.5),
        ("relu6", [-1.0, 1.0, 5.0, 7.0], 0.5, 0.5),
        ("leaky_relu", [-2.0, -1.0, 1.0, 1.0], 0.0, 0.5),
    ],
)
def test_slope_fractions(name, z, dead, saturated):
    activation = F.get_activation(name)
    result = statistics.slope_fractions(jnp.array(z), F.derivative(name), max_slope=activation.max_slope)
    np.testing.assert_array_equal(result, [dead, saturated])


def test_pair_correlation_is_the_mean_cosine_of_neighbors(rng):
    x = numbers(rng, 4, 3, 2)
    rows = x.reshape(4, -1).astype(np.float64)
    cosines = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(rows, np.roll(rows, -1, 0), strict=True)
    ]
    assert pair_correlation(x) == pytest.approx(np.mean(cosines), abs=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_pair_correlation_knows_no_scale(scale):
    # Neighbors at angles of 45, 45 and 90 degrees.
    x = jnp.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]) * scale
    assert pair_correlation(x) == pytest.approx((2 * np.sqrt(0.5) + 0) / 3, abs=1e-6)


def test_pair_correlation_of_equal_and_of_opposite_examples():
    row = jnp.array([1.0, -2.0, 3.0])
    assert pair_correlation(jnp.stack([row, row])) == pytest.approx(1, abs=1e-6)
    assert pair_correlation(jnp.stack([row, -2 * row])) == pytest.approx(-1, abs=1e-6)


def test_pair_correlation_of_one_example_or_of_zeros_is_not_a_number():
    assert np.isnan(pair_correlation(jnp.ones((1, 3))))
    assert np.isnan(pair_correlation(jnp.array([[0.0, 0.0], [1.0, 1.0]])))
