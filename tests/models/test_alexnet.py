import functools
import math

import jax
import numpy as np
import pytest

from cnnjax import initializers, models, nn

from ..drawn import images, variables
from .traced import inputs, output_shapes

SMALL = {"stem": "cifar", "widths": (4, 6, 8, 6, 6), "hidden": 64, "num_classes": 5}


def test_sizes_are_those_of_the_one_tower():
    found = output_shapes(models.create("alexnet"), inputs("alexnet"))
    assert found == {
        "conv1": (55, 55, 64),
        "pool1": (27, 27, 64),
        "conv2": (27, 27, 192),
        "pool2": (13, 13, 192),
        "conv3": (13, 13, 384),
        "conv4": (13, 13, 256),
        "conv5": (13, 13, 256),
        "pool5": (6, 6, 256),
        "fc6_dropout": (9216,),
        "fc6": (4096,),
        "fc7_dropout": (4096,),
        "fc7": (4096,),
        "head": (1000,),
    }


def test_the_head_fits_images_of_any_size():
    model = models.create("alexnet")

    def made(size):
        x = jax.ShapeDtypeStruct((1, size, size, 3), "float32")
        return jax.eval_shape(model.init, jax.random.key(0), x)

    # 63 is torchvision's least size.
    assert made(63) == made(224)
    with pytest.raises(ValueError, match="in layer pool5: .*window larger than the padded input"):
        made(62)


def test_the_cifar_stem_flattens_the_last_maps():
    found = output_shapes(
        models.create("alexnet", stem="cifar"), jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    )
    assert found["conv1"] == (32, 32, 64) and found["pool5"] == (3, 3, 256)
    assert found["fc6_dropout"] == (3 * 3 * 256,)


def test_kernels_start_with_a_deviation_of_a_hundredth():
    choice = models.options("alexnet")["initializer"]
    kernel = initializers.initializer(choice, gain=2.0)(jax.random.key(0), (3, 3, 64, 100))
    assert kernel.std() == pytest.approx(0.02, rel=0.02)


def test_half_of_the_inputs_of_two_dense_layers_are_dropped():
    model, x = models.create("alexnet", **SMALL), images(8, 16, 16, 3)
    made = variables(model, x)

    @functools.partial(jax.jit, static_argnums=0)
    def found(train):
        kept = model.apply(
            made,
            x,
            train=train,
            rngs={"dropout": jax.random.key(0)},
            capture_intermediates=lambda module, _: isinstance(module, nn.Dropout),
        )[1]["intermediates"]
        return [kept[name]["__call__"][0] for name in ("fc6_dropout", "fc7_dropout")]

    (whole, _), (first, second) = found(False), found(True)
    dropped = (first == 0)[whole != 0]
    # 8 * 6 and 8 * 64 inputs, of which ReLU leaves about half: four deviations of a fair coin.
    assert abs(dropped.mean() - 0.5) < 4 * 0.5 / math.sqrt(dropped.size)
    np.testing.assert_allclose(first[first != 0], 2 * whole[first != 0], rtol=1e-6)
    assert 0.5 < (second == 0).mean() < 1


@pytest.mark.parametrize(
    "options, text",
    [
        ({"stem": "cifr"}, "unknown stem 'cifr'; did you mean 'cifar'. Known: cifar, imagenet"),
        ({"widths": (4, 4)}, r"widths are those of five convolutions; got \(4, 4\)"),
        (
            {"widths": (4, 4, 0, 4, 4)},
            r"widths must be a tuple of positive integers such as \(64, 192, .*; got",
        ),
        ({"dropout": 1.0}, r"dropout is a probability of dropping and must lie in \[0, 1\); got 1.0"),
    ],
)
def test_options_that_do_not_fit(options, text):
    with pytest.raises(ValueError, match=text):
        models.create("alexnet", **options)


def test_a_rate_that_is_no_number():
    with pytest.raises(TypeError, match=r"dropout must be a number in \[0, 1\); got 'half'"):
        models.create("alexnet", dropout="half")
