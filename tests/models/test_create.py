"""What `create` makes, what it refuses, and what it says then."""

import flax.linen as linen
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models

from ..drawn import shapes
from .small import IMAGES, layers, leaves, small


@pytest.mark.parametrize(
    "name, options, text",
    [
        (
            "lenet",
            {},
            "unknown model 'lenet'; did you mean 'lenet5'",
        ),
        (
            "plain",
            {"dept": 3},
            "unknown option of plain 'dept'; did you mean 'depth'. Known: activation, bias_std",
        ),
        ("lenet5", {"depth": 3}, "unknown option of lenet5 'depth'"),
        ("plain", {"name": "x"}, "unknown option of plain 'name'"),
        ("plain", {"activation": "rleu"}, "unknown activation 'rleu'; did you mean 'relu'"),
        ("lenet5", {"initializer": "xavier"}, "unknown initializer 'xavier'; did you mean 'xavier_"),
        (
            "mlp",
            {"norm": "bach"},
            "unknown norm 'bach'; did you mean 'batch'. Known: batch, channel, group, instance, layer",
        ),
        ("plain", {"depth": -3}, "depth counts the layers with weights and must be an integer >= 2; got -3"),
        ("mlp", {"depth": 1}, "must be an integer >= 2; got 1"),
        ("mlp", {"depth": 3.0}, "must be an integer >= 2; got 3.0"),
        ("cifar_resnet", {"depth": 21}, r"depth 6n \+ 2 with n >= 1 \(8, 14, 20, 26, 32, ...\); got 21"),
        ("cifar_preact_resnet", {"depth": 2}, r"depth 6n \+ 2 with n >= 1 .*; got 2"),
        ("plain", {"width": 0}, "width must be a positive integer; got 0"),
        ("cifar_resnet", {"width": -4}, "width must be a positive integer; got -4"),
        ("mlp", {"width": 2.5}, "width must be a positive integer; got 2.5"),
        ("mlp", {"depth": True}, "must be an integer >= 2; got True"),
        ("plain", {"width": True}, "width must be a positive integer; got True"),
        ("plain", {"window": 0}, "window must be a positive integer; got 0"),
        ("plain", {"padding": "REFLECT"}, "unknown padding 'REFLECT': use 'VALID', 'SAME'"),
        ("lenet5", {"padding": -1}, "padding must not be negative, got -1"),
        ("keras_cifar_cnn", {"padding": "RELFECT"}, "unknown padding 'RELFECT'"),
        ("lenet5", {"num_classes": 2.5}, "num_classes must be a positive integer; got 2.5"),
        (
            "cifar_resnet",
            {"branch_scale": "skipint"},
            "unknown branch_scale 'skipint'; did you mean 'skipinit'",
        ),
        (
            "cifar_resnet",
            {"branch_scale": "fixup", "skip": False},
            "branch_scale='fixup' is for residual branches",
        ),
        ("lenet5", {"num_classes": 0}, "num_classes must be a positive integer; got 0"),
    ],
)
def test_errors_of_create(name, options, text):
    with pytest.raises(ValueError, match=text):
        models.create(name, **options)


@pytest.mark.parametrize(
    "name, options, text",
    [
        ("plain", {"padding": 2.5}, "padding must be 'VALID', 'SAME'.*, got 2.5"),
        ("plain", {"norm": 3}, "the name of the norm must be a string, got 3"),
        ("cifar_resnet", {"norm": False}, "the name of the norm must be a string, got False"),
        ("mlp", {"initializer": 3}, "the name of the initializer must be a string, got 3"),
        ("mlp", {"activation": None}, "the name of the activation must be a string, got None"),
        ("plain", {"dtype": "bfloat17"}, "dtype must be a floating-point type .*; got 'bfloat17'"),
        ("plain", {"dtype": jnp.int32}, "dtype must be a floating-point type .*; got .*int32"),
        ("plain", {"skip": "no"}, "skip must be True or False; got 'no'"),
        ("cifar_resnet", {"scan": 1}, "scan must be True or False; got 1"),
        ("mlp", {"remat": None}, "remat must be True or False; got None"),
    ],
)
def test_type_errors_of_create(name, options, text):
    with pytest.raises(TypeError, match=text):
        models.create(name, **options)


def test_options_from_numpy():
    options = {"width": np.int32(4), "num_classes": np.int64(5), "skip": np.True_}
    expected = shapes(small("cifar_resnet", depth=14), IMAGES)
    assert shapes(small("cifar_resnet", depth=np.int64(14), **options), IMAGES) == expected
    made = shapes(small("plain", depth=np.int64(5), dtype="bfloat16", **options), IMAGES)
    assert layers(leaves(made, "kernel")) == 5


@pytest.mark.parametrize("padding", ["same", 1, ((2, 0), (1, 1))])
def test_every_form_of_padding(padding):
    shapes(small("plain", padding=padding), IMAGES)


@pytest.mark.parametrize("name", ["plain", "cifar_resnet"])
def test_delta_orthogonal_kernels_need_as_many_outputs_as_inputs(name):
    model = small(name, width=2, initializer="delta_orthogonal")
    with pytest.raises(ValueError, match="at least as many outputs as inputs, got 3 inputs and 2 outputs"):
        shapes(model, IMAGES)
    # A dense kernel has no center: there it is the orthogonal one, whatever the sizes.
    shapes(small("plain", width=4, initializer="delta_orthogonal"), IMAGES)
    shapes(small("mlp", width=2, initializer="delta_orthogonal"), IMAGES)


def test_images_that_are_too_small():
    for name in ("keras_cifar_cnn", "lenet5"):
        with pytest.raises(ValueError, match="(kernel|window) larger than the padded input"):
            shapes(models.create(name), IMAGES)


def test_a_model_made_by_hand_is_checked_too():
    with pytest.raises(ValueError, match="must be an integer >= 2; got 0"):
        shapes(models.VARIANTS["plain"].family(depth=0), IMAGES)


def test_options_are_listed_with_their_defaults():
    assert models.options("cifar_resnet")["depth"] == 20
    assert models.options("lenet5")["activation"] == "tanh"
    assert not {"name", "parent"} & set(models.options("plain"))
    assert isinstance(models.create("plain"), linen.Module)
