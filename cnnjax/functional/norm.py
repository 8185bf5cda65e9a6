"""Normalization of activations and of kernels.

Statistics are computed in float32 (float64 for float64 inputs) whatever the type of the input, in two passes: the
mean first, then the mean of the squared deviations. The one-pass E[x^2] - E[x]^2 cancels where the mean is large.
Results have the type of the input. Every variance is the biased one, divided by the number of entries, except the
running one of `batch_norm` where asked.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.functional.dtypes import at_least_float32

Statistics = tuple[jax.Array, jax.Array]


def batch_norm(
    x: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    *,
    train: bool,
    momentum: float | jax.Array = 0.9,
    epsilon: float = 1e-5,
    axis_name: Any = None,
    unbiased: bool = False,
) -> tuple[jax.Array, Statistics]:
    """Normalize each channel over the batch and all positions (Ioffe & Szegedy 2015, algorithm 1).

        y = scale * (x - m) / sqrt(v + epsilon) + bias

    where m and v are those of the batch in training, and the running ones otherwise.

    Args:
      x: `(batch, *spatial, channels)`.
      mean, variance: running statistics, `(channels,)`.
      scale, bias: `(channels,)`; None is 1 and 0.
      train: normalize by the batch's statistics, and update the running ones by them.
      momentum: weight of the OLD running value: new = momentum * old + (1 - momentum) * batch. PyTorch's momentum
        weighs the new value: its 0.1 is 0.9 here.
      epsilon: added to the variance.
      axis_name: mapped axis, or tuple of them, over which the statistics of the batch are synchronized, for shards
        of equal size. Two rounds of communication, for the mean and for the squared deviations from that global
        mean, make them as accurate as those of the whole batch on one device. Within `shard_map`, differentiate
        the mean of the loss over the axis.
      unbiased: whether the RUNNING variance counts n / (n - 1) times that of the batch, as in PyTorch; Flax keeps
        the biased one. The batch itself is normalized by the biased one in all of them.

    Returns:
      The result, of the shape and type of `x`, and the running (mean, variance) after this batch, of their own
      types; unchanged where not training.

    Raises:
      TypeError, ValueError: `x` is not floating-point or of a rank below 2, an array does not have shape
        `(channels,)`, or `unbiased` with a single value per channel.
    """
    wide = _checked(x, "batch_norm", mean=mean, variance=variance, scale=scale, bias=bias)
    if train:
        used = _batch_statistics(wide, axis_name)
        running = _updated((mean, variance), used, _count(x, axis_name), momentum, unbiased)
    else:
        used = running = mean, variance
    center, spread = (_per_channel(statistic, wide) for statistic in used)
    y = (wide - center) * lax.rsqrt(spread + epsilon)
    return _affine(y, scale, bias).astype(x.dtype), running


def group_norm(
    x: jax.Array,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    *,
    groups: int,
    epsilon: float = 1e-5,
) -> jax.Array:
    """Normalize each example over all positions and the channels of each group (Wu & He 2018, section 3.1).

    Args:
      x: `(batch, *spatial, channels)`.
      scale, bias: `(channels,)`; None is 1 and 0.
      groups: number of groups of adjacent channels.
      epsilon: added to the variance.

    Returns:
      The shape and type of `x`.

    Raises:
      TypeError, ValueError: `x` is not floating-point or of a rank below 2, its channels do not divide into
        `groups`, or `scale` or `bias` does not have shape `(channels,)`.
    """
    wide = _checked(x, "group_norm", scale=scale, bias=bias)
    channels = x.shape[-1]
    if groups < 1 or channels % groups:
        raise ValueError(f"group_norm: {channels} channels do not divide into {groups} groups")
    grouped = wide.reshape(*x.shape[:-1], groups, channels // groups)
    y = _standardize(grouped, (*range(1, x.ndim - 1), x.ndim), epsilon).reshape(x.shape)
    return _affine(y, scale, bias).astype(x.dtype)


def layer_norm(
    x: jax.Array,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    *,
    axes: int | Sequence[int] | None = None,
    epsilon: float = 1e-5,
) -> jax.Array:
    """Normalize each example over `axes` (Ba et al. 2016, section 3).

    Args:
      x: `(batch, *spatial, channels)`.
      scale, bias: `(channels,)`; None is 1 and 0.
      axes: None is all but the batch: the paper's, for `(batch, features)`, and `group_norm` with one group for
        feature maps. -1 normalizes the channels at each position, as ConvNeXt does (Liu et al. 2022, section 2.6).
      epsilon: added to the variance.

    Returns:
      The shape and type of `x`.

    Raises:
      TypeError, ValueError: `x` is not floating-point or of a rank below 2, `axes` are not axes of an example, or
        `scale` or `bias` does not have shape `(channels,)`.
    """
    wide = _checked(x, "layer_norm", scale=scale, bias=bias)
    y = _standardize(wide, _example_axes(axes, x.ndim), epsilon)
    return _affine(y, scale, bias).astype(x.dtype)


def instance_norm(
    x: jax.Array,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    *,
    epsilon: float = 1e-5,
) -> jax.Array:
    """Normalize each channel of each example over its positions (Ulyanov et al. 2016).

    Args:
      x: `(batch, *spatial, channels)`.
      scale, bias: `(channels,)`; None is 1 and 0.
      epsilon: added to the variance.

    Returns:
      The shape and type of `x`.

    Raises:
      TypeError, ValueError: `x` is not floating-point or has no spatial axis, or `scale` or `bias` does not have
        shape `(channels,)`.
    """
    wide = _checked(x, "instance_norm", scale=scale, bias=bias)
    if x.ndim < 3:
        raise ValueError(
            f"instance_norm takes x (batch, *spatial, channels) of rank 3 or more, got {x.shape}"
        )
    y = _standardize(wide, tuple(range(1, x.ndim - 1)), epsilon)
    return _affine(y, scale, bias).astype(x.dtype)


def weight_standardize(
    kernel: jax.Array, *, gain: float | jax.Array | None = None, epsilon: float = 1e-4
) -> jax.Array:
    """Give the weights of each output channel mean 0 and a fixed variance.

    With m and v the mean and variance over the n weights of an output channel (n is its fan-in),

        without gain:  (w - m) / sqrt(max(v, epsilon / n))        variance 1 (Qiao et al. 2019)
        with gain:     gain * (w - m) / sqrt(max(n v, epsilon))   variance gain^2 / n (Brock et al. 2021a)

    The second preserves the variance of a signal of mean 0; gain 1 / sqrt(Var[f(z)]) makes up for an activation f.

    Args:
      kernel: `(*spatial, in_channels // groups, out_channels)`.
      gain: a number, or one for each output channel, `(out_channels,)`.
      epsilon: smallest n v that is divided by.

    Returns:
      The shape and type of `kernel`.

    Raises:
      TypeError, ValueError: `kernel` is not floating-point or of a rank below 2, or `gain` has another shape.
    """
    if kernel.ndim < 2:
        raise ValueError(f"weight_standardize takes a kernel (*spatial, in, out), got shape {kernel.shape}")
    fan_in = kernel.size // kernel.shape[-1]
    wide = at_least_float32(kernel, "weight_standardize")
    centered, variance = _moments(wide, tuple(range(kernel.ndim - 1)))
    unit_sum = centered * lax.rsqrt(jnp.maximum(fan_in * variance, epsilon))
    if gain is None:
        return (unit_sum * fan_in**0.5).astype(kernel.dtype)
    factors = jnp.asarray(gain, wide.dtype)
    if factors.shape not in ((), kernel.shape[-1:]):
        raise ValueError(f"gain must be a number or of shape {kernel.shape[-1:]}, got shape {factors.shape}")
    return (unit_sum * factors.reshape((1,) * (kernel.ndim - 1) + (-1,))).astype(kernel.dtype)


def _moments(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Return x - mean and the variance over `axes`, which stay with size 1."""
    centered = x - x.mean(axes, keepdims=True)
    return centered, jnp.square(centered).mean(axes, keepdims=True)


