"""What every augmentation asks of its images and numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def check_images(images: jax.Array, function: str) -> None:
    """Raises unless `images` are a batch of floating-point images."""
    if images.ndim != 4:
        raise ValueError(
            f"{function} takes images (batch, height, width, channels), got shape {images.shape}"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"{function} takes floating-point images, got {images.dtype}: divide uint8 by 255 first"
        )


def check_colors(images: jax.Array, function: str) -> None:
    """Raises unless `images` are a batch of gray or RGB images."""
    check_images(images, function)
    if images.shape[-1] not in (1, 3):
        raise ValueError(f"{function} takes images of 1 or 3 channels, got {images.shape[-1]}")


def check_range(function: str, name: str, value: float, low: float, high: float) -> None:
    """Raises ValueError unless low <= value <= high."""
    if not low <= value <= high:
        raise ValueError(f"{name} of {function} must lie in [{low:g}, {high:g}], got {value}")
