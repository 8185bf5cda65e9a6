"""A map laid over its picture."""

import numpy as np

# Vermilion and blue of Okabe and Ito's palette, a little brighter, so that they stand out on black, too.
_FOR = np.array([0.95, 0.35, 0.05])
_AGAINST = np.array([0.05, 0.50, 0.95])
# Of magnitudes, beyond which colors do not change: single pixels of gradients stand out far.
_PERCENTILE = 99.5


def overlay(picture: np.ndarray, heat: np.ndarray, *, strength: float = 0.85) -> np.ndarray:
    """A picture in gray with a map in color over it: orange speaks for the class, blue against it.

    The greater a value's magnitude, the less of the picture shines through; a map of zeros leaves it in gray. A magnitude
    beyond the 99.5th percentile is drawn like that.

    Args:
      picture: `(height, width)` or `(height, width, channels)`, uint8.
      heat: the map, `(height, width)`.
      strength: how opaque the greatest magnitude is, from 0 to 1.

    Returns:
      `(height, width, 3)`, uint8.

    Raises:
      ValueError: the two are not of the same size.
      TypeError: the picture is not uint8.
    """
    picture, heat = np.asarray(picture), np.asarray(heat, np.float64)
    if picture.dtype != np.uint8:
        raise TypeError(f"the picture must be uint8; got {picture.dtype}")
    if picture.shape[:2] != heat.shape:
        raise ValueError(f"the map must be as large as the picture, {picture.shape[:2]}; got {heat.shape}")
    levels = picture.reshape(*heat.shape, -1)
    gray = np.repeat(levels.mean(axis=-1, keepdims=True), 3, axis=-1) / 255
    scaled = normalized(heat)
    colors = np.where(scaled[..., None] > 0, _FOR, _AGAINST)
    opacity = strength * np.abs(scaled)[..., None]
    return np.rint(255 * ((1 - opacity) * gray + opacity * colors)).astype(np.uint8)


def normalized(heat: np.ndarray) -> np.ndarray:
    """A map divided by the 99.5th percentile of its magnitudes and cut off at -1 and 1; zeros stay zeros."""
    magnitudes = np.abs(heat)
    scale = np.percentile(magnitudes, _PERCENTILE) or magnitudes.max() or 1.0
    return np.clip(heat / scale, -1, 1)


def enlarge(picture: np.ndarray, *, at_least: int = 448) -> np.ndarray:
    """A picture `(height, width, ...)` with each pixel repeated until the shorter side has so many."""
    factor = max(1, -(-at_least // min(picture.shape[:2])))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)
