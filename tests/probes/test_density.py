import math

import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.probes import (
    matrix_cumulative,
    matrix_density,
    product_cumulative,
    product_density,
    product_edge,
    spectrum_histogram,
    spectrum_of,
    top_spectrum,
)

NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)


def test_one_kernel_is_the_quarter_circle():
    s = np.linspace(0, 2.5, 26)
    circle = np.sqrt(np.maximum(4 - s**2, 0)) / math.pi
    np.testing.assert_allclose(product_density(s), circle, atol=1e-12)
    np.testing.assert_allclose(matrix_density(s, outputs=7, inputs=7), circle, atol=1e-12)
    exact = np.where(s < 2, s * np.sqrt(np.maximum(4 - s**2, 0)) / (2 * math.pi), 0)
    exact = np.where(s < 2, exact + 2 / math.pi * np.arcsin(np.minimum(s / 2, 1)), 1)
    np.testing.assert_allclose(product_cumulative(s), exact, atol=1e-12)
    np.testing.assert_allclose(matrix_cumulative(s, outputs=7, inputs=7), exact, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 3, 10, 64])
def test_moments_are_the_fuss_catalan_numbers(depth):
    # E[s^2k] = integral of 2 k s^(2k - 1) (1 - F(s)) ds.
    edge = product_edge(depth, sigma_w=1.5)
    s = edge * (NODES + 1) / 2
    above = 1 - product_cumulative(s, depth=depth, sigma_w=1.5)
    for k in (1, 2, 3):
        moment = np.sum(WEIGHTS * edge / 2 * 2 * k * s ** (2 * k - 1) * above)
        fuss_catalan = math.comb((depth + 1) * k, k) / (depth * k + 1)
        assert moment == pytest.approx(fuss_catalan * 1.5 ** (2 * depth * k), rel=2e-5)


@pytest.mark.parametrize("depth", [1, 2, 10])
def test_the_density_is_the_slope(depth):
    s = product_edge(depth) * np.linspace(0.05, 0.95, 10)
    slope = (product_cumulative(s + 1e-5, depth=depth) - product_cumulative(s - 1e-5, depth=depth)) / 2e-5
    np.testing.assert_allclose(slope, product_density(s, depth=depth), rtol=1e-6)
    assert product_density(0.0, depth=depth) == (2 / math.pi if depth == 1 else np.inf)
    assert product_density(product_edge(depth) + 1e-9, depth=depth) == 0


@pytest.mark.parametrize(("outputs", "inputs"), [(50, 100), (100, 50)])
def test_rectangular_kernels(outputs, inputs):
    s = np.linspace(0.3, 2.4, 15) * 2
    shape = dict(outputs=outputs, inputs=inputs, sigma_w=2.0)
    slope = (matrix_cumulative(s + 1e-5, **shape) - matrix_cumulative(s - 1e-5, **shape)) / 2e-5
    np.testing.assert_allclose(slope, matrix_density(s, **shape), atol=1e-6)
    assert matrix_cumulative(20.0, **shape) == pytest.approx(1, abs=1e-12)
    assert matrix_density(0.0, **shape) == 0


@pytest.mark.parametrize(("shape", "depth"), [((400, 400), 1), ((200, 400), 1), ((400, 400), 3)])
def test_gaussian_samples_follow_it(rng, shape, depth):
    product = np.eye(shape[1])
    for _ in range(depth):
        product = rng.normal(size=(shape[0], len(product))) / math.sqrt(len(product)) @ product
    table = spectrum_histogram(spectrum_of(jnp.asarray(product, jnp.float32)), depth=depth, bins=12)
    # Singular values repel: a bin's count is off by about sqrt(log n) / pi and an edge, not by sqrt n.
    assert np.abs(table["measured"] - table["predicted"]).max() * min(shape) < 5
    assert table["count"].sum() == min(shape) and table["predicted"].sum() == pytest.approx(1)


def test_orthogonal_kernels_have_one_value():
    spectrum = spectrum_of(
        jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(50, 50)))[0] * 1.21)
    )
    table = spectrum_histogram(spectrum, ensemble="orthogonal", depth=2, sigma_w=1.1, bins=[0, 1.2, 1.22, 2])
    assert table["measured"].tolist() == table["predicted"].tolist() == [0, 1, 0]


def test_bad_input():
    square, wide = spectrum_of(jnp.eye(4)), spectrum_of(jnp.ones((2, 4)))
    with pytest.raises(ValueError, match="unknown ensemble 'gausian'; did you mean 'gaussian'"):
        spectrum_histogram(square, ensemble="gausian")
    with pytest.raises(
        ValueError, match=r"3 Gaussian kernels is for square ones; this Jacobian has shape \(2, 4\)"
    ):
        spectrum_histogram(wide, depth=3)
    with pytest.raises(ValueError, match="takes all 4 singular values of one matrix"):
        spectrum_histogram(top_spectrum(lambda x: x, jnp.zeros(4)))
    for depth in (0, 1.5, True):
        with pytest.raises(ValueError, match=f"an integer >= 1; got {depth}"):
            product_density(1.0, depth=depth)
    with pytest.raises(ValueError, match="sigma_w must be positive; got 0"):
        product_edge(sigma_w=0)
    with pytest.raises(ValueError, match=r"1 row and 1 column or more; got shape \(0, 3\)"):
        matrix_density(1.0, outputs=0, inputs=3)
