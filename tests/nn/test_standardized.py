from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import functional as F
from cnnjax import nn

from ..drawn import images, shapes, variables


def standardized(kernel, gain):
    """From the definition, in NumPy: mean 0 and variance gain^2 / fan_in for each output channel."""
    flat = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])
    flat = (flat - flat.mean(0)) / (flat.std(0) * np.sqrt(len(flat))) * np.asarray(gain, np.float64)
    return jnp.asarray(flat.reshape(kernel.shape), jnp.float32)


@pytest.mark.parametrize(
    "spatial, options",
    [
        ((6, 6), {"scale": 1.7, "padding": 1, "stride": 2}),
        ((6, 5), {"groups": 2, "use_bias": False}),
        ((7,), {"dilation": 2}),
        ((4, 3, 4), {}),
    ],
)
def test_it_is_the_convolution_with_a_standardized_kernel(spatial, options):
    x, layer = images(2, *spatial, 4), nn.WSConv(6, 3, **options)
    made = variables(layer, x)
    kernel, gain, bias = (made["params"].get(name) for name in ("kernel", "gain", "bias"))
    others = {k: v for k, v in options.items() if k not in ("scale", "use_bias")}
    expected = F.conv(x, standardized(kernel, options.get("scale", 1.0) * gain), bias, **others)
    np.testing.assert_allclose(layer.apply(made, x), expected, rtol=1e-4, atol=1e-5)


def test_mean_and_deviation_of_the_parameter_do_not_matter():
    x, layer = images(2, 5, 5, 4), nn.WSConv(8, 3)
    made = variables(layer, x)
    moved = {"params": {**made["params"], "kernel": 3 * made["params"]["kernel"] + 2}}
    np.testing.assert_allclose(layer.apply(moved, x), layer.apply(made, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["relu", "silu", "tanh"])
def test_with_the_gain_of_the_activation_it_keeps_the_variance(name):
    activation = F.get_activation(name)
    layer = nn.WSConv(64, 1, scale=activation.variance_gain)
    z = images(40, 6, 6, 256)
    made = variables(layer, z)
    y = layer.apply(
        {"params": {"kernel": made["params"]["kernel"], "gain": jnp.ones(64), "bias": jnp.zeros(64)}},
        activation.function(z),
    )
    # 64 channels, each of a variance near 1; the mean of the activation passes into none of them.
    np.testing.assert_allclose(y.var((0, 1, 2)).mean(), 1, rtol=0.03)
    assert np.abs(y.mean((0, 1, 2))).max() < 0.1


def test_it_computes_in_its_type_and_says_where_groups_do_not_divide():
    x = images(2, 4, 4, 4)
    layer = nn.WSConv(6, 3, dtype=jnp.bfloat16)
    made = shapes(layer, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype(jnp.float32)}
    assert jax.eval_shape(layer.apply, made, x).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="in layer WSConv: 4 input channels do not divide into 3 groups"):
        shapes(nn.WSConv(6, 3, groups=3), x)


def test_the_gain_starts_at_one():
    made = jax.jit(nn.WSConv(6, 3).init)(jax.random.key(0), jnp.zeros((1, 4, 4, 2)))["params"]
    np.testing.assert_array_equal(made["gain"], np.ones(6))
    np.testing.assert_array_equal(made["bias"], np.zeros(6))


def test_it_takes_the_place_of_a_convolution_in_a_layer():
    layer = nn.PreActivationLayer(partial(nn.WSConv, 6, 3), nn.LayerNorm)
    made = shapes(layer, jnp.zeros((2, 4, 4, 4)))["params"]
    assert {part: set(tree) for part, tree in made.items()} == {
        "norm": {"scale", "bias"},
        "linear": {"kernel", "gain"},
    }
