"""The typed choice of augmentations: each is where it belongs, and draws for itself."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.data import augment, normalize
from cnnjax.training.augmentation import Augmentation

IMAGES = jnp.asarray(np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)), jnp.uint8)
LABELS = jnp.eye(6)
MEAN, STD = jnp.array([0.4, 0.5, 0.6]), jnp.array([0.2, 0.25, 0.3])
KEY = jax.random.key(0)
EACH = {
    "rand_augment": 2,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.1,
    "crop": 2,
    "flip": True,
    "rotate": 20.0,
    "cutout": 3,
    "mixup": 0.5,
    "cutmix": 1.0,
}


@functools.partial(jax.jit, static_argnums=0)
def batch(augmentation, key=KEY):
    return augmentation(IMAGES, LABELS, key, mean=MEAN, std=STD)


def test_nothing_chosen_normalizes():
    images, labels = batch(Augmentation())
    np.testing.assert_allclose(images, normalize(IMAGES, MEAN, STD), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize("name", EACH)
def test_each_changes_the_batch_by_its_key_alone(name):
    chosen = Augmentation(**{name: EACH[name]})
    images, labels = batch(chosen)
    again, _ = batch(chosen)
    assert images.shape == IMAGES.shape and images.dtype == jnp.float32
    np.testing.assert_array_equal(images, again)
    others = [batch(chosen, jax.random.key(seed)) for seed in (1, 2)]
    assert any(jnp.any(other != images) for other, _ in others)
    mixed = any(jnp.any(other != LABELS) for _, other in [(images, labels), *others])
    assert mixed == (name in ("mixup", "cutmix"))


def test_the_fields_are_all_tried():
    fields = {field.name for field in dataclasses.fields(Augmentation)}
    assert fields - set(EACH) == {"magnitude", "crop_mode"}


def test_padding_and_blanks_have_the_mean_color():
    # Behind the normalization a blank is 0.
    images, _ = batch(Augmentation(crop=4, cutout=4))
    assert (images == 0).all(-1).any((1, 2)).sum() >= 5


def test_one_more_leaves_the_others_as_they_were():
    cropped, _ = batch(Augmentation(crop=2))
    both, _ = batch(Augmentation(crop=2, flip=True))
    flipped = (both == cropped[:, :, ::-1]).all((1, 2, 3))
    same = (both == cropped).all((1, 2, 3))
    assert (flipped | same).all() and flipped.any()


def test_an_alternating_flip_mirrors_what_it_is_told_to():
    cropped, _ = batch(Augmentation(crop=2))
    mirrored = jnp.arange(6) % 2 == 0
    chosen = Augmentation(crop=2, flip="alternating")
    images, _ = jax.jit(chosen)(IMAGES, LABELS, KEY, mean=MEAN, std=STD, mirrored=mirrored)
    np.testing.assert_allclose(images[::2], cropped[::2, :, ::-1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(images[1::2], cropped[1::2], rtol=1e-5, atol=1e-5)


def test_mirrored_goes_with_an_alternating_flip():
    with pytest.raises(
        ValueError, match="goes with flip='alternating'; got mirrored=None with flip='alternating'"
    ):
        Augmentation(flip="alternating")(IMAGES, LABELS, KEY, mean=MEAN, std=STD)
    with pytest.raises(ValueError, match="got mirrored=an array with flip=True"):
        Augmentation(flip=True)(IMAGES, LABELS, KEY, mean=MEAN, std=STD, mirrored=jnp.ones(6, bool))
    with pytest.raises(ValueError, match="flip must be False, True or 'alternating', got 'alternate'"):
        Augmentation(flip="alternate")


def test_with_mixup_and_cutmix_a_coin_decides():
    mixed = jax.jit(lambda key: batch(Augmentation(mixup=0.5, cutmix=1.0), key)[0])
    by_mixup = [
        np.allclose(mixed(jax.random.key(seed)), _mixup_of(jax.random.key(seed))[0], atol=1e-5)
        for seed in range(12)
    ]
    assert 0 < sum(by_mixup) < 12


@jax.jit
def _mixup_of(key):
    _, _, mix = jax.random.split(key, 3)
    _, first, _ = jax.random.split(mix, 3)
    return augment.mixup(normalize(IMAGES, MEAN, STD), LABELS, first, alpha=0.5)
