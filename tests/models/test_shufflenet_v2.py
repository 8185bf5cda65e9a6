import math

import jax
import numpy as np
import pytest

from cnnjax import functional as F
from cnnjax import models, nn
from cnnjax.commands.layers import rows
from cnnjax.models.shufflenet_v2 import Branch, ShuffleUnitV2

from ..drawn import images, shapes, variables
from .golden import GOLDEN
from .traced import inputs, output_shapes, parameters

SMALL = {"widths": (4, 8, 12), "depths": (1, 3, 1), "stem_width": 4, "last_width": 8, "num_classes": 5}


def test_sizes_are_those_of_table_5():
    found = output_shapes(models.create("shufflenet_v2_x1_0"), inputs("shufflenet_v2_x1_0"))
    assert [
        found[name] for name in ("stem", "pool", "stage2_down", "stage2", "stage3", "stage4", "conv5")
    ] == [
        (112, 112, 24),
        (56, 56, 24),
        (28, 28, 116),
        (28, 28, 116),
        (14, 14, 232),
        (7, 7, 464),
        (7, 7, 1024),
    ]


def test_half_of_the_channels_pass_a_unit():
    x = images(2, 5, 5, 8)
    unit = ShuffleUnitV2(8, norm=nn.GroupNorm)
    made = variables(unit, x)
    y, branch = jax.jit(
        lambda made: (
            unit.apply(made, x),
            Branch(4, norm=nn.GroupNorm).apply({"params": made["params"]["branch2"]}, x[..., 4:]),
        )
    )(made)
    np.testing.assert_array_equal(y[..., ::2], x[..., :4])
    np.testing.assert_allclose(y[..., 1::2], branch, rtol=1e-5, atol=1e-6)


def test_without_skips_units_of_stride_1_are_as_wide_as_their_stage():
    found = [parameters("shufflenet_v2_x1_0", skip=skip) for skip in (True, False)]
    different = {path for path in found[0] if found[0][path] != found[1][path]}
    assert set(found[0]) == set(found[1])
    assert {"/".join(path.split("/")[:3]) for path in different} == {
        f"stage{stage}/block/branch2" for stage in (2, 3, 4)
    }
    # Two 1x1 kernels, a depthwise one, and three norms: of the half of w channels against all of them.
    extra = sum(
        blocks * (2 * (w * w - (w // 2) ** 2) + (9 + 6) * (w - w // 2))
        for blocks, w in ((3, 116), (7, 232), (3, 464))
    )
    total = [sum(map(math.prod, leaves.values())) for leaves in found]
    assert total == [GOLDEN["shufflenet_v2_x1_0"].parameters, GOLDEN["shufflenet_v2_x1_0"].parameters + extra]


def test_scanned_and_written_out_agree():
    x = images(2, 8, 8, 3)
    model = models.create("shufflenet_v2_x1_0", **SMALL, stem="cifar")
    made = variables(model, x)
    scanned, unrolled = jax.jit(
        lambda made: (model.apply(made, x), model.clone(scan=False).apply(nn.unstack(made), x))
    )(made)
    np.testing.assert_allclose(unrolled, scanned, rtol=1e-4, atol=1e-5)


def test_the_stem_for_small_images_keeps_their_size():
    model = models.create("shufflenet_v2_x0_5", stem="cifar", depths=(1, 1, 1))
    found = output_shapes(model, jax.ShapeDtypeStruct((1, 32, 32, 3), "float32"))
    assert "pool" not in found
    assert found["stem"] == (32, 32, 24) and found["stage4_down"] == (4, 4, 192)


def test_the_receptive_field_is_followed_through_the_shuffles():
    found = {row.name: row for row in rows(models.create("shufflenet_v2_x1_0", **SMALL), (64, 64, 3))}
    # Stem, pooling, and the depthwise layer of each of 1, 3 and 1 units, the first of them with stride 2.
    layers = [(3, 2), (3, 2), (3, 2), (3, 2), (3, 1), (3, 1), (3, 2)]
    assert found["conv5"].fields[0][0].size == F.receptive_field(layers)[-1].size == 127


def test_units_of_volumes():
    model = models.create("shufflenet_v2_x1_0", **SMALL)
    assert shapes(model, images(1, 8, 8, 8, 1))["params"]["conv5"]["linear"]["kernel"].shape == (
        1,
        1,
        1,
        12,
        8,
    )


@pytest.mark.parametrize(
    "options, text",
    [
        ({"widths": (116, 231, 464)}, "widths must be even; got widths=\\(116, 231, 464\\)"),
        ({"depths": (4, 8)}, "has three stages: got .* depths=\\(4, 8\\)"),
        ({"stem": "cifra"}, "unknown stem 'cifra'; did you mean 'cifar'"),
    ],
)
def test_options_that_do_not_fit(options, text):
    with pytest.raises(ValueError, match=text):
        models.create("shufflenet_v2_x1_0", **options)
