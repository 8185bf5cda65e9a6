"""Convolutions in one, two and three dimensions, whose gradients stay fast inside loops and in groups.

Every function takes `x` of shape `(batch, *spatial, channels)`; the rank of the kernel says how many spatial axes
there are. The public functions check their arguments and pad; `cnnjax.functional.lowering` holds the arithmetic.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.functional.dtypes import widen
from cnnjax.functional.lowering import Geometry, contract
from cnnjax.functional.padding import (
    Padding,
    check_window_fits,
    pad_circular,
    per_axis,
    resolve_padding,
)


def conv(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """Cross-correlation, which deep learning calls convolution (`convolve` flips the kernel).

    y[n, i, o] = bias[o] + sum over offsets k and input channels c of x[n, i * stride + k * dilation, c] kernel[k, c, o]

    Args:
      x: `(batch, *spatial, in_channels)`.
      kernel: `(*spatial, in_channels // groups, out_channels)`; its rank is that of `x`.
      bias: `(out_channels,)`.
      stride: step between windows, one for all axes or one for each.
      padding: "VALID" (none), "SAME" (output size = ceil(input size / stride)), "FULL" (every partial overlap), "CIRCULAR"
        (as SAME, wrapped around), an int for every side, or a (low, high) pair for each spatial axis.
      dilation: step between the taps of the kernel (Yu & Koltun 2016).
      groups: number of groups of channels that do not see each other (Krizhevsky 2012). On CPU NaN or infinity in one
        group can still make others NaN, because narrow groups are merged.
      precision: of the products, as in `jax.lax`; None is the platform's default (below float32 on GPU and TPU).

    Returns:
      `(batch, *output spatial, out_channels)` in the type of `x`.

    Raises:
      TypeError: `x`, `kernel` and `bias` differ in type.
      ValueError: ranks, channels or groups do not fit, or the kernel is empty or larger than the padded input.
    """
    _check_operands(x, kernel, bias, groups)
    spatial, window = x.shape[1:-1], kernel.shape[:-2]
    stride = per_axis(stride, len(window), "stride")
    dilation = per_axis(dilation, len(window), "dilation")
    pads = resolve_padding(padding, spatial, window, stride=stride, dilation=dilation)
    check_window_fits(spatial, pads, window, dilation, name="kernel")
    if isinstance(padding, str) and padding.upper() == "CIRCULAR":
        x, pads = pad_circular(x, pads), ((0, 0),) * len(window)
    geometry = Geometry(stride=stride, padding=pads, dilation=dilation, groups=groups, precision=precision)
    return _add_bias(contract(x, kernel, geometry), bias)


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """The convolution of signal processing: `conv` with the kernel flipped along its spatial axes.

    Takes, returns and raises what `conv` does. With "FULL" padding and one channel it equals `numpy.convolve`.
    """
    flipped = jnp.flip(kernel, tuple(range(kernel.ndim - 2)))
    return conv(
        x,
        flipped,
        bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        precision=precision,
    )


def depthwise_conv(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """One filter (or several) for each channel: `conv` with as many groups as input channels (Chollet 2017).

    Args:
      x: `(batch, *spatial, channels)`.
      kernel: `(*spatial, 1, channels * multiplier)`; output channel `c * multiplier + m` is the m-th filter of channel c.
      bias: `(channels * multiplier,)`.
      stride, padding, dilation, precision: as in `conv`.

    Returns:
      `(batch, *output spatial, channels * multiplier)`.

    Raises:
      ValueError: the last axis but one of `kernel` is not 1.
      TypeError, ValueError: as `conv`.
    """
    if kernel.shape[-2:-1] != (1,):
        raise ValueError(
            "a depthwise kernel has shape (*window, 1, channels * multiplier), "
            f"here with {x.shape[-1]} channels; got {kernel.shape}"
        )
    return conv(
        x,
        kernel,
        bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=x.shape[-1],
        precision=precision,
    )


def separable_conv(
    x: jax.Array,
    depthwise_kernel: jax.Array,
    pointwise_kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """A depthwise convolution, then a 1x1 convolution that mixes the channels (Chollet 2017, section 1.2).

    Args:
      x: `(batch, *spatial, in_channels)`.
      depthwise_kernel: `(*spatial, 1, in_channels * multiplier)`.
      pointwise_kernel: `(*ones, in_channels * multiplier, out_channels)`.
      bias: `(out_channels,)`, added after the pointwise part.
      stride, padding, dilation: of the depthwise part, as in `conv`.
      precision: of both parts.

    Returns:
      `(batch, *output spatial, out_channels)`.

    Raises:
      ValueError: the pointwise kernel's window is not one in every axis.
      TypeError, ValueError: as `depthwise_conv` and `conv`.
    """
    if any(size != 1 for size in pointwise_kernel.shape[:-2]):
        raise ValueError(
            "a pointwise kernel has shape (1, ..., 1, in_channels, out_channels); "
            f"this one has {pointwise_kernel.shape}"
        )
    mixed = depthwise_conv(
        x, depthwise_kernel, stride=stride, padding=padding, dilation=dilation, precision=precision
    )
    return conv(mixed, pointwise_kernel, bias, padding="VALID", precision=precision)


def conv_transpose(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """The transpose of `conv` as a linear map (Dumoulin & Visin 2016, section 4), for upsampling.

    With `swapped` the kernel whose last two axes are exchanged, <conv(y, swapped, ...), x> = <y, conv_transpose(x,
    kernel, ...)> for every y of the output's shape; stride, padding and dilation are those of that `conv`.

    Args:
      x: `(batch, *spatial, in_channels)`.
      kernel: `(*spatial, in_channels, out_channels)`.
      bias: `(out_channels,)`.
      stride: factor of upsampling.
      padding: "SAME" (output size = input size * stride), "VALID" (output size = (input size - 1) * stride + effective
        window), an int or pairs, which crop the VALID output on each side.
      dilation: step between the taps of the kernel.
      precision: as in `conv`.

    Returns:
      `(batch, *output spatial, out_channels)`.

    Raises:
      TypeError, ValueError: as `conv`; also for "FULL" and "CIRCULAR", which have no transpose here, and for crops
        larger than the output.
    """
    _check_operands(x, kernel, bias, 1)
    if isinstance(padding, str) and padding.upper() not in ("SAME", "VALID"):
        raise ValueError(f"conv_transpose takes SAME or VALID padding, an int or pairs; got {padding!r}")
    spatial, window = x.shape[1:-1], kernel.shape[:-2]
    stride = per_axis(stride, len(window), "stride")
    dilation = per_axis(dilation, len(window), "dilation")
    upsampled = tuple(n * s for n, s in zip(spatial, stride, strict=True))
    crops = resolve_padding(padding, upsampled, window, stride=stride, dilation=dilation)
    reach = [(k - 1) * d for k, d in zip(window, dilation, strict=True)]
    full = [(n - 1) * s + r + 1 for n, s, r in zip(spatial, stride, reach, strict=True)]
    # SAME when the stride is larger than the window: the transpose writes zeros that VALID does not reach.
    crops_to_same = isinstance(padding, str) and padding.upper() == "SAME"
    missing = [max(m - f, 0) if crops_to_same else 0 for m, f in zip(upsampled, full, strict=True)]
    if any(sum(crop) >= f + m for crop, f, m in zip(crops, full, missing, strict=True)):
        raise ValueError(
            f"padding {padding!r} crops all of the transposed output of size {tuple(full)}; use less"
        )
    pads = tuple((r - lo, r - hi + m) for r, (lo, hi), m in zip(reach, crops, missing, strict=True))
    flipped = jnp.flip(kernel, tuple(range(len(window))))
    geometry = Geometry(
        stride=(1,) * len(window), padding=pads, dilation=dilation, upsampling=stride, precision=precision
    )
    return _add_bias(contract(x, flipped, geometry), bias)


def _add_bias(y: jax.Array, bias: jax.Array | None) -> jax.Array:
    if bias is None:
        return y
    # The gradient of the bias is a sum over all positions.
    return (widen(y) + widen(bias).reshape((1,) * (y.ndim - 1) + (-1,))).astype(y.dtype)


def _check_operands(x: jax.Array, kernel: jax.Array, bias: jax.Array | None, groups: int) -> None:
    if kernel.ndim != x.ndim or not 3 <= x.ndim <= 5:
        raise ValueError(
            "conv takes x (batch, *spatial, channels) and a kernel (*spatial, in_channels // groups, out_channels) "
            f"of the same rank, 3 to 5; got x of shape {x.shape} and a kernel of shape {kernel.shape}"
        )
    if 0 in kernel.shape[:-2]:
        raise ValueError(f"a kernel's window must be at least 1 along every axis; got shape {kernel.shape}")
    if x.dtype != kernel.dtype:
        raise TypeError(
            f"x and kernel must have one type; got {x.dtype} and {kernel.dtype}: cast one of them"
        )
    if bias is not None and bias.dtype != x.dtype:
        raise TypeError(f"x and bias must have one type; got {x.dtype} and {bias.dtype}: cast one of them")
    channels, (fan, features) = x.shape[-1], kernel.shape[-2:]
    if groups < 1 or channels % groups or features % groups:
        raise ValueError(
            f"channels must divide into groups: {channels} input and {features} output channels do not divide into {groups}"
        )
    if fan * groups != channels:
        raise ValueError(
            f"a kernel of shape {kernel.shape} with groups={groups} takes {fan * groups} input channels; "
            f"x has {channels} (shape {x.shape})"
        )
    if bias is not None and bias.shape != (features,):
        raise ValueError(
            f"bias must have shape ({features},), one number an output channel; got {bias.shape}"
        )
