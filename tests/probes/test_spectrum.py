import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.probes import full_spectrum, spectrum_of, top_spectrum
from cnnjax.probes.spectrum import full_jacobian


def matrix(rng, m, n, scale=1.0):
    return jnp.asarray(rng.normal(size=(m, n)) * scale, jnp.float32)


def reference(a):
    return np.linalg.svd(np.asarray(a, np.float64), compute_uv=False)


def linear(a):
    return lambda x: a @ x


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (40, 60), (60, 40), (200, 3)])
def test_all_values_are_those_of_numpy(rng, shape):
    a = matrix(rng, *shape)
    spectrum = jax.jit(lambda x: full_spectrum(lambda x: jnp.tanh(a @ x), x))(jnp.zeros(shape[1]))
    expected = reference(a)
    assert spectrum.complete and spectrum.shape == shape
    # float32 sums of n products, and singular values to a few units of the largest one's last place.
    np.testing.assert_allclose(spectrum.values, expected, atol=5e-6 * expected[0])
    summary = spectrum.summary()
    numbers = {"maximum": expected[0], "mean": expected.mean(), "median": np.median(expected)}
    assert summary == pytest.approx({**summary, **numbers}, rel=1e-5)
    assert summary["condition"] == pytest.approx(expected[0] / expected[-1], rel=1e-3)
    assert summary["log10_mean_square"] == pytest.approx(np.log10(np.mean(expected**2)), abs=1e-5)
    assert summary["relative_error"] == 0


def test_arrays_of_any_shape_at_any_point(rng):
    x = matrix(rng, 3, 4)

    def function(x):
        return jnp.stack([jnp.sin(x), x**2])

    jacobian = full_jacobian(function, x)
    np.testing.assert_allclose(jacobian, jax.jacobian(function)(x).reshape(24, 12), rtol=1e-6)
    diagonal = np.sort(np.sqrt(np.cos(x) ** 2 + 4 * np.square(x)).ravel())[::-1]
    np.testing.assert_allclose(full_spectrum(function, x).values, diagonal, rtol=1e-5)


@pytest.mark.parametrize("shape", [(60, 40), (40, 60)])
def test_lanczos_with_every_step_is_exact(rng, shape):
    a = matrix(rng, *shape)
    spectrum = top_spectrum(linear(a), jnp.zeros(shape[1]), k=40, steps=50)
    np.testing.assert_allclose(spectrum.values, reference(a), atol=2e-5)
    assert spectrum.complete and not np.any(spectrum.bounds)


def test_lanczos_from_below_within_its_bounds(rng):
    a = matrix(rng, 300, 200, 1 / math.sqrt(200))
    expected = reference(a)
    values = []
    for steps in (5, 40):
        spectrum = top_spectrum(linear(a), jnp.zeros(200), k=3, steps=steps)
        distance = np.abs(np.asarray(spectrum.values)[:, None] - expected).min(axis=1)
        assert np.all(distance <= np.asarray(spectrum.bounds) + 1e-5)
        assert spectrum.maximum <= expected[0] * (1 + 1e-6)
        values.append(float(spectrum.maximum))
    assert np.all(np.diff(values) > -1e-5)
    assert values[-1] == pytest.approx(expected[0], rel=1e-5)


@pytest.mark.parametrize("values", [[3, 3, 1, 0, 0], [2, 2, 2, 2, 2], [0, 0, 0, 0, 0], [5, 0, 0, 0, 0]])
def test_lanczos_goes_on_from_a_dead_end(rng, values):
    q, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    a = jnp.asarray(np.diag(values) @ q, jnp.float32)
    spectrum = top_spectrum(linear(a), jnp.zeros(5), k=5)
    np.testing.assert_allclose(spectrum.values, values, atol=1e-5)


