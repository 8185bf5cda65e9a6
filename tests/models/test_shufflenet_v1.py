import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models, nn
from cnnjax.models.shufflenet_v1 import ShuffleUnit

from ..drawn import images, variables
from .golden import GOLDEN
from .traced import inputs, output_shapes, parameters


def test_sizes_are_those_of_table_1():
    found = output_shapes(models.create("shufflenet_v1_g3"), inputs("shufflenet_v1_g3"))
    names = ("stem", "pool", "stage2_down", "stage2", "stage3_down", "stage3", "stage4")
    assert [found[name] for name in names] == [
        (112, 112, 24),
        (56, 56, 24),
        (28, 28, 240),
        (28, 28, 240),
        (14, 14, 480),
        (14, 14, 480),
        (7, 7, 960),
    ]


def test_the_first_convolution_of_stage_2_is_not_divided():
    found = parameters("shufflenet_v1_g8")
    kernels = {path: shape for path, shape in found.items() if "down/reduce/linear/kernel" in path}
    assert kernels == {
        "stage2_down/reduce/linear/kernel": (1, 1, 24, 96),
        "stage3_down/reduce/linear/kernel": (1, 1, 384 // 8, 192),
        "stage4_down/reduce/linear/kernel": (1, 1, 768 // 8, 384),
    }


def test_a_unit_of_stride_2_sets_the_averages_beside_its_branch():
    x = images(2, 6, 6, 4)
    unit = ShuffleUnit(16, 2, 2, stride=2)
    made = variables(unit, x)
    y = np.asarray(jax.jit(unit.apply)(made, x))
    padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    for i in range(3):
        for j in range(3):
            window = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            np.testing.assert_allclose(y[:, i, j, :4], window.mean((1, 2)), rtol=1e-4, atol=1e-6)
    assert y[..., 4:].min() == 0 < y[..., 4:].max()


def test_a_unit_sees_all_channels_only_by_the_shuffle():
    # The first of four groups is 0 but for one channel: without the shuffle its outputs alone could change.
    x = images(1, 3, 3, 16)
    unit = ShuffleUnit(16, 2, 2, skip=False, act=partial(nn.Activation, "identity"))
    made = variables(unit, x)
    jacobian = jax.jit(
        jax.jacrev(lambda channels: unit.apply(made, x + channels.reshape(1, 1, 1, -1))[0, 1, 1])
    )
    assert np.all(np.asarray(jacobian(jnp.zeros(16))) != 0)


def test_without_skips_only_the_last_layers_at_stride_2_grow():
    found = [parameters("shufflenet_v1_g3", skip=skip) for skip in (True, False)]
    different = {path for path in found[0] if found[0][path] != found[1][path]}
    assert set(found[0]) == set(found[1])
    assert {path.split("/")[1] for path in different} == {"expand"}
    assert {path.split("/")[0] for path in different} == {"stage2_down", "stage3_down", "stage4_down"}
    # Each of the channels that passed is computed: width / 4 / 3 weights, a scale and a bias.
    extra = 24 * (20 + 2) + 240 * (40 + 2) + 480 * (80 + 2)
    total = [sum(map(math.prod, parameters.values())) for parameters in found]
    assert total == [GOLDEN["shufflenet_v1_g3"].parameters, GOLDEN["shufflenet_v1_g3"].parameters + extra]


def test_units_in_a_scan_are_those_written_out():
    x = images(2, 4, 4, 8)
    stack = nn.Stack(partial(ShuffleUnit, 8, 2, 2), 2)
    made = variables(stack, x)
    scanned, unrolled = jax.jit(
        lambda made: (
            stack.apply(made, x),
            stack.clone(scan=False).apply({"params": nn.unstack(made["params"])}, x),
        )
    )(made)
    np.testing.assert_allclose(unrolled, scanned, rtol=1e-4, atol=1e-5)


def test_the_stem_for_small_images_keeps_their_size():
    model = models.create("shufflenet_v1_g3", stem="cifar", depths=(1, 1, 1))
    found = output_shapes(model, jax.ShapeDtypeStruct((1, 32, 32, 3), "float32"))
    assert "pool" not in found
    assert found["stem"] == (32, 32, 24) and found["stage4_down"] == (4, 4, 960)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"groups": 5}, "with groups=5 each of widths must be a multiple of 20 and stem_width one of 5; got"),
        ({"stem_width": 25}, "stem_width one of 3; got .*, stem_width=25"),
        ({"widths": (240, 240, 480)}, "each stage must be wider than what comes before"),
        ({"widths": (240, 480)}, "has three stages: got widths=\\(240, 480\\)"),
        ({"stem": "cifra"}, "unknown stem 'cifra'; did you mean 'cifar'"),
    ],
)
def test_options_that_do_not_fit(options, text):
    with pytest.raises(ValueError, match=text):
        models.create("shufflenet_v1_g3", **options)
