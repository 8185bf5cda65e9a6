from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import functional as F
from cnnjax import nn

from ..drawn import images, shapes, variables

BLOCKS = {
    "basic": nn.BasicBlock,
    "pre_activation": nn.PreActivationBlock,
    "bottleneck": nn.BottleneckBlock,
    "pre_activation_bottleneck": nn.PreActivationBottleneckBlock,
}


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def normalize(x, made, part):
    """Batch normalization with the running statistics, from the definition."""
    scale, bias = (made["params"][part]["norm"][name] for name in ("scale", "bias"))
    mean, variance = (made["batch_stats"][part]["norm"][name] for name in ("mean", "variance"))
    factor, shift = (a.reshape(1, 1, 1, -1) for a in (scale / jnp.sqrt(variance + 1e-5), bias))
    return (x - mean.reshape(1, 1, 1, -1)) * factor + shift


def convolve(x, made, part, stride=1):
    return F.conv(x, made["params"][part]["linear"]["kernel"], stride=stride)


def basic(x, made, stride, shortcut):
    h = F.relu(normalize(convolve(x, made, "layer1", stride), made, "layer1"))
    return F.relu(normalize(convolve(h, made, "layer2"), made, "layer2") + shortcut)


def pre_activation(x, made, stride, shortcut):
    h = convolve(F.relu(normalize(x, made, "layer1")), made, "layer1", stride)
    return convolve(F.relu(normalize(h, made, "layer2")), made, "layer2") + shortcut


def bottleneck(x, made, stride, shortcut):
    h = F.relu(normalize(convolve(x, made, "layer1"), made, "layer1"))
    h = F.relu(normalize(convolve(h, made, "layer2", stride), made, "layer2"))
    return F.relu(normalize(convolve(h, made, "layer3"), made, "layer3") + shortcut)


def pre_activation_bottleneck(x, made, stride, shortcut):
    h = convolve(F.relu(normalize(x, made, "layer1")), made, "layer1")
    h = convolve(F.relu(normalize(h, made, "layer2")), made, "layer2", stride)
    return convolve(F.relu(normalize(h, made, "layer3")), made, "layer3") + shortcut


