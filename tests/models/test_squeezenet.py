import functools

import jax
import numpy as np
import pytest

from cnnjax import models, nn
from cnnjax.models.squeezenet import Fire

from ..drawn import images, variables
from .traced import inputs, output_shapes, parameters


def test_sizes_and_channels_of_both():
    found = [output_shapes(models.create(f"squeezenet1_{i}"), inputs(f"squeezenet1_{i}")) for i in (0, 1)]
    # Windows that reach over the end count: 109 -> 54 -> 27 -> 13, and 111 -> 55 -> 27 -> 13.
    assert [found[0][name] for name in ("conv1", "pool1", "fire4", "pool4", "pool8", "fire9", "head")] == [
        (109, 109, 96),
        (54, 54, 96),
        (54, 54, 256),
        (27, 27, 256),
        (13, 13, 512),
        (13, 13, 512),
        (13, 13, 1000),
    ]
    assert [found[1][name] for name in ("conv1", "pool1", "pool3", "pool5", "fire9")] == [
        (111, 111, 64),
        (55, 55, 64),
        (27, 27, 128),
        (13, 13, 256),
        (13, 13, 512),
    ]


def test_a_fire_module_squeezes_and_expands():
    def layer(features, window, *, name):
        return nn.Layer(functools.partial(nn.Conv, features, window), name=name)

    module, x = Fire(3, layer), images(2, 4, 4, 5)
    made = variables(module, x)
    y = np.asarray(jax.jit(module.apply)(made, x))
    assert y.shape == (2, 4, 4, 24)

    def relu_dense(x, name):
        linear = jax.tree.map(np.asarray, made["params"][name]["linear"])
        return np.maximum(x @ linear["kernel"][0, 0] + linear["bias"], 0)

    squeezed = relu_dense(np.asarray(x), "squeeze")
    np.testing.assert_allclose(y[..., :12], relu_dense(squeezed, "expand1x1"), rtol=1e-4, atol=1e-5)
    kernel = np.asarray(made["params"]["expand3x3"]["linear"]["kernel"])
    center = np.einsum("bhwi,hwio->bo", squeezed[:, 1:4, 1:4], kernel)
    bias = np.asarray(made["params"]["expand3x3"]["linear"]["bias"])
    np.testing.assert_allclose(y[:, 2, 2, 12:], np.maximum(center + bias, 0), rtol=1e-4, atol=1e-5)


def test_logits_are_averages_of_activations():
    options = {"stem": "cifar", "width": 4, "squeezes": (2, 2), "pooled": (2,), "num_classes": 5}
    model, x = models.create("squeezenet1_1", **options), images(3, 8, 8, 3)
    made = variables(model, x)

    @jax.jit
    def run(made):
        logits, state = model.apply(made, x, capture_intermediates=lambda module, _: module.name == "head")
        return logits, state["intermediates"]["head"]["__call__"][0]

    logits, maps = run(made)
    assert maps.shape == (3, 4, 4, 5) and maps.min() == 0
    np.testing.assert_allclose(logits, maps.mean((1, 2)), rtol=1e-5)


def test_a_norm_reaches_every_layer_but_the_last():
    normed = parameters("squeezenet1_1", norm="batch")
    kernels = [path.removesuffix("/linear/kernel") for path in normed if path.endswith("kernel")]
    assert {path.removesuffix("/norm/scale") for path in normed if path.endswith("scale")} == set(kernels) - {
        "head"
    }
    assert [path for path in normed if path.endswith("linear/bias")] == ["head/linear/bias"]


def test_the_cifar_stem_keeps_the_size():
    model = models.create("squeezenet1_0", stem="cifar")
    found = output_shapes(model, jax.ShapeDtypeStruct((1, 32, 32, 3), "float32"))
    assert found["conv1"] == (32, 32, 96) and found["head"] == (8, 8, 1000) and "pool1" not in found


def test_images_that_are_too_small():
    x = jax.ShapeDtypeStruct((1, 12, 12, 3), "float32")
    with pytest.raises(ValueError, match="in layer pool4: .*window larger than the padded input"):
        jax.eval_shape(models.create("squeezenet1_0").init, jax.random.key(0), x)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"stem": "tiny"}, "unknown stem 'tiny'. Known: cifar, imagenet"),
        ({"squeezes": (16, 0)}, "squeezes must be a tuple of positive integers"),
        ({"dropout": 2}, "dropout is a probability of dropping"),
    ],
)
def test_options_that_do_not_fit(options, text):
    with pytest.raises(ValueError, match=text):
        models.create("squeezenet1_0", **options)
