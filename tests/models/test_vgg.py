import math

import jax
import pytest

from cnnjax import models

from .golden import GOLDEN
from .traced import inputs, output_shapes, parameters


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_the_name_counts_the_layers_with_weights(depth):
    found = parameters(f"vgg{depth}")
    assert sum(path.endswith("kernel") for path in found) == depth
    windows = {shape[:2] for path, shape in found.items() if path.startswith("conv") and "kernel" in path}
    assert windows == {(3, 3)}


def test_sizes_are_halved_by_each_stage():
    found = output_shapes(models.create("vgg16"), inputs("vgg16"))
    assert [found[f"pool{stage}"] for stage in range(1, 6)] == [
        (112, 112, 64),
        (56, 56, 128),
        (28, 28, 256),
        (14, 14, 512),
        (7, 7, 512),
    ]


def test_a_norm_reaches_the_convolutions_and_leaves_their_biases():
    plain, normed = parameters("vgg11"), parameters("vgg11_bn")
    assert set(plain) < set(normed)
    added = set(normed) - set(plain)
    convolutions = {path.split("/")[0] for path in plain if path.startswith("conv")}
    assert added == {f"{conv}/norm/{name}" for conv in convolutions for name in ("scale", "bias")}
    assert parameters("vgg11_bn", norm=None) == plain


def test_the_head_fits_images_of_any_size():
    model = models.create("vgg11")
    small = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), "float32"))
    assert small["params"]["fc6"]["linear"]["kernel"].shape == (7 * 7 * 512, 4096)
    with pytest.raises(ValueError, match="in layer pool5: .*window larger than the padded input"):
        jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 31, 31, 3), "float32"))


def test_the_head_for_cifar_is_one_layer():
    model = models.create("vgg16_bn", head="cifar", num_classes=10)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    assert output_shapes(model, x)["pool5"] == (1, 1, 512)
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    dense = 25_088 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
    expected = GOLDEN["vgg16_bn"].parameters - dense + 512 * 10 + 10
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == expected


def test_dropout_follows_the_two_dense_layers():
    found = output_shapes(models.create("vgg11"), inputs("vgg11"))
    assert found["fc6_dropout"] == found["fc7_dropout"] == (4096,)
    assert not any(
        "dropout" in part for part in output_shapes(models.create("vgg11", head="cifar"), inputs("vgg11"))
    )


@pytest.mark.parametrize(
    "options, text",
    [
        ({"head": "dense"}, "unknown head 'dense'. Known: cifar, imagenet"),
        ({"depths": ()}, r"depths must be a tuple of positive integers such as .*; got \(\)"),
        ({"depths": (1, 0)}, r"depths must be a tuple of positive integers such as .*; got \(1, 0\)"),
        ({"dropout": -0.1}, "dropout is a probability of dropping"),
    ],
)
def test_options_that_do_not_fit(options, text):
    with pytest.raises(ValueError, match=text):
        models.create("vgg16", **options)
