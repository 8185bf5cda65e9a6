"""Moments, normalization and the way onto the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.data import Split, load, normalize
from cnnjax.data.dataset import channel_moments


@pytest.mark.parametrize("count", [1, 255, 600])
def test_channel_moments_are_those_of_the_scaled_images(rng, count):
    images = rng.integers(0, 256, (count, 3, 2, 3), np.uint8)
    scaled = images.astype(np.float64) / 255
    mean, std = channel_moments(images)
    assert mean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, scaled.std(axis=(0, 1, 2)), rtol=1e-6)


def test_a_constant_channel_has_deviation_one():
    mean, std = channel_moments(np.full((5, 2, 2, 1), 51, np.uint8))
    np.testing.assert_allclose((mean[0], std[0]), (0.2, 1.0), rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 3, 2, 3), (3, 2, 3), (2, 2, 3, 2, 3)])
@pytest.mark.parametrize("dtype, rtol", [(jnp.float32, 1e-5), (jnp.bfloat16, 1e-2)])
def test_normalize(rng, shape, dtype, rtol):
    images = rng.integers(0, 256, shape, np.uint8)
    mean, std = np.float32([0.1, 0.5, 0.9]), np.float32([0.2, 0.3, 0.4])
    result = jax.jit(lambda x: normalize(x, mean, std, dtype=dtype))(images)
    assert result.dtype == dtype
    expected = (images.astype(np.float64) / 255 - mean) / std
    np.testing.assert_allclose(result.astype(jnp.float32), expected, rtol=rtol, atol=1e-6)


def test_normalized_training_images_have_mean_zero_and_deviation_one():
    data = load()
    images = np.asarray(normalize(data.on_device().train.images, data.mean, data.std), np.float64)
    np.testing.assert_allclose((images.mean(), images.std()), (0, 1), atol=1e-5)


def test_normalize_refuses_normalized_images():
    with pytest.raises(TypeError, match="takes uint8 images on the scale 0..255, got float32"):
        normalize(jnp.zeros((1, 2, 2, 1)), np.zeros(1, np.float32), np.ones(1, np.float32))


def test_normalize_refuses_moments_of_other_channels():
    images = jnp.zeros((1, 2, 2, 3), jnp.uint8)
    with pytest.raises(ValueError, match=r"need mean and std of shape \(3,\), got \(1,\) and \(3,\)"):
        normalize(images, np.zeros(1, np.float32), np.ones(3, np.float32))


def test_on_device_keeps_types_and_values():
    data = load()
    placed = data.on_device()
    assert (placed.name, placed.notes, placed.num_classes) == (data.name, data.notes, data.num_classes)
    for split in ("train", "validation", "test"):
        host, device = getattr(data, split), getattr(placed, split)
        assert isinstance(device.images, jax.Array) and isinstance(host.images, np.ndarray)
        assert device.images.dtype == jnp.uint8 and device.labels.dtype == jnp.int32
        np.testing.assert_array_equal(device.images, host.images)
        np.testing.assert_array_equal(device.labels, host.labels)


def test_on_device_with_a_sharding():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("run",))
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    assert len(load().on_device(sharding=replicated).test.images.devices()) == len(jax.devices())


def test_a_split_passes_through_jit():
    split = Split(np.zeros((5, 2, 2, 1), np.uint8), np.arange(5, dtype=np.int32))
    result = jax.jit(lambda split: Split(split.images, split.labels + 1))(split)
    assert len(result) == 5
    np.testing.assert_array_equal(result.labels, np.arange(1, 6))
