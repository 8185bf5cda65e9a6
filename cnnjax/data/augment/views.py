"""Several views of each image, whose predictions are averaged at test time."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnnjax.data.augment.checks import check_images, check_range


def flips(images: jax.Array) -> jax.Array:
    """Each image and its mirror image, `(2, batch, height, width, channels)`."""
    check_images(images, "flips")
    return jnp.stack([images, images[:, :, ::-1]])


def crops(images: jax.Array, *, size: int) -> jax.Array:
    """The four corners and the center (Krizhevsky et al. 2012, section 4.1), `(5, batch, size, size, channels)`.

    Raises:
      TypeError, ValueError: no batch of floating-point images, or `size` is larger than they are.
    """
    check_images(images, "crops")
    check_range("crops", "size", size, 1, min(images.shape[1:3]))
    bottom, right = images.shape[1] - size, images.shape[2] - size
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    return jnp.stack([images[:, y : y + size, x : x + size] for y, x in places])
