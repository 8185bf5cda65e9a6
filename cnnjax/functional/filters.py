"""The classic image filters as kernels for `conv`.

Each function returns a float32 kernel `(height, width, 1, channels)` that filters every channel by itself:
`conv(x, kernel, groups=channels)`, or `depthwise_conv(x, kernel)`. With one channel that is the plain `conv(x, kernel)`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.functional.names import lookup
from cnnjax.functional.padding import per_axis

# Weights along an edge; across it is the difference (1, 0, -1).
_EDGE_SMOOTHING = {"prewitt": (1, 1, 1), "sobel": (1, 2, 1)}


def vertical_edge(*, kind: str = "prewitt", channels: int = 1) -> jax.Array:
    """Difference of left and right, positive where the left is brighter; "prewitt" or "sobel".

    Under cross-correlation, a step from 10 on the left to 0 on the right gives 30 (Prewitt). Raises ValueError for
    another kind or fewer than one channel.
    """
    along = lookup(_EDGE_SMOOTHING, kind, "edge filter")
    return _kernel(np.outer(along, (1, 0, -1)), channels)


def horizontal_edge(*, kind: str = "prewitt", channels: int = 1) -> jax.Array:
    """Difference of top and bottom, positive where the top is brighter: `vertical_edge` transposed.

    Raises as `vertical_edge` does.
    """
    return vertical_edge(kind=kind, channels=channels).swapaxes(0, 1)


def sharpen(*, channels: int = 1) -> jax.Array:
    """The image minus its Laplacian over the four neighbors. Raises ValueError for fewer than one channel."""
    return _kernel([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], channels)


def emboss(*, channels: int = 1) -> jax.Array:
    """The image plus its difference along the diagonal, as if lit from one corner.

    The lower right counts as positive. Raises ValueError for fewer than one channel.
    """
    return _kernel([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], channels)


def box_blur(size: int, *, channels: int = 1) -> jax.Array:
    """Mean over size x size pixels. Raises TypeError or ValueError if a size is not a positive integer."""
    side = per_axis(size, 1, "size")[0]
    return _kernel(np.full((side, side), 1 / side**2), channels)


def gaussian_blur(size: int, *, sigma: float, channels: int = 1) -> jax.Array:
    """Mean over size x size pixels weighted by exp(-r^2 / (2 sigma^2)), with r the distance from the center.

    A size of 6 sigma or more holds nearly all of the weight. Raises TypeError or ValueError if a size is not a
    positive integer or `sigma` is not positive.
    """
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    side = per_axis(size, 1, "size")[0]
    offsets = np.arange(side) - (side - 1) / 2
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    return _kernel(np.outer(weights, weights), channels)


def _kernel(weights: np.ndarray | list[list[int]], channels: int) -> jax.Array:
    count = per_axis(channels, 1, "channels")[0]
    plane = jnp.asarray(np.asarray(weights, np.float32))
    return jnp.tile(plane[:, :, None, None], (1, 1, 1, count))