def _standardize(x: jax.Array, axes: tuple[int, ...], epsilon: float) -> jax.Array:
    centered, variance = _moments(x, axes)
    return centered * lax.rsqrt(variance + epsilon)


def _batch_statistics(x: jax.Array, axis_name: Any) -> Statistics:
    axes = tuple(range(x.ndim - 1))
    mean = _synchronized(x.mean(axes), axis_name)
    deviations = x - _per_channel(mean, x)
    return mean, _synchronized(jnp.square(deviations).mean(axes), axis_name)


def _synchronized(statistic: jax.Array, axis_name: Any) -> jax.Array:
    return statistic if axis_name is None else lax.pmean(statistic, axis_name)


def _count(x: jax.Array, axis_name: Any) -> int:
    """Return the number of values per channel, over all shards."""
    local = x.size // x.shape[-1]
    return local if axis_name is None else local * lax.psum(1, axis_name)


def _updated(
    running: Statistics, batch: Statistics, count: int, momentum: float | jax.Array, unbiased: bool
) -> Statistics:
    mean, variance = batch
    if unbiased and count < 2:
        raise ValueError(
            "the unbiased variance takes two values per channel or more, got one: "
            "use a larger batch or unbiased=False"
        )
    if unbiased:
        variance = variance * (count / (count - 1))

    def blend(old: jax.Array, new: jax.Array) -> jax.Array:
        return (momentum * old.astype(new.dtype) + (1 - momentum) * new).astype(old.dtype)

    return blend(running[0], mean), blend(running[1], variance)


def _affine(y: jax.Array, scale: jax.Array | None, bias: jax.Array | None) -> jax.Array:
    if scale is not None:
        y = y * _per_channel(scale, y)
    return y if bias is None else y + _per_channel(bias, y)


def _per_channel(values: jax.Array, x: jax.Array) -> jax.Array:
    """Return `values` (channels,) in the type and rank of `x`."""
    return values.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def _checked(x: jax.Array, name: str, **per_channel: jax.Array | None) -> jax.Array:
    """Return `x` in float32 or wider, after the checks that all functions here share."""
    if x.ndim < 2:
        raise ValueError(f"{name} takes x (batch, *spatial, channels) of rank 2 or more, got shape {x.shape}")
    for label, values in per_channel.items():
        if values is not None and values.shape != x.shape[-1:]:
            raise ValueError(
                f"{name}: {label} must have shape {x.shape[-1:]}, one value per channel; got {values.shape}"
            )
    return at_least_float32(x, name)


def _example_axes(axes: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    if axes is None:
        return tuple(range(1, rank))
    given = (axes,) if isinstance(axes, int) else tuple(axes)
    positive = tuple(axis + rank if axis < 0 else axis for axis in given)
    if not positive or len(set(positive)) < len(positive) or not all(0 < axis < rank for axis in positive):
        raise ValueError(
            f"axes must be different axes from 1 to {rank - 1} (or -1 to {1 - rank}), "
            f"without the batch; got {axes}"
        )
    return positive
