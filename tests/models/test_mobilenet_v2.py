import math

import jax
import pytest

from cnnjax import models
from cnnjax.commands.layers import rows
from cnnjax.probes import probe_points

from ..drawn import images, shapes
from .golden import GOLDEN
from .traced import inputs, output_shapes, parameters

SMALL = {"stages": ((1, 8, 1, 1), (2, 16, 3, 2)), "stem": "cifar", "width_multiplier": 0.5}


def test_sizes_are_those_of_table_2():
    found = output_shapes(models.create("mobilenet_v2"), inputs("mobilenet_v2"))
    assert [found[name] for name in ("stem", *(f"stage{i}" for i in range(1, 8)), "last")] == [
        (112, 112, 32),
        (112, 112, 16),
        (56, 56, 24),
        (28, 28, 32),
        (14, 14, 64),
        (14, 14, 96),
        (7, 7, 160),
        (7, 7, 320),
        (7, 7, 1280),
    ]


def test_the_first_blocks_of_stages_stand_apart():
    found = parameters("mobilenet_v2")
    assert found["stage1_first/depthwise/linear/kernel"] == (3, 3, 1, 32)
    assert "stage1_first/expand/linear/kernel" not in found
    assert found["stage4_first/expand/linear/kernel"] == (1, 1, 32, 192)
    assert found["stage4/block/expand/linear/kernel"] == (3, 1, 1, 64, 384)
    assert found["stage4/block/project/linear/kernel"] == (3, 1, 1, 384, 64)


@pytest.mark.slow
def test_a_wider_one():
    table = rows(models.create("mobilenet_v2", width_multiplier=1.4), (224, 224, 3))
    ends = [row for row in table if row.name in ("stem", "last") or row.name.endswith("_first/project")]
    # 1.4 times 32, 16, 24, 32, 64, 96, 160, 320 and 1280, to multiples of 8.
    assert [row.output[-1] for row in ends] == [48, 24, 32, 48, 88, 136, 224, 448, 1792]
    # Table 4: 585 million multiply-adds.
    assert sum(row.flops for row in table) / 2e6 == pytest.approx(585, rel=0.01)


def test_a_thinner_one_keeps_its_last_convolution():
    found = parameters("mobilenet_v2", width_multiplier=0.35, stages=((1, 320, 1, 1),))
    assert found["last/linear/kernel"] == (1, 1, 112, 1280)


def test_blocks_end_without_activation():
    model = models.create("mobilenet_v2", **SMALL, activation="tanh")
    x = images(1, 8, 8, 3)
    points = {"/".join(p.path): p.activation for p in probe_points(model, shapes(model, x), x)}
    linear = {path for path, activation in points.items() if activation == "identity"}
    assert linear == {
        "stage1_first/project/act",
        "stage2_first/project/act",
        "stage2/block/project/act",
        "head/act",
    }
    assert set(points.values()) == {"identity", "tanh"}


def test_the_twin_without_shortcuts_has_the_same_parameters():
    model, x = models.create("mobilenet_v2", **SMALL), images(1, 8, 8, 3)
    twin, made = model.clone(skip=False), shapes(model, x)
    assert shapes(twin, x) == made
    additions = [str(jax.make_jaxpr(each.apply)(made, x)).count("= add") for each in (model, twin)]
    # Of stage 2, in the body of the scan.
    assert additions[0] - additions[1] == 1


def test_without_norms_biases_are_there():
    found, twin = (parameters("mobilenet_v2", **options) for options in ({}, {"norm": None}))
    biases = {path.replace("norm/scale", "linear/bias") for path in found if path.endswith("norm/scale")}
    assert twin.keys() - found.keys() == biases
    # Keras counts 34,112 means and variances.
    assert GOLDEN["mobilenet_v2"].parameters - sum(map(math.prod, twin.values())) == 34_112 // 2
