"""The networks of airbench against their code's definition, and the whitening against its own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models
from cnnjax.initializers import constant
from cnnjax.models.airbench import partial_identity, whitening

from ..drawn import images, shapes, variables
from .traced import output_shapes, parameters

KEY = jax.random.key(0)
TINY = {"widths": (4, 6), "num_classes": 5}


def correlated(*shape, seed=0):
    """Images whose neighboring pixels and channels resemble each other, with a mean."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=shape) + rng.normal(size=(*shape[:-1], 1))
    smooth = noise + np.roll(noise, 1, 1) + np.roll(noise, 1, 2) + 0.3
    return jnp.asarray(smooth / smooth.std(), jnp.float32)


def test_kernels_and_maps_are_those_of_the_code():
    found = {path: shape for path, shape in parameters("airbench94").items() if path.endswith("kernel")}
    assert found == {
        "whiten/linear/kernel": (2, 2, 3, 24),
        "group1/layer1/linear/kernel": (3, 3, 24, 64),
        "group1/layer2/linear/kernel": (3, 3, 64, 64),
        "group2/layer1/linear/kernel": (3, 3, 64, 256),
        "group2/layer2/linear/kernel": (3, 3, 256, 256),
        "group3/layer1/linear/kernel": (3, 3, 256, 256),
        "group3/layer2/linear/kernel": (3, 3, 256, 256),
        "head/linear/kernel": (256, 10),
    }
    biases = {path for path in parameters("airbench94") if path.endswith("linear/bias")}
    assert biases == {"whiten/linear/bias"}
    maps = output_shapes(models.create("airbench94"), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    assert [maps[part] for part in ("whiten", "group1", "group2", "group3")] == [
        (31, 31, 24),
        (15, 15, 64),
        (7, 7, 256),
        (3, 3, 256),
    ]


def test_the_number_of_filters_follows_from_the_channels():
    gray = shapes(models.create("airbench94", **TINY), jnp.zeros((1, 16, 16, 1)))["params"]
    assert gray["whiten"]["linear"]["kernel"].shape == (2, 2, 1, 8)


def test_the_logits_are_those_of_the_definition():
    model = models.create("airbench96", **TINY, norm=None, activation="relu")
    x = images(2, 16, 16, 3)
    made = variables(model, x)

    def conv(path, x, padding="SAME"):
        part = functools.reduce(lambda tree, name: tree[name], path.split("/"), made["params"])["linear"]
        dimensions = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, part["kernel"], (1, 1), padding, dimension_numbers=dimensions)
        return y + part["bias"].reshape(1, 1, 1, -1)

    def pool(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    @jax.jit
    def expected():
        h = jax.nn.relu(conv("whiten", x, "VALID"))
        for group in ("group1", "group2"):
            first = jax.nn.relu(pool(conv(f"{group}/layer1", h)))
            h = jax.nn.relu(conv(f"{group}/layer2", first))
            h = jax.nn.relu(conv(f"{group}/layer3", h) + first)
        return h.max((1, 2)) @ made["params"]["head"]["linear"]["kernel"] / 9

    np.testing.assert_allclose(jax.jit(model.apply)(made, x), expected(), rtol=1e-4, atol=1e-5)


def test_outputs_start_as_the_inputs_and_the_rest_is_drawn():
    start = partial_identity(constant(0.5), gain=2.0)
    x = images(2, 5, 5, 3)
    for outputs in (2, 3, 5):
        kernel = start(KEY, (3, 3, 3, outputs))
        y = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        copied = min(outputs, 3)
        np.testing.assert_allclose(y[..., :copied], 2 * x[..., :copied], rtol=1e-6)
        np.testing.assert_array_equal(kernel[..., copied:], 0.5)


def test_every_convolution_of_a_group_starts_as_the_identity_and_gain_reaches_it():
    def kernels(**options):
        made = models.create("airbench94", **TINY, **options).init(KEY, jnp.zeros((1, 16, 16, 3)))
        return {
            "/".join(k.key for k in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(made)
        }

    plain, scaled, drawn = jax.jit(lambda: [kernels(), kernels(gain=3.0), kernels(identity=False)])()
    for path, kernel in plain.items():
        if not path.endswith("kernel"):
            continue
        np.testing.assert_allclose(scaled[path], 3 * kernel, rtol=1e-6)
        if "group" in path:
            eye = np.eye(*kernel.shape[2:])[:, : kernel.shape[2]]
            np.testing.assert_array_equal(kernel[1, 1, :, : eye.shape[1]], eye)
            assert np.any(drawn[path][1, 1, :, : eye.shape[1]] != eye)
        # PyTorch's bound for uniform weights, 1 / sqrt(fan_in).
        assert np.abs(drawn[path]).max() <= 1 / np.sqrt(np.prod(kernel.shape[:-1]))
        assert np.abs(drawn[path]).max() > 0.8 / np.sqrt(np.prod(kernel.shape[:-1]))


def test_the_first_convolution_whitens_what_it_was_calibrated_by():
    model = models.create("airbench94", **TINY)
    x = correlated(64, 16, 16, 3)
    made = variables(model, x[:1])

    @jax.jit
    def run(made, x):
        fitted = model.calibrated(made, x)
        kernel = fitted["params"]["whiten"]["linear"]["kernel"]
        dimensions = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=dimensions)
        return fitted, y

    fitted, y = run(made, x)
    half = np.asarray(y[..., :12], np.float64).reshape(-1, 12)
    moments = half.T @ half / len(half)
    patches = np.lib.stride_tricks.sliding_window_view(np.asarray(x, np.float64), (2, 2), (1, 2)).reshape(
        -1, 12
    )
    values = np.linalg.eigvalsh(patches.T @ patches / len(patches))
    assert values[0] < 0.1 * values[-1]
    np.testing.assert_allclose(moments, np.diag(values / (values + 5e-4)), rtol=0, atol=2e-3)
    np.testing.assert_array_equal(y[..., 12:], -y[..., :12])
    # Nothing else has changed.
    for path, leaf in jax.tree_util.tree_leaves_with_path(fitted):
        names = [key.key for key in path]
        if names != ["params", "whiten", "linear", "kernel"]:
            np.testing.assert_array_equal(leaf, functools.reduce(lambda tree, name: tree[name], names, made))


def test_flat_images_blow_nothing_up():
    kernel = whitening(jnp.zeros((4, 8, 8, 1)))
    assert kernel.shape == (2, 2, 1, 8)
    np.testing.assert_allclose(np.abs(kernel).max(), 5e-4**-0.5, rtol=1e-3)


def test_other_models_are_calibrated_already():
    model = models.create("lenet5")
    made = {"params": {}}
    assert model.calibrated(made, jnp.zeros((1, 28, 28, 1))) is made


def test_bytes_and_single_pixels_are_refused():
    with pytest.raises(
        TypeError, match="whitening takes normalized images, got uint8: use cnnjax.data.normalize"
    ):
        whitening(jnp.zeros((2, 8, 8, 3), jnp.uint8))
    with pytest.raises(ValueError, match=r"of 2x2 pixels or more, got shape \(2, 1, 8, 3\)"):
        whitening(jnp.zeros((2, 1, 8, 3)))
    with pytest.raises(ValueError, match="head_scale is a factor and must be a positive number; got 0"):
        models.create("airbench94", head_scale=0.0)
