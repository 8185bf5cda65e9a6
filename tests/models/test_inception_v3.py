import math

import jax
import jax.numpy as jnp
import pytest

from cnnjax import models

from .golden import GOLDEN
from .traced import inputs, output_shapes, parameters

LETTERS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")


def test_sizes_are_those_of_the_paper():
    # Table 1, with the channels of torchvision's modules, which are TensorFlow's.
    found = output_shapes(models.create("inception_v3"), inputs("inception_v3"))
    stem = ("conv_1a", "conv_2a", "conv_2b", "pool1", "conv_3b", "conv_4a", "pool2")
    assert [found[name] for name in stem] == [
        (149, 149, 32),
        (147, 147, 32),
        (147, 147, 64),
        (73, 73, 64),
        (73, 73, 80),
        (71, 71, 192),
        (35, 35, 192),
    ]
    channels = [256, 288, 288, 768, 768, 768, 768, 768, 1280, 2048, 2048]
    sizes = [35] * 3 + [17] * 5 + [8] * 3
    modules = [found[f"mixed_{name}"] for name in LETTERS]
    assert modules == [(s, s, c) for s, c in zip(sizes, channels, strict=True)]


def test_parameters_of_the_auxiliary_head():
    found = parameters("inception_v3")
    # A 1x1 and a 5x5 layer with their norms, and a dense layer with its bias.
    expected = 768 * 128 + 2 * 128 + 25 * 128 * 768 + 2 * 768 + (768 + 1) * 1000
    assert sum(math.prod(shape) for path, shape in found.items() if path.startswith("aux/")) == expected
    assert sum(map(math.prod, found.values())) == GOLDEN["inception_v3"].parameters


def test_windows_of_a_module():
    found = parameters("inception_v3")
    kernels = {
        path.split("/")[1]: shape
        for path, shape in found.items()
        if path.startswith("mixed_7b") and path.endswith("kernel")
    }
    assert kernels == {
        "branch1x1": (1, 1, 1280, 320),
        "branch3x3_1": (1, 1, 1280, 384),
        "branch3x3_2a": (1, 3, 384, 384),
        "branch3x3_2b": (3, 1, 384, 384),
        "branch3x3dbl_1": (1, 1, 1280, 448),
        "branch3x3dbl_2": (3, 3, 448, 384),
        "branch3x3dbl_3a": (1, 3, 384, 384),
        "branch3x3dbl_3b": (3, 1, 384, 384),
        "branch_pool": (1, 1, 1280, 192),
    }


FEWER = {"width": 16, "depths": (1, 2, 2), "aux": False}


def test_width_depths_and_no_auxiliary_head():
    full, part = parameters("inception_v3"), parameters("inception_v3", **FEWER)
    left = {"mixed_5b", "mixed_6a", "mixed_6b", "mixed_7a", "mixed_7b", "head"}
    assert {path.split("/")[0] for path in part if not path.startswith("conv")} == left
    for path, shape in part.items():
        assert shape[-1] == (1000 if path.startswith("head") else full[path][-1] // 2)


def test_the_twin_without_norms_has_biases():
    normed, plain = parameters("inception_v3", **FEWER), parameters("inception_v3", norm=None, **FEWER)
    kernels = {path for path in normed if path.endswith("kernel")}
    assert set(plain) == kernels | {path.replace("kernel", "bias") for path in kernels}
    assert sum(path.endswith("norm/scale") for path in normed) == len(kernels) - 1


@pytest.mark.parametrize("size", [8, 32])
def test_the_cifar_stem_keeps_the_size(size):
    model = models.create("inception_v3", stem="cifar", width=4, depths=(1, 2, 1))
    found = output_shapes(model, jax.ShapeDtypeStruct((1, size, size, 3), "float32"))
    assert found["conv_4a"] == (size, size, 24)
    after = (size - 3) // 2 + 1
    assert found["mixed_6b"] == (after, after, 96)
    assert found["aux"] == (1000,)


def test_the_auxiliary_head_is_for_training():
    model = models.create("inception_v3", stem="cifar", depths=(1, 1, 1), num_classes=3)
    x = jax.ShapeDtypeStruct((2, 16, 16, 3), "float32")
    made = jax.eval_shape(model.init, jax.random.key(0), x)

    def run(made, x):
        rngs = {"dropout": jax.random.key(0)}
        return model.apply(made, x, train=True, rngs=rngs, method="with_auxiliary", mutable=["batch_stats"])

    (logits, (auxiliary,)), state = jax.eval_shape(run, made, x)
    assert logits.shape == auxiliary.shape == (2, 3) and logits.dtype == auxiliary.dtype == jnp.float32
    assert state["batch_stats"] == made["batch_stats"]
    without = {key: {k: v for k, v in tree.items() if k != "aux"} for key, tree in made.items()}
    assert jax.eval_shape(model.apply, without, x).shape == (2, 3)
    with pytest.raises(ValueError, match="no auxiliary head: make it with aux=True"):
        jax.eval_shape(
            lambda made, x: model.clone(aux=False).apply(made, x, method="with_auxiliary"), made, x
        )


def test_images_that_are_too_small():
    def made(size, **options):
        x = jax.ShapeDtypeStruct((1, size, size, 3), "float32")
        return jax.eval_shape(
            models.create("inception_v3", depths=(1, 1, 1), **options).init, jax.random.key(0), x
        )

    with pytest.raises(ValueError, match="in layer aux/conv1/linear: .*kernel larger than the padded input"):
        made(298)
    # torchvision's least size.
    made(75, aux=False)
    with pytest.raises(ValueError, match="in layer mixed_7a/.*: .* larger than the padded input"):
        made(74, aux=False)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"stem": "imagnet"}, "unknown stem 'imagnet'; did you mean 'imagenet'"),
        (
            {"depths": (3, 5, 4)},
            r"depths are the modules of stages 5, 6 and 7, at most 3, 5 and 3; got \(3, 5, 4\)",
        ),
        ({"width": 0}, "width must be a positive integer; got 0"),
    ],
)
def test_options_that_do_not_fit(options, text):
    with pytest.raises(ValueError, match=text):
        models.create("inception_v3", **options)
