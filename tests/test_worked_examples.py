"""The numbers of textbooks and lectures, through the public functions.

Each can be worked out on paper; the comments say how.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.functional.conv import conv, convolve
from cnnjax.functional.filters import vertical_edge
from cnnjax.functional.loss import squared_error
from cnnjax.functional.pool import avg_pool, global_avg_pool, global_max_pool, max_pool
from cnnjax.functional.shapes import (
    conv_parameters,
    dense_parameters,
    output_size,
    parameter_count,
    receptive_field,
)


@pytest.mark.parametrize(
    ("size", "window", "padding", "expected"),
    [(32, 5, 0, 28), (32, 5, 2, 32), (6, 3, "VALID", 4), (6, 3, "SAME", 6)],
)
def test_output_size_of_a_convolution(size, window, padding, expected):
    # (size + 2 padding - window) / stride + 1
    assert output_size((size, size), window, padding=padding) == (expected, expected)
    y = conv(jnp.ones((1, size, size, 1)), jnp.ones((window, window, 1, 1)), padding=padding)
    assert y.shape == (1, expected, expected, 1)


def test_vertical_edge_of_a_half_bright_image():
    image = jnp.tile(jnp.float32([10, 10, 10, 0, 0, 0]), (6, 1))[None, :, :, None]
    # Where the window straddles the edge: 3 rows of 10 * 1 + 10 * 0 + 0 * -1, or 10 * 1 + 0 * 0 + 0 * -1.
    edges = conv(image, vertical_edge(), padding="VALID")[0, :, :, 0]
    np.testing.assert_array_equal(edges, [[0, 30, 30, 0]] * 4)
    # The convolution of signal processing flips the filter, and with it the sign of the edge.
    np.testing.assert_array_equal(convolve(image, vertical_edge(), padding="VALID")[0, :, :, 0], -edges)


def test_pooling_four_by_four_by_two():
    image = jnp.float32([[1, 3, 2, 1], [2, 9, 1, 1], [1, 3, 2, 3], [5, 6, 1, 2]])[None, :, :, None]
    np.testing.assert_array_equal(max_pool(image, 2, stride=2)[0, :, :, 0], [[9, 2], [6, 3]])
    np.testing.assert_array_equal(avg_pool(image, 2, stride=2)[0, :, :, 0], [[3.75, 1.25], [3.75, 2]])


def test_weights_of_dense_layers_against_convolutions():
    assert dense_parameters(256 * 256 * 3, 1000, bias=False) == 196_608_000
    assert dense_parameters(32 * 32 * 3, 100, bias=False) == 307_200
    # 10 filters: 5 * 5 * 3 weights and a bias each.
    assert conv_parameters((5, 5), 3, 10) == 760
    # 28 x 28 pixels to 32 units, against 32 filters of 5 x 5 with biases.
    assert dense_parameters(28 * 28, 32, bias=False) == 25_088
    assert conv_parameters((5, 5), 1, 32) == 832


def test_parameters_of_three_convolutions():
    layers = [((5, 5), 3, 32), ((5, 5), 32, 64), ((3, 3), 64, 128)]
    assert [conv_parameters(*layer) for layer in layers] == [2_432, 51_264, 73_856]
    tree = [(jnp.zeros((*window, n_in, n_out)), jnp.zeros(n_out)) for window, n_in, n_out in layers]
    assert parameter_count(tree) == 127_552


def test_receptive_field_of_conv_pool_conv():
    fields = receptive_field([(3, 1), (2, 2), (3, 1)])
    assert [field.size for field in fields] == [1, 3, 4, 8]
    assert [field.jump for field in fields] == [1, 1, 2, 2]


def test_one_step_of_gradient_descent_on_a_filter_of_two_weights():
    x, target = jnp.float32([1, 2, 3]), jnp.float32([2, 3])

    def filtered(weights):
        return conv(x[None, :, None], weights[:, None, None], padding="VALID")[0, :, 0]

    def loss(weights):
        return 0.5 * squared_error(filtered(weights), target).sum()

    weights = jnp.float32([1, 0])
    # y = (1, 2), the residual is (-1, -1), and the loss (1 + 1) / 2.
    np.testing.assert_array_equal(filtered(weights), [1, 2])
    assert loss(weights) == 1
    # dL/dw_k = sum over i of residual_i x_(i + k): -(1 + 2) and -(2 + 3). The gradient is a cross-correlation too.
    gradient = jax.grad(loss)(weights)
    np.testing.assert_array_equal(gradient, [-3, -5])
    np.testing.assert_array_equal(
        gradient, conv(x[None, :, None], jnp.float32([-1, -1])[:, None, None], padding="VALID")[0, :, 0]
    )
    stepped = weights - 0.1 * gradient
    np.testing.assert_allclose(stepped, [1.3, 0.5], rtol=1e-6)
    # y = (1.3 + 1.0, 2.6 + 1.5), the residual is (0.3, 1.1).
    assert loss(stepped) == pytest.approx((0.09 + 1.21) / 2, rel=1e-5)


SHIFT = (2, -3)


@pytest.fixture
def image(rng):
    return jnp.float32(rng.normal(size=(2, 8, 8, 3)))


@pytest.fixture
def kernel(rng):
    return jnp.float32(rng.normal(size=(3, 3, 3, 4)))


def shifted(x: jax.Array) -> jax.Array:
    return jnp.roll(x, SHIFT, axis=(1, 2))


def test_circular_convolution_is_equivariant_to_translation(image, kernel):
    there = conv(shifted(image), kernel, padding="CIRCULAR")
    np.testing.assert_allclose(there, shifted(conv(image, kernel, padding="CIRCULAR")), rtol=1e-5, atol=1e-5)


def test_zero_padding_breaks_equivariance_where_the_border_was_or_is(image, kernel):
    there, expected = conv(shifted(image), kernel), shifted(conv(image, kernel))
    differs = np.abs(there - expected).max(axis=(0, 3)) > 1e-3
    rows = {0, 7, (0 + SHIFT[0]) % 8, (7 + SHIFT[0]) % 8}
    columns = {0, 7, (0 + SHIFT[1]) % 8, (7 + SHIFT[1]) % 8}
    border = [[row in rows or column in columns for column in range(8)] for row in range(8)]
    np.testing.assert_array_equal(differs, border)


@pytest.mark.parametrize("pool", [global_avg_pool, global_max_pool])
def test_global_pooling_is_invariant_to_translation(image, kernel, pool):
    def features(x):
        return pool(jax.nn.relu(conv(x, kernel, padding="CIRCULAR")))

    np.testing.assert_allclose(features(shifted(image)), features(image), rtol=1e-4, atol=1e-5)
