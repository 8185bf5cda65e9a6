import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.functional.dropout import drop_path, dropout, dropout_channels

FUNCTIONS = [dropout, dropout_channels, drop_path]
KEY = jax.random.key(0)
SHAPE = (200, 4, 3, 20)


def compiled(drop, rate):
    return jax.jit(lambda x, key: drop(x, key, rate=rate))


@pytest.mark.parametrize(
    "drop, units, unit_axes",
    [(dropout, 200 * 12 * 20, ()), (dropout_channels, 200 * 20, (1, 2)), (drop_path, 200, (1, 2, 3))],
)
def test_units_are_dropped_whole_and_the_rest_is_scaled(drop, units, unit_axes):
    rate = 0.3
    y = np.asarray(compiled(drop, rate)(jnp.ones(SHAPE), KEY))
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.7], rtol=1e-6)
    np.testing.assert_array_equal(y.max(unit_axes), y.min(unit_axes))
    # Five standard deviations of the share of dropped units.
    tolerance = 5 * np.sqrt(rate * (1 - rate) / units)
    assert np.mean(y == 0) == pytest.approx(rate, abs=tolerance)


def test_mean_over_keys_is_the_input(rng):
    x = jnp.asarray(rng.normal(size=(3, 4, 2)), jnp.float32)
    count = 10_000
    samples = jax.vmap(compiled(dropout_channels, 0.5), (None, 0))(x, jax.random.split(KEY, count))
    # Each entry is 0 or 2 x, with standard deviation |x|: five of its mean's.
    assert np.all(np.abs(samples.mean(0) - x) <= 5 * np.abs(x) / np.sqrt(count))


def test_gradient_passes_where_the_input_does(rng):
    x = jnp.asarray(rng.uniform(1, 2, size=SHAPE), jnp.float32)
    y, pull = jax.vjp(compiled(dropout, 0.25), x, KEY)
    np.testing.assert_allclose(pull(jnp.ones_like(y))[0], y / x, rtol=1e-6)


@pytest.mark.parametrize("drop", FUNCTIONS)
def test_rate_zero_is_the_identity(drop):
    x = jnp.ones((2, 3, 4))
    assert drop(x, KEY, rate=0) is x
    assert drop(x, KEY, rate=0.0) is x
    np.testing.assert_array_equal(jax.jit(drop)(x, KEY, rate=0.0), x)


@pytest.mark.parametrize("dtype, rtol", [(jnp.float32, 1e-6), (jnp.bfloat16, 2**-7)])
def test_traced_rate_is_the_static_one(dtype, rtol, rng):
    x = jnp.asarray(rng.normal(size=SHAPE), dtype)
    traced = jax.jit(dropout_channels)(x, KEY, rate=0.3)
    assert traced.dtype == dtype
    static = compiled(dropout_channels, 0.3)(x, KEY)
    np.testing.assert_allclose(traced.astype(jnp.float32), static.astype(jnp.float32), rtol=rtol)


def test_rates_along_a_scan():
    x, rates, keys = jnp.ones((4000, 1)), jnp.array([0.1, 0.5, 0.8]), jax.random.split(KEY, 3)

    @jax.jit
    def dropped(keys, rates):
        def step(carry, arguments):
            key, rate = arguments
            return carry, jnp.mean(drop_path(x, key, rate=rate) == 0)

        return jax.lax.scan(step, None, (keys, rates))[1]

    np.testing.assert_allclose(dropped(keys, rates), rates, atol=0.04)  # five standard deviations


def test_the_key_decides():
    x, drop_half = jnp.ones(SHAPE), compiled(dropout, 0.5)
    np.testing.assert_array_equal(drop_half(x, KEY), drop_half(x, KEY))
    assert np.any(drop_half(x, KEY) != drop_half(x, jax.random.key(1)))


def test_low_precision_is_scaled_in_float32():
    # 1 / 0.85 rounds to 1.1796875 in bfloat16; with 0.85 rounded first it would be 1.171875.
    y = compiled(dropout, 0.15)(jnp.ones(SHAPE, jnp.bfloat16), KEY)
    assert y.max() == 1.1796875


@pytest.mark.parametrize("drop", FUNCTIONS)
@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan"), np.float32(2)])
def test_rate_outside_of_its_range(drop, rate):
    with pytest.raises(ValueError, match=r"rate, the probability of dropping, must lie in \[0, 1\), got"):
        drop(jnp.ones((2, 3)), KEY, rate=rate)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: dropout_channels(jnp.ones(3), KEY, rate=0.5), ValueError, r"got shape \(3,\)"),
        (lambda: drop_path(jnp.ones(()), KEY, rate=0.5), ValueError, "got a scalar"),
        (
            lambda: dropout(jnp.ones(3, jnp.int32), KEY, rate=0.5),
            TypeError,
            "floating-point numbers, got int32",
        ),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()