COMPOSED = {
    "basic": basic,
    "pre_activation": pre_activation,
    "bottleneck": bottleneck,
    "pre_activation_bottleneck": pre_activation_bottleneck,
}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_is_what_its_parts_compose_to(name, stride):
    x = images(2, 4, 4, 4)
    module = BLOCKS[name](6 if "bottleneck" in name else 8, stride, norm=nn.BatchNorm)
    made = variables(module, x)

    @jax.jit
    def compute(made, x):
        y = module.apply(made, x)
        shortcut = nn.pad_shortcut(x, features=y.shape[-1], stride=stride)
        without = module.clone(skip=False).apply(made, x)
        return (y, without), [COMPOSED[name](x, made, stride, s) for s in (shortcut, jnp.zeros_like(y))]

    for actual, expected in zip(*compute(made, x), strict=True):
        close(actual, expected)
        assert actual.shape == (2, 4 // stride, 4 // stride, 24 if "bottleneck" in name else 8)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_twin_without_a_skip_has_the_same_parameters(name):
    x = jnp.zeros((2, 4, 4, 4))
    module = BLOCKS[name](8, 2, norm=nn.BatchNorm)
    assert shapes(module, x) == shapes(module.clone(skip=False), x)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_multiplier_scales_the_branch_and_not_the_shortcut(name):
    x = images(2, 4, 4, 4)
    module = BLOCKS[name](
        1 if "bottleneck" in name else 4, norm=nn.LayerNorm, act=partial(nn.Activation, "identity")
    )
    scaled = module.clone(multiplier=0.5)
    made = scaled.init(jax.random.key(0), x)
    path, factor = next(p for p in jax.tree_util.tree_leaves_with_path(made) if p[0][-1].key == "factor")
    assert factor.shape == () and factor == 0.5 and path[-2].key == "multiplier"
    parts = {k: v for k, v in made["params"].items() if k != "multiplier"}
    bare = {"params": {k: {m: v for m, v in part.items() if m != "multiplier"} for k, part in parts.items()}}
    assert jax.tree.structure(bare) == jax.tree.structure(shapes(module, x))
    y, plain = jax.jit(lambda: (scaled.apply(made, x), module.apply(bare, x)))()
    assert np.abs(plain - x).max() > 0.1
    close(y - x, 0.5 * (plain - x))


@pytest.mark.parametrize("name", BLOCKS)
def test_the_last_convolution_may_be_another(name):
    module = BLOCKS[name](
        4, last_conv=partial(nn.Conv, kernel_init="zeros"), act=partial(nn.Activation, "identity")
    )
    x = images(2, 4, 4, 16 if "bottleneck" in name else 4)
    made = jax.jit(module.init)(jax.random.key(0), x)["params"]
    zero = [np.all(layer["linear"]["kernel"] == 0) for _, layer in sorted(made.items())]
    assert zero == [False] * (len(zero) - 1) + [True]
    np.testing.assert_array_equal(module.apply({"params": made}, x), x)


@pytest.mark.parametrize("name", BLOCKS)
def test_options_reach_every_part_of_a_block(name):
    x = jnp.zeros((2, 4, 4, 4))
    conv = partial(nn.Conv, padding="CIRCULAR")
    module = BLOCKS[name](4, conv=conv, norm=nn.GroupNorm, act=partial(nn.Activation, "prelu"))
    layers = shapes(module, x)["params"]
    assert set(layers) == ({"layer1", "layer2", "layer3"} if "bottleneck" in name else {"layer1", "layer2"})
    for layer in layers.values():
        assert set(layer) == {"linear", "norm", "act"}
        assert set(layer["linear"]) == {"kernel"}
    # A circular block does not know where the image begins.
    made, x = variables(module, x), images(2, 4, 4, 4)
    apply = jax.jit(module.apply)
    close(apply(made, jnp.roll(x, (1, 2), (1, 2))), jnp.roll(apply(made, x), (1, 2), (1, 2)))


def test_pad_shortcut_by_hand():
    x = jnp.arange(1.0, 9.0).reshape(1, 4, 2)
    # Positions 0 and 2, and of three new channels one in front and two behind.
    np.testing.assert_array_equal(
        nn.pad_shortcut(x, features=5, stride=2), [[[0, 1, 2, 0, 0], [0, 5, 6, 0, 0]]]
    )
    np.testing.assert_array_equal(nn.pad_shortcut(x, features=2, stride=1), x)


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 5, 4, 3), (2, 3, 4, 5, 3)])
def test_pad_shortcut_in_any_dimension(shape):
    y = nn.pad_shortcut(jnp.ones(shape), features=7, stride=2)
    assert y.shape == (2, *(-(-n // 2) for n in shape[1:-1]), 7)
    np.testing.assert_array_equal(y.sum(-1), np.full(y.shape[:-1], 3))


def test_a_layer_is_linear_norm_residual_activation():
    x, residual = images(3, 5), images(3, 4, seed=2)
    layer = nn.Layer(partial(nn.Dense, 4), nn.LayerNorm, partial(nn.Activation, "tanh"))
    made = variables(layer, x)
    kernel, norm = made["params"]["linear"]["kernel"], made["params"]["norm"]
    z = F.layer_norm(x @ kernel, norm["scale"], norm["bias"])
    close(layer.apply(made, x), jnp.tanh(z))
    close(layer.apply(made, x, residual=residual), jnp.tanh(z + residual))


@pytest.mark.parametrize(
    "norm, use_bias, expected",
    [(None, None, True), (nn.LayerNorm, None, False), (None, False, False), (nn.LayerNorm, True, True)],
)
def test_a_layer_has_a_bias_where_it_has_no_norm(norm, use_bias, expected):
    layer = nn.Layer(partial(nn.Dense, 4), norm, use_bias=use_bias)
    assert ("bias" in shapes(layer, jnp.zeros((2, 3)))["params"]["linear"]) == expected


@pytest.mark.parametrize("norm", [None, nn.LayerNorm])
def test_a_pre_activation_layer_is_norm_activation_linear(norm):
    x = images(3, 5)
    layer = nn.PreActivationLayer(partial(nn.Dense, 4), norm)
    made = variables(layer, x)
    linear = made["params"]["linear"]
    if norm is None:
        expected = F.relu(x) @ linear["kernel"] + linear["bias"].reshape(1, -1)
    else:
        expected = (
            F.relu(F.layer_norm(x, *(made["params"]["norm"][p] for p in ("scale", "bias"))))
            @ linear["kernel"]
        )
    close(layer.apply(made, x), expected)


def test_training_reaches_the_norms_of_a_block():
    x = images(4, 4, 4, 4)
    module = nn.BasicBlock(4, norm=nn.BatchNorm)
    made = variables(module, x)
    _, moved = jax.jit(partial(module.apply, train=True, mutable=["batch_stats"]))(made, x)
    for layer in ("layer1", "layer2"):
        before, after = made["batch_stats"][layer]["norm"], moved["batch_stats"][layer]["norm"]
        assert np.all(before["mean"] != after["mean"])


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_projection_takes_the_place_of_the_padding(name, stride):
    x = images(2, 4, 4, 4)
    module = BLOCKS[name](
        2 if "bottleneck" in name else 8, stride, norm=nn.BatchNorm, projection=partial(nn.Conv, padding=0)
    )
    made = variables(module, x)

    @jax.jit
    def compute(made, x):
        if name.startswith("pre_activation"):
            shortcut = convolve(F.relu(normalize(x, made, "layer1")), made, "shortcut", stride)
        else:
            shortcut = normalize(convolve(x, made, "shortcut", stride), made, "shortcut")
        return module.apply(made, x), COMPOSED[name](x, made, stride, shortcut)

    close(*compute(made, x))
    assert ("norm" in made["params"]["shortcut"]) != name.startswith("pre_activation")
    assert shapes(module.clone(norm=None), x)["params"]["shortcut"]["linear"]["bias"].shape == (8,)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_projection_is_there_only_where_the_shape_changes(name):
    x = jnp.zeros((2, 4, 4, 8))
    module = BLOCKS[name](2 if "bottleneck" in name else 8, projection=nn.Conv)
    padded = module.clone(projection=None)
    assert shapes(module, x) == shapes(padded, x)
    assert str(jax.make_jaxpr(module.apply)(shapes(module, x), x)) == str(
        jax.make_jaxpr(padded.apply)(shapes(padded, x), x)
    )
    assert "shortcut" in shapes(module.clone(stride=2), x)["params"]
    assert "shortcut" not in shapes(module.clone(stride=2, skip=False), x)["params"]


@pytest.mark.parametrize("name", ["pre_activation", "pre_activation_bottleneck"])
def test_a_block_may_begin_with_its_convolution(name):
    x = images(2, 4, 4, 4)
    module = BLOCKS[name](2 if "bottleneck" in name else 8, 2, norm=nn.BatchNorm, projection=nn.Conv)
    first = module.clone(activated=True)
    made = variables(module, x)
    rest = {
        kind: {**tree, "layer1": {k: v for k, v in tree["layer1"].items() if k != "norm"}}
        for kind, tree in made.items()
    }
    assert jax.tree.structure(rest["params"]) == jax.tree.structure(shapes(first, x)["params"])
    whole = jax.jit(module.apply)(made, x)
    close(jax.jit(first.apply)(rest, F.relu(normalize(x, made, "layer1"))), whole)


@pytest.mark.parametrize("name", ["bottleneck", "pre_activation_bottleneck"])
def test_the_inside_of_a_bottleneck(name):
    module = BLOCKS[name](4, expansion=2, inner=6, groups=3)
    made = shapes(module, jnp.zeros((2, 4, 4, 8)))["params"]
    assert {layer: tree["linear"]["kernel"].shape for layer, tree in made.items()} == {
        "layer1": (1, 1, 8, 6),
        "layer2": (3, 3, 2, 6),
        "layer3": (1, 1, 6, 8),
    }


def test_a_shortcut_cannot_drop_channels():
    with pytest.raises(ValueError, match="cannot go from 4 channels to 2: use more features or skip=False"):
        shapes(nn.BasicBlock(2), jnp.zeros((1, 4, 4, 4)))
