"""Encoded images of any size, cut to squares of uint8 by Pillow.

A cut is a box in the coordinates of the whole image, so that JPEG can be decoded at a fraction of its size and only
the pixels of the cut are interpolated.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge in pixels."""

Cut = Callable[[int, int], Box]
"""The part to take of an image, from its width and height."""

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's modes by the number of channels."""

_TRIES = 10
# Of the short side before the cut to the side of the cut, as in Krizhevsky et al. (2012), section 4.1, and since.
_MARGIN = 256 / 224


def decode(data: bytes, cut: Cut, *, size: int, channels: int) -> np.ndarray:
    """The part `cut(width, height)` of an encoded image, as `(size, size, channels)` in uint8.

    It is interpolated by Pillow's bilinear filter, whose support grows with the reduction. JPEG is decoded at an
    eighth, a quarter or half of its size where that leaves enough pixels. The orientation that EXIF may give is not
    applied, as in torchvision.

    Raises:
        Exception: whatever Pillow raises at data that it cannot read.
    """
    import PIL.Image

    with PIL.Image.open(io.BytesIO(data)) as picture:
        width, height = picture.size
        left, upper, right, lower = box = cut(width, height)
        enough = math.ceil(width * size / (right - left)), math.ceil(height * size / (lower - upper))
        # Of other formats than JPEG this changes nothing.
        picture.draft(None, enough)  # pyright: ignore[reportArgumentType]
        pixels = picture.convert(MODES[channels])
        part = _scaled(box, pixels.width / width, pixels.height / height, pixels.size)
        square = pixels.resize((size, size), PIL.Image.Resampling.BILINEAR, box=part)
    return np.asarray(square).reshape(size, size, channels)


def random_box(
    width: int,
    height: int,
    rng: np.random.Generator,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """A part of random area and shape: Szegedy et al. (2015), "Going deeper with convolutions", section 6.

    As torchvision draws it: the area is uniform within `area`, a share of the image's, and the logarithm of
    width / height is uniform within those of `ratio`. What fits in none of ten tries is the largest part in the center
    whose shape is within `ratio`.
    """
    for _ in range(_TRIES):
        pixels = width * height * rng.uniform(area[0], area[1])
        shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(pixels * shape)), round(math.sqrt(pixels / shape))
        if 0 < w <= width and 0 < h <= height:
            return _box(int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h)
    shape = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, max(round(height * shape), 1)), min(height, max(round(width / shape), 1))
    return _box((width - w) // 2, (height - h) // 2, w, h)


def center_box(width: int, height: int, *, size: int) -> Box:
    """The center of the image: what is left if its short side is made 256 / 224 of `size`, and all but `size` cut off.

    The roundings are torchvision's (`Resize`, `CenterCrop`). An image of `size` by `size` pixels is left whole.
    """
    if width == height == size:
        return _box(0, 0, size, size)
    short = round(size * _MARGIN)
    resized = [short * side // min(width, height) for side in (width, height)]
    left, upper = (round((side - size) / 2) for side in resized)
    return _scaled(_box(left, upper, size, size), width / resized[0], height / resized[1], (width, height))


def _box(left: int, upper: int, width: int, height: int) -> Box:
    return left, upper, left + width, upper + height


def _scaled(box: Box, x: float, y: float, size: tuple[int, int]) -> Box:
    """The box in an image that is `x` times as wide and `y` times as high, kept inside of its `size` in pixels."""
    left, upper, right, lower = box
    return left * x, upper * y, min(right * x, size[0]), min(lower * y, size[1])
