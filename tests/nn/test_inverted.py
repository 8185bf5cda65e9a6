import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import nn

from ..drawn import images, shapes, variables

BLOCKS = {"inverted": nn.InvertedResidual, "fused": nn.FusedInvertedResidual}
every_block = pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
TANH = partial(nn.Activation, "tanh")


def windows(x, size, stride):
    """The entries that each tap of a symmetrically padded window sees: (tap row, tap column, *image, channels)."""
    half = size // 2
    padded = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    rows, columns = x.shape[1:3]
    return np.stack(
        [
            np.stack([padded[:, i : i + rows : stride, j : j + columns : stride] for j in range(size)])
            for i in range(size)
        ]
    )


def composed(x, params, stride):
    """Either block from the definition, without norm."""
    p = {name: part["linear"] for name, part in params.items() if name != "squeeze"}
    h = x
    if "depthwise" not in p:
        kernel = p["expand"]["kernel"]
        h = np.tanh(
            np.einsum("ijbhwc,ijcd->bhwd", windows(x, len(kernel), stride), kernel) + p["expand"]["bias"]
        )
    else:
        if "expand" in p:
            h = np.tanh(h @ p["expand"]["kernel"][0, 0] + p["expand"]["bias"])
        kernel = p["depthwise"]["kernel"]
        taps = windows(h, len(kernel), stride)
        h = np.tanh(np.einsum("ijbhwc,ijc->bhwc", taps, kernel[:, :, 0]) + p["depthwise"]["bias"])
    if "squeeze" in params:
        s = {name: part["linear"] for name, part in params["squeeze"].items()}
        z = np.maximum(h.mean((1, 2)) @ s["reduce"]["kernel"][0, 0] + s["reduce"]["bias"], 0)
        gates = 1 / (1 + np.exp(-(z @ s["expand"]["kernel"][0, 0] + s["expand"]["bias"])))
        h = h * gates[:, None, None]
    h = h @ p["project"]["kernel"][0, 0] + p["project"]["bias"]
    return h + x if h.shape == x.shape else h


@pytest.mark.parametrize(
    "block, options",
    [
        (nn.InvertedResidual, {"features": 4, "expanded": 8}),
        (nn.InvertedResidual, {"features": 4, "expanded": 4, "window": 5}),
        (nn.InvertedResidual, {"features": 6, "expanded": 8, "squeeze": partial(nn.SqueezeExcite, 3)}),
        (nn.InvertedResidual, {"features": 4, "expanded": 8, "stride": 2}),
        (nn.FusedInvertedResidual, {"features": 4, "expanded": 8}),
        (nn.FusedInvertedResidual, {"features": 6, "expanded": 8, "stride": 2}),
    ],
)
def test_a_block_is_what_its_parts_compose_to(block, options):
    x = images(2, 5, 5, 4)
    module = block(**options, act=TANH)
    made = variables(module, x)
    expected = composed(
        *jax.tree.map(partial(np.asarray, dtype=np.float64), (x, made["params"])), module.stride
    )
    np.testing.assert_allclose(jax.jit(module.apply)(made, x), expected, rtol=1e-4, atol=1e-5)


def test_a_fused_block_that_expands_nothing_is_one_layer_beside_the_shortcut():
    x = images(2, 4, 4, 3)
    module = nn.FusedInvertedResidual(3, 3, norm=nn.GroupNorm, act=TANH)
    made = variables(module, x)
    assert set(made["params"]) == {"layer"}
    layer = nn.Layer(partial(nn.Conv, 3, 3), nn.GroupNorm, TANH)
    y, alone = jax.jit(lambda p: (module.apply({"params": p}, x), layer.apply({"params": p["layer"]}, x)))(
        made["params"]
    )
    np.testing.assert_allclose(y - x, alone, rtol=1e-4, atol=1e-5)


@every_block
@pytest.mark.parametrize("options", [{"features": 4, "stride": 2}, {"features": 6}])
def test_a_block_that_changes_the_shape_has_no_shortcut(block, options):
    x = images(1, 4, 4, 4)
    made = variables(block(expanded=8, **options), x)
    programs = [
        str(jax.make_jaxpr(block(expanded=8, skip=skip, **options).apply)(made, x)) for skip in (True, False)
    ]
    assert programs[0] == programs[1]


@every_block
@pytest.mark.parametrize("expanded", [4, 8])
def test_the_twin_without_a_shortcut_lacks_the_input_alone(block, expanded):
    x = images(2, 4, 4, 4)
    module = block(4, expanded)
    twin, made = module.clone(skip=False), variables(module, x)
    assert shapes(twin, x) == shapes(module, x)
    y, without = jax.jit(lambda made: (module.apply(made, x), twin.apply(made, x)))(made)
    np.testing.assert_allclose(y - without, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "block, expanded",
    [(nn.InvertedResidual, 8), (nn.FusedInvertedResidual, 8), (nn.FusedInvertedResidual, 4)],
)
def test_a_branch_is_dropped_for_whole_images_and_its_mean_stays(block, expanded):
    x = images(400, 2, 2, 4)
    module = block(4, expanded, act=TANH)
    made = variables(module, x)

    @jax.jit
    def branches(made, rate):
        trained = module.apply(made, x, rate=rate, train=True, rngs={"dropout": jax.random.key(0)})
        return trained - x, module.apply(made, x, rate=rate) - x

    dropped, whole = branches(made, jnp.float32(0.25))
    kept = np.any(dropped != 0, axis=(1, 2, 3))
    np.testing.assert_allclose(dropped[kept], whole[kept] / 0.75, rtol=1e-4, atol=1e-5)
    # Four deviations of a mean of 400 draws.
    assert abs(kept.mean() - 0.75) < 4 * math.sqrt(0.25 * 0.75 / 400)


@every_block
@pytest.mark.parametrize("expanded", [4, 8])
@pytest.mark.parametrize("options", [{"features": 6}, {"features": 4, "skip": False}])
def test_without_a_shortcut_no_branch_is_dropped(block, expanded, options):
    module = block(expanded=expanded, **options)
    x = images(1, 4, 4, 4)
    made = shapes(module, x)
    # No random stream is given: drawing from it would raise.
    jax.eval_shape(partial(module.apply, rate=0.5, train=True), made, x)


@every_block
def test_the_last_convolution_may_be_another(block):
    module = block(6, 8, last_conv=partial(nn.Conv, groups=2))
    made = shapes(module, images(1, 4, 4, 4))["params"]
    grouped = {name for name, part in made.items() if part["linear"]["kernel"].shape == (1, 1, 4, 6)}
    assert grouped == {"project"}


def test_training_reaches_the_norms_of_a_block():
    x = images(4, 4, 4, 4)
    module = nn.InvertedResidual(4, 8, norm=nn.BatchNorm)
    made = variables(module, x)
    _, moved = jax.jit(partial(module.apply, train=True, mutable=["batch_stats"]))(made, x)
    assert set(made["batch_stats"]) == {"expand", "depthwise", "project"}
    for layer, before in made["batch_stats"].items():
        assert np.all(before["norm"]["mean"] != moved["batch_stats"][layer]["norm"]["mean"])