def test_the_mean_square_is_within_its_standard_error(rng):
    a = matrix(rng, 100, 80)
    keys = jax.random.split(jax.random.key(3), 50)
    many = jax.vmap(lambda key: top_spectrum(linear(a), jnp.zeros(80), steps=1, samples=16, key=key))(keys)
    error = 10 ** (np.asarray(many.log10_mean_square) - np.log10(np.sum(reference(a) ** 2) / 80)) - 1
    # 50 deviates in units of an error with 15 degrees of freedom: their square has mean 15/13 and deviation 0.3.
    assert np.mean((error / many.relative_error) ** 2) == pytest.approx(15 / 13, abs=0.9)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_no_square_underflows(rng, scale):
    a = matrix(rng, 20, 20)
    plain, tiny = (spectrum_of(b) for b in (a, a * jnp.float32(scale)))
    np.testing.assert_allclose(tiny.values / jnp.float32(scale), plain.values, rtol=1e-4, atol=1e-6)
    shift = 2 * math.log10(scale)
    assert float(tiny.log10_mean_square) == pytest.approx(float(plain.log10_mean_square) + shift, abs=1e-4)
    top = top_spectrum(linear(a * jnp.float32(scale)), jnp.zeros(20), steps=20)
    assert float(top.maximum) / scale == pytest.approx(float(plain.maximum), rel=1e-5)
    assert top.log10_mean_square == pytest.approx(float(plain.log10_mean_square) + shift, abs=0.2)


def test_float64_where_it_is_enabled(rng):
    with jax.enable_x64(True):
        a = jnp.asarray(np.diag(10.0 ** -np.arange(13)))
        spectrum = full_spectrum(linear(a), jnp.zeros(13))
        assert spectrum.condition == pytest.approx(1e12, rel=1e-3)
        assert top_spectrum(linear(a), jnp.zeros(13)).values.dtype == jnp.float64


def network(rng, depth, n):
    kernels = [matrix(rng, n, n, 1 / math.sqrt(n)) for _ in range(depth)]

    def function(x):
        for kernel in kernels:
            x = jnp.tanh(kernel @ x)
        return x

    return function, jnp.asarray(rng.normal(size=n) / 2, jnp.float32)


def test_thirty_pairs_find_the_top_value_of_a_network(rng):
    function, x = network(rng, 2, 300)
    expected = reference(full_jacobian(function, x))[0]
    top = jax.jit(lambda key: top_spectrum(function, x, steps=30, key=key).maximum)
    found = [float(top(jax.random.key(seed))) for seed in range(5)]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_thirty_pairs_at_3072(rng, depth):
    function, x = network(rng, depth, 3072)
    expected = reference(full_jacobian(function, x))[0]
    top = jax.jit(lambda key: top_spectrum(function, x, steps=30, key=key).maximum)
    short = np.asarray([1 - float(top(jax.random.key(seed))) / expected for seed in range(10)])
    assert short.min() > -1e-5
    # A single Gaussian kernel has no gap: a start that happens to be orthogonal to the top one finds the next.
    assert np.median(short) < 1e-3 and short.max() < (5e-3 if depth == 1 else 1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, r"a Jacobian of shape \(3, 4\) has 3 singular values; got k=0"),
        ({"k": 4}, r"a Jacobian of shape \(3, 4\) has 3 singular values; got k=4"),
        ({"k": 3, "steps": 2}, "3 singular values take as many steps or more; got steps=2"),
        ({"samples": 1}, "a standard error takes 2 samples or more; got samples=1"),
    ],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        top_spectrum(linear(jnp.ones((3, 4))), jnp.zeros(4), **options)


def test_integers_have_no_jacobian():
    with pytest.raises(TypeError, match="floating-point numbers; got int32: use x.astype"):
        full_spectrum(lambda x: x * 2, jnp.arange(3))


def test_a_part_of_a_spectrum_has_no_median():
    spectrum = top_spectrum(linear(jnp.eye(4)), jnp.zeros(4), k=2)
    for name in ("mean", "median", "minimum", "condition"):
        with pytest.raises(
            ValueError, match="needs all 4 singular values, and this spectrum holds the 2 largest"
        ):
            getattr(spectrum, name)
    assert set(spectrum.summary()) == {"maximum", "log10_mean_square", "relative_error"}
