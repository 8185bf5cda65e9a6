"""Augmentations of color, for images from 0 to 1 in gray or RGB."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnnjax.data.augment.checks import check_colors, check_range

# Luma of ITU-R BT.601, as Pillow converts RGB to gray.
_LUMA = (0.299, 0.587, 0.114)


def jitter(
    images: jax.Array,
    key: jax.Array,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
) -> jax.Array:
    """Changes brightness, contrast, saturation and hue of each image at random, in this order.

    Factors are drawn from [max(0, 1 - b), 1 + b]: 1 leaves the image, brightness 0 is black, contrast 0 the image's mean
    gray, saturation 0 the image in gray. Hue turns the color circle by a share from [-hue, hue].

    Args:
      images: `(batch, height, width, channels)`, from 0 to 1; gray ones have no saturation and no hue.
      key: each image has factors of its own.
      brightness, contrast, saturation: b of each, 0 or more.
      hue: at most 0.5, half of the circle.

    Returns:
      Images from 0 to 1.

    Raises:
      TypeError, ValueError: no batch of floating-point images of 1 or 3 channels, or a number out of range.
    """
    check_colors(images, "jitter")
    strengths = dict(brightness=brightness, contrast=contrast, saturation=saturation)
    for name, strength in strengths.items():
        check_range("jitter", name, strength, 0, float("inf"))
    check_range("jitter", "hue", hue, 0, 0.5)
    dtype, images = images.dtype, images.astype(jnp.float32)
    keys = jax.random.split(key, 4)
    shape = (len(images), 1, 1, 1)
    for (name, strength), own in zip(strengths.items(), keys, strict=False):
        if strength and not (name == "saturation" and images.shape[-1] == 1):
            factor = jax.random.uniform(own, shape, minval=max(0.0, 1 - strength), maxval=1 + strength)
            images = blend(_BASES[name](images), images, factor)
    if hue and images.shape[-1] == 3:
        images = turn_hue(images, jax.random.uniform(keys[3], shape[:3], minval=-hue, maxval=hue))
    return images.astype(dtype)


def blend(base: jax.Array, images: jax.Array, factor: jax.Array | float) -> jax.Array:
    """base + factor (images - base), cut off at 0 and 1."""
    return jnp.clip(base + factor * (images - base), 0, 1)


def gray(images: jax.Array) -> jax.Array:
    """The luma of `(..., channels)` as `(..., 1)`."""
    if images.shape[-1] == 1:
        return images
    luma = jnp.asarray(_LUMA, images.dtype)
    return jnp.einsum("...c,c->...", images, luma)[..., None]


def mean_gray(images: jax.Array) -> jax.Array:
    """The mean luma of each image, `(..., 1, 1, 1)`."""
    return gray(images).mean(axis=(-3, -2, -1), keepdims=True)


_BASES = {"brightness": jnp.zeros_like, "contrast": mean_gray, "saturation": gray}


def turn_hue(images: jax.Array, turn: jax.Array) -> jax.Array:
    """Turns the hue of RGB images by a share of the circle: in HSV, H becomes H + turn."""
    hue, saturation, value = _to_hsv(images)
    return _from_hsv((hue + turn) % 1, saturation, value)


def _to_hsv(images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    red, green, blue = jnp.moveaxis(images, -1, 0)
    value, least = images.max(axis=-1), images.min(axis=-1)
    chroma = value - least
    safe = jnp.where(chroma == 0, 1, chroma)
    sixths = jnp.where(
        value == red,
        ((green - blue) / safe) % 6,
        jnp.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue = jnp.where(chroma == 0, 0, sixths / 6)
    return hue, chroma / jnp.where(value == 0, 1, value), value


def _from_hsv(hue: jax.Array, saturation: jax.Array, value: jax.Array) -> jax.Array:
    # f(n) = V - V S max(0, min(k, 4 - k, 1)), k = (n + 6 H) mod 6: red n = 5, green 3, blue 1.
    def channel(n: int) -> jax.Array:
        k = (n + 6 * hue) % 6
        return value - value * saturation * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return jnp.stack([channel(5), channel(3), channel(1)], axis=-1)
