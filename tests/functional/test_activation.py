import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from cnnjax.functional import activation as module
from cnnjax.functional.activation import (
    ACTIVATIONS,
    HARD_SIGMOID,
    Activation,
    derivative,
    gaussian_mean,
    get_activation,
    hard_sigmoid,
    prelu,
)
from cnnjax.probes import normalizer_free_gain

everyone = pytest.mark.parametrize("row", ACTIVATIONS.values(), ids=lambda row: row.name)


def numeric_slope(row: Activation, z: np.ndarray) -> np.ndarray:
    return (row.reference(z + 1e-6) - row.reference(z - 1e-6)) / 2e-6


def away_from_kinks(row: Activation, z: np.ndarray) -> np.ndarray:
    return z[np.all([np.abs(z - kink) > 1e-5 for kink in (*row.kinks, np.inf)], axis=0)]


def test_table_holds_the_functions_under_their_names():
    assert set(ACTIVATIONS) == set(
        "sigmoid tanh softsign relu leaky_relu prelu elu selu gelu silu hard_swish relu6 identity".split()
    )
    for name, row in ACTIVATIONS.items():
        assert row.name == name
        assert row.function is getattr(module, name)


@everyone
def test_function_agrees_with_its_float64_definition(row):
    z = np.linspace(-8, 8, 401)
    np.testing.assert_allclose(row.function(jnp.float32(z)), row.reference(z), rtol=1e-5, atol=1e-6)


@everyone
def test_type_and_shape_are_kept_under_jit_vmap_and_grad(row):
    @jax.jit
    def variants(x):
        return row.function(x), jax.vmap(row.function)(x), jax.grad(lambda x: row.function(x).sum())(x)

    x = jnp.linspace(-2, 2, 12, dtype=jnp.bfloat16).reshape(2, 2, 3)
    for y in variants(x):
        assert y.dtype == jnp.bfloat16 and y.shape == x.shape


@everyone
def test_gain_keeps_the_second_moment(row):
    # An adaptive quadrature of other authors (QUADPACK) against ours.
    def integrand(z):
        return row.reference(np.float64(z)) ** 2 * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    moment = sum(
        integrate.quad(integrand, low, high, epsabs=1e-13, epsrel=1e-13)[0]
        for low, high in zip((-12, -3, 0, 3, 6), (-3, 0, 3, 6, 12), strict=True)
    )
    assert row.gain**2 * moment == pytest.approx(1, abs=1e-11)


@pytest.mark.parametrize(
    ("name", "gain"),
    [
        ("identity", 1),
        ("relu", math.sqrt(2)),  # He et al. 2015, equation 10
        ("leaky_relu", math.sqrt(2 / (1 + 0.01**2))),  # He et al. 2015, equation 15
        ("prelu", math.sqrt(2 / (1 + 0.25**2))),
        ("selu", 1),  # Klambauer et al. 2017, equation 14
    ],
)
def test_gain_of_closed_form(name, gain):
    assert ACTIVATIONS[name].gain == pytest.approx(gain, abs=1e-14)


@pytest.mark.parametrize("name", ["identity", "relu", "leaky_relu", "silu", "tanh", "sigmoid"])
def test_the_gain_of_the_variance_leaves_out_the_mean(name):
    row = ACTIVATIONS[name]
    assert row.variance_gain == pytest.approx(normalizer_free_gain(name), rel=1e-12)
    z = np.random.default_rng(0).normal(size=200_000)
    assert np.var(row.variance_gain * row.reference(z)) == pytest.approx(1, rel=0.02)


def test_gaussian_mean_is_exact_on_moments_and_on_kinks():
    assert gaussian_mean(lambda z: z**8) == pytest.approx(105, rel=1e-13)
    kinked = gaussian_mean(lambda z: np.abs(z - 0.3), splits=(0.3,))
    # E|z - a| = 2 phi(a) + a (2 Phi(a) - 1)
    assert kinked == pytest.approx(
        2 * math.exp(-0.045) / math.sqrt(2 * math.pi) + 0.3 * math.erf(0.3 / math.sqrt(2))
    )


@everyone
def test_max_slope_is_the_largest_slope(row):
    z = away_from_kinks(row, np.linspace(-8, 8, 160_001))
    assert np.abs(numeric_slope(row, z)).max() == pytest.approx(row.max_slope, rel=1e-3)
    z = away_from_kinks(row, np.linspace(1, 3.2, 2_001))
    if row.name in ("gelu", "silu"):
        assert np.abs(numeric_slope(row, z)).max() == pytest.approx(row.max_slope, rel=1e-6)


