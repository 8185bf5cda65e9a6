"""RandAugment (Cubuk et al. 2020): some of fourteen operations, drawn for each image, at one magnitude."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from cnnjax.data.augment.checks import check_colors, check_range
from cnnjax.data.augment.color import blend, gray, mean_gray
from cnnjax.data.augment.geometry import rotation, warp

MAGNITUDES = 30
"""The largest magnitude; the paper's scale."""

_LEVELS = 256
_GRAY = 0.5  # what lies outside of a warped image

Operation = Callable[[jax.Array, jax.Array], jax.Array]


def rand_augment(images: jax.Array, key: jax.Array, *, count: int = 2, magnitude: float = 9) -> jax.Array:
    """Applies `count` operations to each image, one after the other, each drawn from `OPERATIONS` (section 3).

    What has a direction (rotation, shear, translation, and the enhancements of color, contrast, brightness and sharpness)
    goes either way at random.

    Args:
      images: `(batch, height, width, channels)`, from 0 to 1, gray or RGB.
      key: each image has operations of its own.
      count: how many (N of the paper).
      magnitude: from 0 to 30 (M).

    Returns:
      Images from 0 to 1.

    Raises:
      TypeError, ValueError: no batch of floating-point images of 1 or 3 channels, or a number out of range.
    """
    check_colors(images, "rand_augment")
    check_range("rand_augment", "count", count, 0, 100)
    check_range("rand_augment", "magnitude", magnitude, 0, MAGNITUDES)
    dtype, images = images.dtype, images.astype(jnp.float32)
    level = magnitude / MAGNITUDES
    branches = list(OPERATIONS.values())

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        for step in range(count):
            choice, sign = jax.random.split(jax.random.fold_in(key, step))
            signed = level * jax.random.rademacher(sign, (), jnp.float32)
            image = jax.lax.switch(jax.random.randint(choice, (), 0, len(branches)), branches, image, signed)
        return image

    return jax.vmap(one)(images, jax.random.split(key, len(images))).astype(dtype)


def _autocontrast(image: jax.Array, level: jax.Array) -> jax.Array:
    low, high = image.min(axis=(0, 1), keepdims=True), image.max(axis=(0, 1), keepdims=True)
    stretched = (image - low) / jnp.where(high > low, high - low, 1)
    return jnp.where(high > low, stretched, image)


def _equalize(image: jax.Array, level: jax.Array) -> jax.Array:
    # As Pillow: level i becomes the number of darker pixels over a step, the mean number of a level but the last.
    def channel(plane: jax.Array) -> jax.Array:
        levels = jnp.round(plane * (_LEVELS - 1)).astype(jnp.int32)
        counts = jnp.bincount(levels.ravel(), length=_LEVELS)
        step = (plane.size - counts[levels.max()]) // (_LEVELS - 1)
        darker = jnp.cumsum(counts) - counts
        table = jnp.minimum((darker + step // 2) // jnp.maximum(step, 1), _LEVELS - 1) / (_LEVELS - 1)
        return jnp.where(step > 0, table[levels], plane)

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)


def _posterize(image: jax.Array, level: jax.Array) -> jax.Array:
    # 8 bits are left at magnitude 0, 4 at the largest.
    steps = 2.0 ** jnp.round(8 - 4 * jnp.abs(level))
    return jnp.floor(jnp.minimum(image, 1 - 1 / _LEVELS) * steps) / steps


def _solarize(image: jax.Array, level: jax.Array) -> jax.Array:
    return jnp.where(image >= 1 - jnp.abs(level), 1 - image, image)


def _sharpness(image: jax.Array, level: jax.Array) -> jax.Array:
    # Pillow's smoothing kernel: 1 around 5, over 13; the border stays.
    sums = sum(jnp.roll(image, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1))
    smooth = (sums + 4 * image) / 13
    inner = jnp.zeros(image.shape[:2], bool).at[1:-1, 1:-1].set(True)[..., None]
    return blend(jnp.where(inner, smooth, image), image, 1 + 0.9 * level)


def _enhanced(base: Callable[[jax.Array], jax.Array]) -> Operation:
    return lambda image, level: blend(base(image), image, 1 + 0.9 * level)


def _rotated(image: jax.Array, level: jax.Array) -> jax.Array:
    return warp(image, rotation(30 * level), fill=_GRAY)


def _sheared(axis: int) -> Operation:
    def shear(image: jax.Array, level: jax.Array) -> jax.Array:
        return warp(image, jnp.eye(2).at[axis, 1 - axis].set(0.3 * level), fill=_GRAY)

    return shear


def _translated(axis: int) -> Operation:
    def translate(image: jax.Array, level: jax.Array) -> jax.Array:
        # At most 0.45 of the side, as in the authors' code for CIFAR (14 pixels of 32).
        shift = jnp.zeros(2).at[axis].set(0.45 * image.shape[axis] * level)
        return warp(image, jnp.eye(2), shift, fill=_GRAY)

    return translate


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "identity": lambda image, level: image,
        "autocontrast": _autocontrast,
        "equalize": _equalize,
        "rotate": _rotated,
        "solarize": _solarize,
        "color": _enhanced(gray),
        "posterize": _posterize,
        "contrast": _enhanced(mean_gray),
        "brightness": _enhanced(jnp.zeros_like),
        "sharpness": _sharpness,
        "shear_x": _sheared(1),
        "shear_y": _sheared(0),
        "translate_x": _translated(1),
        "translate_y": _translated(0),
    }
)
"""Image `(height, width, channels)` and level from -1 to 1 -> image, the paper's fourteen."""
