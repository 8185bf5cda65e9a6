"""Augmentations that take something out of an image or mix two examples and their labels."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnnjax.data.augment.checks import check_images, check_range


def cutout(images: jax.Array, key: jax.Array, *, size: int, fill: float = 0.0) -> jax.Array:
    """Blanks a square in each image (DeVries & Taylor 2017, section 3); its center is any pixel, so parts may lie outside.

    Args:
      images: `(batch, height, width, channels)`; normalized ones have `fill` 0 as their mean color.
      key: each image has a square of its own.
      size: of a side, in pixels (16 for CIFAR-10, 8 for CIFAR-100).
      fill: what takes the place of the pixels.

    Raises:
      TypeError, ValueError: no batch of floating-point images, or the size is below 1.
    """
    check_images(images, "cutout")
    check_range("cutout", "size", size, 1, 2 * max(images.shape[1:3]))
    shape = images.shape[1:3]
    centers = [
        jax.random.randint(k, (len(images),), 0, n) for k, n in zip(jax.random.split(key), shape, strict=True)
    ]
    starts = [center - size // 2 for center in centers]
    inside = _boxes(shape, starts, [start + size for start in starts])
    return jnp.where(inside, jnp.asarray(fill, images.dtype), images)


def mixup(
    images: jax.Array, labels: jax.Array, key: jax.Array, *, alpha: float
) -> tuple[jax.Array, jax.Array]:
    """t x + (1 - t) x', t y + (1 - t) y' with another example of the batch (Zhang et al. 2018, equation 1).

    One t for the batch is drawn from Beta(alpha, alpha), as in the authors' code.

    Args:
      images: `(batch, height, width, channels)`.
      labels: probabilities `(batch, classes)` (`jax.nn.one_hot` of classes).
      key: of t and of the partners.
      alpha: 0.2 for ImageNet, 1 for CIFAR-10 in the paper.

    Returns:
      Images and labels of the same shapes; labels keep their sums.

    Raises:
      TypeError, ValueError: no batch of floating-point images with such labels, or alpha is not positive.
    """
    share, partners = _draw("mixup", images, labels, key, alpha)
    return _mixed(images, partners, share.astype(images.dtype)), _mixed(labels, partners, share)


def cutmix(
    images: jax.Array, labels: jax.Array, key: jax.Array, *, alpha: float = 1.0
) -> tuple[jax.Array, jax.Array]:
    """Pastes a box of another example into each (Yun et al. 2019, section 3.1); labels mix by the areas.

    One box for the batch: its center is any pixel, its sides sqrt(1 - t) of the image's, t from Beta(alpha, alpha). What
    lies outside of the image is cut off, and the share of the labels is that of the pixels that are left.

    Args: as of `mixup`.

    Raises: as of `mixup`.
    """
    share, partners = _draw("cutmix", images, labels, key, alpha)
    shape = images.shape[1:3]
    keys = jax.random.split(jax.random.fold_in(key, 1))
    starts, ends = [], []
    for own, n in zip(keys, shape, strict=True):
        center = jax.random.randint(own, (1,), 0, n)
        side = (n * jnp.sqrt(1 - share)).astype(jnp.int32)
        starts.append(center - side // 2)
        ends.append(center - side // 2 + side)
    inside = _boxes(shape, starts, ends)
    kept = 1 - inside.mean(dtype=labels.dtype)
    return jnp.where(inside, images[partners], images), _mixed(labels, partners, kept)


def _draw(
    function: str, images: jax.Array, labels: jax.Array, key: jax.Array, alpha: float
) -> tuple[jax.Array, jax.Array]:
    check_images(images, function)
    if labels.ndim != 2 or len(labels) != len(images) or not jnp.issubdtype(labels.dtype, jnp.floating):
        raise ValueError(
            f"{function} takes labels as probabilities (batch, classes), got {labels.dtype} of shape {labels.shape} "
            f"for {len(images)} images: use jax.nn.one_hot"
        )
    if not alpha > 0:
        raise ValueError(f"alpha of {function} must be positive, got {alpha}")
    for_share, for_partners = jax.random.split(key)
    share = jax.random.beta(for_share, alpha, alpha, dtype=labels.dtype)
    return share, jax.random.permutation(for_partners, len(images))


def _mixed(x: jax.Array, partners: jax.Array, share: jax.Array) -> jax.Array:
    return share * x + (1 - share) * x[partners]


def _boxes(shape: tuple[int, ...], starts: list[jax.Array], ends: list[jax.Array]) -> jax.Array:
    """Which pixels lie in the boxes, `(boxes, height, width, 1)`; `starts` and `ends` by axis, `(boxes,)` each."""
    rows, columns = (
        (jnp.arange(n)[None] >= start[:, None]) & (jnp.arange(n)[None] < end[:, None])
        for n, start, end in zip(shape, starts, ends, strict=True)
    )
    return (rows[:, :, None] & columns[:, None, :])[..., None]
