import math

from cnnjax import models

from ..drawn import images, shapes
from .golden import GOLDEN
from .traced import inputs, output_shapes, parameters


def test_sizes_are_those_of_table_1():
    found = output_shapes(models.create("mobilenet_v1"), inputs("mobilenet_v1"))
    names = ("stem", "stage1_first", "stage2_first", "stage2", "stage3", "stage4", "stage5")
    assert [found[name] for name in names] == [
        (112, 112, 32),
        (112, 112, 64),
        (56, 56, 128),
        (56, 56, 128),
        (28, 28, 256),
        (14, 14, 512),
        (7, 7, 1024),
    ]


def test_the_width_multiplier_is_on_every_layer():
    whole, thin = parameters("mobilenet_v1"), parameters("mobilenet_v1_x0_25")
    assert set(whole) == set(thin)
    for path, shape in thin.items():
        # The three colors, windows, stacked blocks and classes are what they are.
        assert list(shape) == [n if n in (1, 3, 5, 1000) else n // 4 for n in whole[path]], path


def test_the_five_identical_blocks_are_one_stack():
    found = parameters("mobilenet_v1")
    assert found["stage4/block/depthwise/linear/kernel"] == (5, 3, 3, 1, 512)
    assert found["stage4/block/pointwise/linear/kernel"] == (5, 1, 1, 512, 512)
    # 13 blocks of two layers, the stem, and the head (section 3.1: 28 layers).
    layers = sum(s[0] if "/block/" in path else 1 for path, s in found.items() if path.endswith("kernel"))
    assert layers == 28


def test_without_norms_biases_are_there():
    found, twin = (parameters("mobilenet_v1", **options) for options in ({}, {"norm": None}))
    biases = {path.replace("norm/scale", "linear/bias") for path in found if path.endswith("norm/scale")}
    assert twin.keys() - found.keys() == biases
    # A scale and a shift less, and a bias more, for each channel; Keras has 21,888 means and variances.
    assert GOLDEN["mobilenet_v1"].parameters - sum(map(math.prod, twin.values())) == 21_888 // 2


def test_separable_blocks_of_volumes():
    model = models.create("mobilenet_v1", stages=((16, 2, 1),))
    made = shapes(model, images(1, 4, 4, 4, 1))["params"]["stage1"]["block"]
    assert made["depthwise"]["linear"]["kernel"].shape == (1, 3, 3, 3, 1, 16)
