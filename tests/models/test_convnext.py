import math
from functools import partial

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from cnnjax import models, nn
from cnnjax.models.convnext import ConvNeXtBlock, LayerScale

from ..drawn import images, shapes, variables
from .golden import GOLDEN
from .traced import inputs, output_shapes, parameters

SMALL = {"depths": (1, 3), "widths": (4, 6), "num_classes": 5}


def test_sizes_are_those_of_table_9():
    found = output_shapes(models.create("convnext_tiny"), inputs("convnext_tiny"))
    stages = ("stem", "stage1", "stage2_down", "stage2", "stage3", "stage4", "final_norm")
    assert [found[name] for name in stages] == [
        (56, 56, 96),
        (56, 56, 96),
        (28, 28, 192),
        (28, 28, 192),
        (14, 14, 384),
        (7, 7, 768),
        (768,),
    ]


def test_a_block_is_that_of_figure_4():
    x = images(2, 5, 6, 3)
    block = ConvNeXtBlock(3, layer_scale=1e-6, norm=nn.ChannelNorm, act=partial(nn.Activation, "gelu"))
    made = variables(block, x)
    p = jax.tree.map(partial(np.asarray, dtype=np.float64), made["params"])
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (3, 3), (3, 3), (0, 0)))
    kernel = p["depthwise"]["linear"]["kernel"]
    h = sum(padded[:, i : i + 5, j : j + 6] * kernel[i, j, 0] for i in range(7) for j in range(7))
    h = h + p["depthwise"]["linear"]["bias"]
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-6)
    h = h * p["depthwise"]["norm"]["scale"] + p["depthwise"]["norm"]["bias"]
    h = h @ p["expand"]["linear"]["kernel"] + p["expand"]["linear"]["bias"]
    h = h * (1 + erf(h / math.sqrt(2))) / 2
    h = h @ p["project"]["linear"]["kernel"] + p["project"]["linear"]["bias"]
    expected = x + p["layer_scale"]["factor"] * h
    np.testing.assert_allclose(jax.jit(block.apply)(made, x), expected, rtol=1e-4, atol=1e-5)


def test_a_branch_is_dropped_for_whole_images_and_its_mean_stays():
    x = images(400, 2, 2, 3)
    block = ConvNeXtBlock(3, layer_scale=1.0)
    made = variables(block, x)

    @jax.jit
    def branches(made, rate):
        trained = block.apply(made, x, rate=rate, train=True, rngs={"dropout": jax.random.key(0)})
        return trained - x, block.apply(made, x) - x

    dropped, whole = branches(made, jnp.float32(0.25))
    kept = np.any(dropped != 0, axis=(1, 2, 3))
    np.testing.assert_allclose(dropped[kept], whole[kept] / 0.75, rtol=1e-4, atol=1e-5)
    # Four deviations of a mean of 400 draws.
    assert abs(kept.mean() - 0.75) < 4 * math.sqrt(0.25 * 0.75 / 400)


@pytest.mark.parametrize("train, expected", [(True, [0.0, 0.1, 0.2, 0.3]), (False, [None] * 4)])
def test_the_rates_grow_linearly(train, expected):
    model = models.create("convnext_tiny", **SMALL, drop_path=0.3, scan=False)
    made, found = shapes(model, images(1, 8, 8, 3)), []

    def note(next_function, args, kwargs, context):
        if isinstance(context.module, ConvNeXtBlock) and context.method_name == "__call__":
            found.append(kwargs.get("rate"))
        return next_function(*args, **kwargs)

    with linen.intercept_methods(note):
        jax.eval_shape(
            lambda made: model.apply(
                made, images(1, 8, 8, 3), train=train, rngs={"dropout": jax.random.key(0)}
            ),
            made,
        )
    assert found == pytest.approx(expected) if train else found == expected


def test_scanned_and_written_out_agree():
    x = images(2, 8, 8, 3)
    model = models.create("convnext_tiny", depths=(2,), widths=(4,))
    made = variables(model, x)
    scanned, unrolled = jax.jit(
        lambda made: (model.apply(made, x), model.clone(scan=False).apply(nn.unstack(made), x))
    )(made)
    np.testing.assert_allclose(unrolled, scanned, rtol=1e-4, atol=1e-5)


def test_kernels_start_with_deviation_002_and_factors_at_1e_6():
    options = models.options("convnext_tiny")
    kernel = options["initializer"](jax.random.key(0), (100, 200))
    assert abs(np.std(kernel) / 0.02 - 1) < 4 / math.sqrt(2 * kernel.size)
    factor = LayerScale(options["layer_scale"]).init(jax.random.key(0), jnp.zeros((1, 2, 3)))["params"][
        "factor"
    ]
    np.testing.assert_array_equal(factor, np.full(3, 1e-6, np.float32))


@pytest.mark.parametrize("options", [{"skip": False}, {"layer_scale": None}])
def test_without_skips_the_factors_alone_are_gone(options):
    found, twin = parameters("convnext_tiny"), parameters("convnext_tiny", **options)
    gone = {path for path in found if "layer_scale" in path}
    assert twin == {path: shape for path, shape in found.items() if path not in gone}
    assert sum(math.prod(found[path]) for path in gone) == 3 * 96 + 3 * 192 + 9 * 384 + 3 * 768


def test_without_a_norm_the_norms_alone_are_gone():
    found, twin = parameters("convnext_tiny"), parameters("convnext_tiny", norm=None)
    assert twin == {path: shape for path, shape in found.items() if "norm" not in path}
    # Scales and biases behind the stem, in every block, in front of each downsampling, and before the head.
    norms = 2 * (96 + (3 * 96 + 3 * 192 + 9 * 384 + 3 * 768) + (96 + 192 + 384) + 768)
    assert sum(map(math.prod, twin.values())) == GOLDEN["convnext_tiny"].parameters - norms


def test_the_stem_for_small_images_keeps_their_size():
    model = models.create("convnext_tiny", stem="cifar", depths=(1, 1, 1, 1))
    found = output_shapes(model, jax.ShapeDtypeStruct((1, 32, 32, 3), "float32"))
    assert found["stem"] == (32, 32, 96) and found["stage4"] == (4, 4, 768)


@pytest.mark.parametrize(
    "options, error, text",
    [
        (
            {"depths": (3, 3)},
            ValueError,
            "an entry a stage; got depths=\\(3, 3\\) and widths=\\(96, 192, 384, 768\\)",
        ),
        ({"drop_path": 1.0}, ValueError, "drop_path .* must lie in \\[0, 1\\); got 1.0"),
        ({"stem": "cifra"}, ValueError, "unknown stem 'cifra'; did you mean 'cifar'"),
        (
            {"layer_scale": "1e-6"},
            TypeError,
            "layer_scale must be a number, or None for no factors; got '1e-6'",
        ),
    ],
)
def test_options_that_do_not_fit(options, error, text):
    with pytest.raises(error, match=text):
        models.create("convnext_tiny", **options)
