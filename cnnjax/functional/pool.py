"""Pooling over the spatial axes of `(batch, *spatial, channels)`, in any number of dimensions.

A window is reduced axis by axis, and along an axis by combining strided slices. On CPU that makes gradients, in
loops and out of them, several times faster than `lax.reduce_window`, whose maximum has a scatter for a gradient.

Where the maximum of a window is tied, its gradient goes to the first of the tied entries in row-major order, in
every function here.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.functional.dtypes import at_least_float32
from cnnjax.functional.padding import Padding, check_window_fits, pad_circular, per_axis, resolve_padding

Window = int | Sequence[int]


def max_pool(
    x: jax.Array, window: Window, *, stride: Window | None = None, padding: Padding = "VALID"
) -> jax.Array:
    """Largest entry of each window; entries of the padding never win, and NaN always does.

    Args:
      x: `(batch, *spatial, channels)`, floating-point or integer.
      window: size, one for all spatial axes or one for each.
      stride: step between windows; None is the window's size. Smaller steps overlap (Krizhevsky et al. 2012,
        section 3.4).
      padding: as in `conv`, but smaller than the window.

    Returns:
      `(batch, *output spatial, channels)` in the type of `x`.

    Raises:
      TypeError, ValueError: `x` is neither floating-point nor integer; `window`, `stride` or `padding` does not fit it.
    """
    _check_ordered(x, "max_pool")
    lowest = -math.inf if jnp.issubdtype(x.dtype, jnp.floating) else int(jnp.iinfo(x.dtype).min)
    return _pool(x, _first_larger, lowest, window, stride, padding)


def avg_pool(
    x: jax.Array,
    window: Window,
    *,
    stride: Window | None = None,
    padding: Padding = "VALID",
    count_padding: bool = False,
) -> jax.Array:
    """Mean of each window, summed in float32 or wider.

    Args:
      x: `(batch, *spatial, channels)`, floating-point.
      window, stride, padding: as in `max_pool`.
      count_padding: whether padding counts as zeros in the mean. False divides by the number of entries that are
        inside of the input, as TensorFlow does; Flax and PyTorch count the padding unless told otherwise.

    Returns:
      `(batch, *output spatial, channels)` in the type of `x`.

    Raises:
      TypeError, ValueError: `x` is not floating-point; `window`, `stride` or `padding` does not fit it.
    """
    wide = at_least_float32(x, "avg_pool")
    total = _pool(wide, lax.add, 0, window, stride, padding)
    ones = jnp.ones((1, *x.shape[1:-1], 1), wide.dtype)
    count = _pool(ones, lax.add, int(count_padding), window, stride, padding)
    return (total / count).astype(x.dtype)


def lp_pool(
    x: jax.Array, window: Window, *, p: float = 2.0, stride: Window | None = None, padding: Padding = "VALID"
) -> jax.Array:
    """The p-norm of each window: (sum of |x|^p)^(1/p) (Sermanet et al. 2012), summed in float32 or wider.

    p = 1 is the sum of magnitudes, and large p approaches their maximum. The gradient of a window of zeros is 0.

    Args:
      x: `(batch, *spatial, channels)`, floating-point.
      window, stride, padding: as in `max_pool`.
      p: the exponent, finite and at least 1.

    Returns:
      `(batch, *output spatial, channels)` in the type of `x`.

    Raises:
      TypeError, ValueError: as `avg_pool`; also for an exponent below 1.
    """
    if not 1 <= p < math.inf:
        raise ValueError(f"p must be at least 1 and finite, got {p}: use max_pool(abs(x)) for the limit")
    powers = jnp.abs(at_least_float32(x, "lp_pool")) ** p
    total = _pool(powers, lax.add, 0, window, stride, padding)
    # The root has no finite slope at 0, so it is taken of 1 there.
    zero = total == 0
    root = jnp.where(zero, 1, total) ** (1 / p)
    return jnp.where(zero, 0, root).astype(x.dtype)


def global_max_pool(x: jax.Array) -> jax.Array:
    """Largest entry of each channel, `(batch, *spatial, channels)` -> `(batch, channels)`.

    Raises:
      TypeError, ValueError: `x` is neither floating-point nor integer, or has no spatial axis.
    """
    _check_ordered(x, "global_max_pool")
    _spatial_rank(x)
    return _first_max(x.reshape(x.shape[0], -1, x.shape[-1]), axis=1).squeeze(1)


def global_avg_pool(x: jax.Array) -> jax.Array:
    """Mean of each channel, `(batch, *spatial, channels)` -> `(batch, channels)` (Lin et al. 2014, section 3.2).

    Raises:
      TypeError, ValueError: `x` is not floating-point or has no spatial axis.
    """
    _spatial_rank(x)
    return at_least_float32(x, "global_avg_pool").mean(tuple(range(1, x.ndim - 1))).astype(x.dtype)


def adaptive_avg_pool(x: jax.Array, output_size: Window) -> jax.Array:
    """Mean over bins that divide each spatial axis as evenly as possible.

    Bin i of n along an axis of size s holds the entries from floor(i s / n) to below ceil((i + 1) s / n), as in
    PyTorch: bins overlap by an entry where s does not divide by n, and repeat entries where n > s.

    Args:
      x: `(batch, *spatial, channels)`, floating-point.
      output_size: number of bins, one for all spatial axes or one for each.

    Returns:
      `(batch, *output_size, channels)` in the type of `x`.

    Raises:
      TypeError, ValueError: `x` is not floating-point, or `output_size` does not fit it.
    """
    mean = partial(jnp.mean, keepdims=True)
    return _reduce_bins(at_least_float32(x, "adaptive_avg_pool"), mean, output_size).astype(x.dtype)


def adaptive_max_pool(x: jax.Array, output_size: Window) -> jax.Array:
    """Largest entry of each of the bins of `adaptive_avg_pool`.

    Args:
      x: `(batch, *spatial, channels)`, floating-point or integer.
      output_size: number of bins, one for all spatial axes or one for each.

    Returns:
      `(batch, *output_size, channels)` in the type of `x`.

    Raises:
      TypeError, ValueError: `x` is neither floating-point nor integer, or `output_size` does not fit it.
    """
    _check_ordered(x, "adaptive_max_pool")
    return _reduce_bins(x, _first_max, output_size)


def _pool(
    x: jax.Array,
    combine: Callable[[jax.Array, jax.Array], jax.Array],
    fill: float,
    window: Window,
    stride: Window | None,
    padding: Padding,
) -> jax.Array:
    """Combine the entries of each window, with `fill` for those of the padding."""
    rank = _spatial_rank(x)
    sizes = per_axis(window, rank, "window")
    steps = sizes if stride is None else per_axis(stride, rank, "stride")
    x = _pad(x, fill, sizes, steps, padding)
    # The last axis first: then ties go to the first row, and within the row to the first column.
    for axis in reversed(range(rank)):
        x = _pool_axis(x, combine, axis + 1, sizes[axis], steps[axis])
    return x


def _pool_axis(
    x: jax.Array,
    combine: Callable[[jax.Array, jax.Array], jax.Array],
    axis: int,
    size: int,
    step: int,
) -> jax.Array:
    # Slice i holds entry i of every window.
    reach = x.shape[axis] - size + 1
    result = lax.slice_in_dim(x, 0, reach, step, axis)
    for i in range(1, size):
        result = combine(result, lax.slice_in_dim(x, i, i + reach, step, axis))
    return result


def _pad(
    x: jax.Array, fill: float, window: tuple[int, ...], stride: tuple[int, ...], padding: Padding
) -> jax.Array:
    spatial, dilation = x.shape[1:-1], (1,) * len(window)
    pairs = resolve_padding(padding, spatial, window, stride=stride, dilation=dilation)
    check_window_fits(spatial, pairs, window, dilation, name="window")
    if any(max(pair) >= size for pair, size in zip(pairs, window, strict=True)):
        raise ValueError(
            f"padding {pairs} must be smaller than the window {window}: "
            "some windows would hold nothing but padding"
        )
    if isinstance(padding, str) and padding.upper() == "CIRCULAR":
        return pad_circular(x, pairs)
    return lax.pad(
        x, jnp.array(fill, x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in pairs), (0, 0, 0)]
    )


def _first_larger(best: jax.Array, candidate: jax.Array) -> jax.Array:
    # A candidate that is no number differs from itself; once it is the best, no comparison replaces it.
    return jnp.where((candidate > best) | (candidate != candidate), candidate, best)


def _first_max(x: jax.Array, axis: int) -> jax.Array:
    """Return the maximum along `axis`, which stays with size 1."""
    peak = lax.stop_gradient(x).max(axis, keepdims=True)
    index = lax.broadcasted_iota(jnp.int32, x.shape, axis)
    # Two plain reductions: on CPU `argmax` is several times slower.
    first = jnp.where((x == peak) | (x != x), index, x.shape[axis]).min(axis, keepdims=True)
    return jnp.where(index == first, x, 0).sum(axis, keepdims=True, dtype=x.dtype)


def _reduce_bins(x: jax.Array, reduce: Callable[..., jax.Array], output_size: Window) -> jax.Array:
    rank = _spatial_rank(x)
    bins = per_axis(output_size, rank, "output_size")
    for axis in reversed(range(rank)):
        size, count = x.shape[axis + 1], bins[axis]
        if size == count:
            continue
        edges = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
        pieces = [reduce(lax.slice_in_dim(x, low, high, axis=axis + 1), axis=axis + 1) for low, high in edges]
        x = lax.concatenate(pieces, axis + 1)
    return x


def _check_ordered(x: jax.Array, name: str) -> None:
    if not any(jnp.issubdtype(x.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise TypeError(
            f"{name} takes floating-point numbers or integers, got {x.dtype}: use x.astype(jnp.float32)"
        )


def _spatial_rank(x: jax.Array) -> int:
    if x.ndim < 3:
        raise ValueError(
            f"pooling takes x (batch, *spatial, channels) of rank 3 or more, got shape {x.shape}"
        )
    return x.ndim - 2
