"""Averaged predictions against NumPy: slices, softmax and sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models
from cnnjax.training.views import VIEWS, averaged, sigmoid_mean

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 5, 3)), jnp.float32)
WEIGHT = jnp.asarray(np.random.default_rng(1).normal(size=(6, 5, 3, 7)), jnp.float32)


def see(images):
    """Logits that depend on every pixel and its place, of images of any size up to WEIGHT's."""
    height, width = images.shape[1:3]
    return jnp.einsum("bhwc,hwck->bk", jnp.sin(images), WEIGHT[:height, :width], precision="highest")


def softmax(logits):
    powers = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    return powers / np.sum(powers, axis=-1, keepdims=True)


def mirrored(images):
    return np.asarray(images)[:, :, ::-1]


def logits_of(images):
    return np.asarray(see(jnp.asarray(images)), np.float64)


def test_no_views_leave_the_logits_as_they_are_for_inputs_of_any_rank():
    np.testing.assert_array_equal(averaged(see, IMAGES, views="none"), see(IMAGES))
    signal = jnp.ones((2, 9, 1))
    np.testing.assert_array_equal(averaged(lambda x: x[:, :, 0], signal, views="none"), signal[:, :, 0])


def test_a_flip_averages_the_logits_of_the_image_and_its_mirror_image():
    expected = (logits_of(IMAGES) + logits_of(mirrored(IMAGES))) / 2
    np.testing.assert_allclose(averaged(see, IMAGES, views="flip"), expected, rtol=1e-5, atol=1e-5)


def test_flip_shift_weighs_six_views_as_airbench():
    padded = np.pad(IMAGES, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    shifted = padded[:, 0:6, 0:5], padded[:, 2:8, 2:7]

    def both(images):
        return 0.5 * logits_of(images) + 0.5 * logits_of(mirrored(images))

    expected = 0.5 * both(IMAGES) + 0.5 * (both(shifted[0]) + both(shifted[1])) / 2
    found = jax.jit(lambda images: averaged(see, images, views="flip_shift"))(IMAGES)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("views", ["five_crop", "ten_crop"])
def test_crops_average_the_probabilities_of_slices(views):
    pixels = np.asarray(IMAGES)
    places = [(0, 0), (0, 2), (3, 0), (3, 2), (1, 1)]
    crops = [pixels[:, y : y + 3, x : x + 3] for y, x in places]
    crops += [mirrored(crop) for crop in crops] if views == "ten_crop" else []
    expected = np.mean([softmax(logits_of(crop)) for crop in crops], axis=0)
    found = averaged(see, IMAGES, views=views, size=3)
    np.testing.assert_allclose(jax.nn.softmax(found), expected, rtol=1e-5)
    # They are logarithms of probabilities already.
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-5)


def test_the_crops_are_seven_eighths_of_the_shorter_side_by_default():
    seen = []

    def apply(images):
        seen.append(images.shape)
        return jnp.zeros((images.shape[0], 2))

    averaged(apply, jnp.zeros((1, 256, 300, 1)), views="ten_crop")
    assert set(seen) == {(1, 224, 224, 1)}


@pytest.mark.parametrize("views", VIEWS)
def test_views_of_what_does_not_see_the_difference_change_nothing(views):
    def apply(images):
        mean = jnp.mean(images, axis=(1, 2))
        return mean - jax.nn.logsumexp(mean, axis=1, keepdims=True)

    flat = jnp.broadcast_to(IMAGES[:, :1, :1], IMAGES.shape)
    np.testing.assert_allclose(averaged(apply, flat, views=views), apply(flat), rtol=1e-5)
    assert sum(VIEWS[views].weights) == pytest.approx(1, abs=1e-15)


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="unknown views 'flips'; did you mean 'flip'"):
        averaged(see, IMAGES, views="flips")
    with pytest.raises(ValueError, match="views 'flip' have the size of the image: leave size out; got 4"):
        averaged(see, IMAGES, views="flip", size=4)
    with pytest.raises(ValueError, match=r"size of crops must lie in \[1, 5\], got 6"):
        averaged(see, IMAGES, views="five_crop", size=6)
    with pytest.raises(TypeError, match="flip takes floating-point images, got uint8"):
        averaged(see, jnp.zeros((1, 4, 4, 1), jnp.uint8), views="flip")
    with pytest.raises(
        ValueError, match=r"ten_crop takes images .batch, height, width, channels., got shape .4, 6."
    ):
        averaged(see, IMAGES[:, :, 0, 0], views="ten_crop")
    with pytest.raises(ValueError, match="flip_shift takes images of 2x2 pixels or more, got 1x5"):
        averaged(see, IMAGES[:, :1], views="flip_shift")


def test_a_network_of_one_size_takes_no_crops():
    model = models.create("lenet5", padding="SAME")
    images = jnp.zeros((1, 16, 16, 1))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), variables)
    with pytest.raises(ValueError, match="c5/linear: its kernel has shape .256, 120."):
        averaged(lambda images: model.apply(variables, images), images, views="five_crop")


def test_of_classes_that_are_independent_each_probability_is_averaged():
    found = jax.jit(lambda images: averaged(see, images, views="five_crop", mean=sigmoid_mean))(IMAGES)
    pixels = np.asarray(IMAGES)
    places = [(0, 0), (0, 1), (2, 0), (2, 1), (1, 0)]
    crops = [logits_of(pixels[:, y : y + 4, x : x + 4]) for y, x in places]
    expected = np.mean([1 / (1 + np.exp(-logits)) for logits in crops], axis=0)
    np.testing.assert_allclose(jax.nn.sigmoid(found), expected, rtol=1e-4)
