"""Augmentations that move pixels: random crops of the padded image, mirror images, rotations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from cnnjax.data.augment.checks import check_images, check_range


def crop(images: jax.Array, key: jax.Array, *, padding: int, mode: str = "constant") -> jax.Array:
    """Pads each side and cuts the old size out again at a random place (He et al. 2016, section 4.2: 4 pixels of zeros).

    Args:
      images: `(batch, height, width, channels)`.
      key: each image has a place of its own, all (2 padding + 1)^2 equally likely.
      padding: pixels on each side.
      mode: as in `numpy.pad`: "constant" (zeros), "reflect", "edge", "wrap".

    Returns:
      Images of the same shape and type.

    Raises:
      TypeError, ValueError: no batch of floating-point images, or `padding` is negative.
    """
    check_images(images, "crop")
    check_range("crop", "padding", padding, 0, max(images.shape[1:3]))
    batch, height, width, channels = images.shape
    sides = (padding, padding)
    padded = jnp.pad(images, ((0, 0), sides, sides, (0, 0)), mode=mode)
    places = jax.random.randint(key, (batch, 2), 0, 2 * padding + 1)

    def cut(image: jax.Array, place: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (place[0], place[1], 0), (height, width, channels))

    return jax.vmap(cut)(padded, places)


def flip(images: jax.Array, key: jax.Array, *, probability: float = 0.5) -> jax.Array:
    """Each image or its mirror image, left and right exchanged.

    Args:
      images: `(batch, height, width, channels)`.
      key: decides for each image.
      probability: of the mirror image.

    Raises:
      TypeError, ValueError: no batch of floating-point images, or no probability.
    """
    check_images(images, "flip")
    check_range("flip", "probability", probability, 0, 1)
    return mirror(images, jax.random.bernoulli(key, probability, images.shape[:1]))


def mirror(images: jax.Array, mirrored: jax.Array) -> jax.Array:
    """The mirror images, left and right exchanged, of those that are chosen.

    Args:
      images: `(batch, height, width, channels)`.
      mirrored: `(batch,)`, bool.

    Raises:
      TypeError, ValueError: no batch of floating-point images, or no bool for each of them.
    """
    check_images(images, "mirror")
    if mirrored.shape != images.shape[:1] or mirrored.dtype != jnp.bool_:
        raise ValueError(
            f"mirror takes a bool for each of the {len(images)} images, got {mirrored.dtype} of shape {mirrored.shape}"
        )
    return jnp.where(mirrored.reshape(-1, 1, 1, 1), images[:, :, ::-1], images)


def alternating(key: jax.Array, index: jax.Array, epoch: jax.Array | int) -> jax.Array:
    """Which examples an epoch mirrors: each in every second one, beginning with the first or the second by chance.

    Two epochs in a row show every example from both sides, where fair coins would show half of them the same side twice
    (Jordan 2024, section 3.6, which reaches the same accuracy in fewer epochs by it).

    Args:
      key: of the whole run.
      index: `(batch,)`, integers: the places of the examples in the data.
      epoch: `()`, an integer, counted from 0.

    Returns:
      `(batch,)`, bool, for `mirror`. It depends on `key`, an example's index and whether the epoch is odd.
    """
    first = jax.vmap(lambda place: jax.random.bernoulli(jax.random.fold_in(key, place)))(index)
    return first != (jnp.asarray(epoch) % 2 == 1)


def rotate(images: jax.Array, key: jax.Array, *, degrees: float, fill: float = 0.0) -> jax.Array:
    """Rotates each image about its center by an angle from -degrees to degrees, interpolating linearly.

    Args:
      images: `(batch, height, width, channels)`.
      key: each image has an angle of its own.
      degrees: the largest angle.
      fill: what lies outside of the image.

    Raises:
      TypeError, ValueError: no batch of floating-point images, or the angle is not in [0, 180].
    """
    check_images(images, "rotate")
    check_range("rotate", "degrees", degrees, 0, 180)
    angles = jax.random.uniform(key, (len(images),), minval=-degrees, maxval=degrees)
    return jax.vmap(lambda image, angle: warp(image, rotation(angle), fill=fill))(images, angles)


def rotation(degrees: jax.Array) -> jax.Array:
    """The matrix that turns (row, column), `(2, 2)`."""
    angle = jnp.deg2rad(degrees)
    return jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])


def warp(
    image: jax.Array, matrix: jax.Array, shift: jax.Array | float = 0.0, *, fill: float = 0.0
) -> jax.Array:
    """An image `(height, width, channels)` whose pixel p from the center is the old one at matrix p + shift."""
    height, width, _ = image.shape
    center = (np.array([height, width], np.float32) - 1) / 2
    from_center = np.moveaxis(np.indices((height, width), np.float32), 0, -1) - center
    moved = jnp.reshape(center + shift, (1, 1, 2))
    places = jnp.asarray(from_center) @ matrix.T.astype(jnp.float32) + moved

    def channel(plane: jax.Array) -> jax.Array:
        at = [places[..., 0], places[..., 1]]
        return map_coordinates(plane, at, order=1, mode="constant", cval=fill)

    wide = image.astype(jnp.float32)
    return jax.vmap(channel, in_axes=-1, out_axes=-1)(wide).astype(image.dtype)
