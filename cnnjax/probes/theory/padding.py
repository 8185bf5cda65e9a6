"""What convolutions lose at the borders of an image."""

import math
from collections.abc import Sequence

import numpy as np

from cnnjax.functional.padding import per_axis


def zero_padding_factor(size: int | Sequence[int], *, window: int | Sequence[int] = 3) -> float:
    """The factor on second moments, forward and backward, that zero padding costs a deep stack of SAME convolutions.

    A position sums the second moments of those positions in its window that lie inside. Deep down, their profile over the
    image is the leading eigenvector of that map, and the factor its eigenvalue over that of circular padding: the product
    over the axes of (1 + 2 cos(pi / (size + 1))) / 3 for a window of 3. It applies to activations without a scale of their
    own (ReLU); others bring the profile back toward their fixed point.

    Args:
      size: of the maps, one number for square images, or one for each axis: 1-D to 3-D and more.
      window: size of the kernel, one for all axes or one for each.

    Raises:
      ValueError, TypeError: a size or a window that is no positive integer, or not one for each axis.
    """
    sizes = per_axis(size, len(size) if isinstance(size, Sequence) else 2, "size")
    windows = per_axis(window, len(sizes), "window")
    return math.prod(_leading_eigenvalue(s, w) / w for s, w in zip(sizes, windows, strict=True))


def _leading_eigenvalue(size: int, window: int) -> float:
    offset = np.subtract.outer(np.arange(size), np.arange(size)) + (window - 1) // 2
    reached = ((offset >= 0) & (offset < window)).astype(float)
    return float(np.abs(np.linalg.eigvals(reached)).max())