@everyone
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-5), (jnp.bfloat16, 0.01)])
def test_derivative_is_the_slope(row, dtype, tolerance):
    z = np.float64(jnp.asarray(away_from_kinks(row, np.linspace(-8, 8, 100)), jnp.bfloat16))
    slope = jax.jit(derivative(row))(jnp.asarray(z, dtype))
    assert slope.dtype == dtype
    np.testing.assert_allclose(np.float64(slope), numeric_slope(row, z), rtol=tolerance, atol=1e-6)


@everyone
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_derivative_is_finite_and_bounded_far_out(row, dtype):
    x = jnp.asarray([-1e20, -1e4, -1e2, 1e2, 1e4, 1e20], dtype)
    backward = jax.grad(lambda x: row.function(x).sum())
    for slope in jax.jit(lambda x: (derivative(row)(x), backward(x)))(x):
        assert jnp.isfinite(slope).all()
        assert jnp.abs(slope).max() <= row.max_slope
        assert slope.min() >= 0


def test_softsign_gradient_keeps_its_digits_far_out():
    x = jnp.float32([-1e8, -1e4, 1e4, 1e8])
    slope = jax.grad(lambda x: module.softsign(x).sum())(x)
    np.testing.assert_allclose(slope, 1 / (1 + np.abs(np.float64(x))) ** 2, rtol=1e-6)


def test_softsign_has_a_second_derivative():
    second = jax.grad(jax.grad(module.softsign))
    assert second(2.0) == pytest.approx(-2 / 27, rel=1e-6)


def test_hard_sigmoid_is_a_gate_outside_of_the_table():
    z = np.linspace(-8, 8, 401)
    np.testing.assert_allclose(HARD_SIGMOID.function(jnp.float32(z)), HARD_SIGMOID.reference(z), atol=1e-6)
    np.testing.assert_allclose(hard_sigmoid(jnp.float32([-3, 0, 3])), [0, 0.5, 1])
    slopes = derivative(HARD_SIGMOID)(jnp.float32([-1e20, -3.1, -2.9, 0, 2.9, 3.1, 1e20]))
    np.testing.assert_allclose(slopes, np.float32([0, 0, 1, 1, 1, 0, 0]) * HARD_SIGMOID.max_slope, rtol=1e-6)
    assert hard_sigmoid(jnp.bfloat16(1)).dtype == jnp.bfloat16
    assert "hard_sigmoid" not in ACTIVATIONS


def test_relu_is_dead_where_it_is_zero():
    np.testing.assert_array_equal(derivative("relu")(jnp.float32([-1, 0, 1])), [0, 0, 1])


def test_prelu_has_a_slope_for_each_channel():
    x = jnp.float32([[-1, -1, -1], [2, 2, 2]])
    slope = jnp.float32([0, 0.25, 1])
    np.testing.assert_array_equal(prelu(x, slope), [[0, -0.25, -1], [2, 2, 2]])
    np.testing.assert_array_equal(derivative("prelu")(x, slope), [[0, 0.25, 1], [1, 1, 1]])
    np.testing.assert_array_equal(jax.grad(lambda s: prelu(x, s).sum())(slope), [-1, -1, -1])
    np.testing.assert_array_equal(prelu(x), [[-0.25] * 3, [2] * 3])


def test_prelu_rejects_a_slope_of_another_shape():
    with pytest.raises(ValueError, match=r"scalar or have shape \(3,\) \(channels,\), got \(2,\)"):
        prelu(jnp.ones((4, 3)), jnp.ones(2))


def test_get_activation():
    own = Activation("sine", jnp.sin, np.sin)
    assert get_activation(own) is own
    assert get_activation("tanh") is ACTIVATIONS["tanh"]
    # E[sin(z)^2] = (1 - exp(-2)) / 2
    assert own.gain == pytest.approx(math.sqrt(2 / (1 - math.exp(-2))))
    with pytest.raises(ValueError, match="unknown activation 'rellu'; did you mean 'relu'"):
        get_activation("rellu")
    with pytest.raises(TypeError, match="must be a name or an Activation, got the function"):
        get_activation(jnp.sin)
    with pytest.raises(TypeError, match="name of the activation must be a string, got 3"):
        get_activation(3)


def test_gains_start_no_device():
    code = (
        "from cnnjax.functional.activation import ACTIVATIONS; [row.gain for row in ACTIVATIONS.values()];"
        "from jax._src import xla_bridge; raise SystemExit(xla_bridge.backends_are_initialized())"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
