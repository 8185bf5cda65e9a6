"""Padding and window arithmetic that convolution and pooling share, in plain integers."""

from collections.abc import Sequence
from numbers import Integral
from typing import TypeGuard

import jax
import jax.numpy as jnp

Padding = str | int | Sequence[Sequence[int]]
Pairs = tuple[tuple[int, int], ...]

_ACCEPTED = "'VALID', 'SAME', 'FULL', 'CIRCULAR', an int, or one (low, high) pair per spatial axis"


def per_axis(value: int | Sequence[int], rank: int, name: str) -> tuple[int, ...]:
    """Return `value` as a tuple of `rank` positive integers; an integer counts for every axis.

    Raises TypeError for anything but integers, ValueError for a wrong length or an integer below 1.
    """
    entries = (value,) * rank if _is_integer(value) else value
    if not isinstance(entries, Sequence) or not all(map(_is_integer, entries)):
        raise TypeError(f"{name} must be an int or a sequence of {rank} ints, got {value!r}")
    if len(entries) != rank:
        raise ValueError(f"{name} must have one entry per spatial axis ({rank}), got {value!r}")
    if any(entry < 1 for entry in entries):
        raise ValueError(f"{name} must be positive, got {value!r}")
    return tuple(int(entry) for entry in entries)


def resolve_padding(
    padding: Padding,
    spatial: Sequence[int],
    window: Sequence[int],
    *,
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Pairs:
    """Return the padding amounts (low, high) of each spatial axis.

    - "VALID": none.
    - "SAME": the output has ceil(size / stride) entries; of an odd amount the high end gets one more (the
      convention of XLA and TensorFlow: stride 2 on an even size with a window of 3 pads (0, 1)).
    - "FULL": every overlap of window and input counts, effective window - 1 on both sides.
    - "CIRCULAR": amounts as for "SAME"; the caller wraps (`pad_circular`) instead of filling in zeros.
    - an int: that much on every side; pairs: as they are.

    Strings may be in lower case. `spatial`, `window`, `stride`, `dilation` have one entry per spatial axis.
    Raises TypeError or ValueError for any other padding.
    """
    axes = list(zip(spatial, window, stride, dilation, strict=True))
    if isinstance(padding, str):
        if padding.upper() not in _NAMED:
            raise ValueError(f"unknown padding {padding!r}: use {_ACCEPTED}")
        rule = _NAMED[padding.upper()]
        return tuple(rule(size, effective_window(w, d), s) for size, w, s, d in axes)
    return _explicit_padding(padding, rank=len(axes))


def effective_window(window: int, dilation: int) -> int:
    """Return the extent of a dilated window: (window - 1) * dilation + 1."""
    return (window - 1) * dilation + 1


def check_window_fits(
    spatial: Sequence[int],
    padding: Pairs,
    window: Sequence[int],
    dilation: Sequence[int],
    *,
    name: str = "kernel",
) -> None:
    """Raise ValueError where the dilated window, called `name`, is larger than the padded input."""
    for axis, (size, (low, high), w, d) in enumerate(zip(spatial, padding, window, dilation, strict=True)):
        extent, padded = effective_window(w, d), low + size + high
        if extent > padded:
            raise ValueError(
                f"{name} larger than the padded input along spatial axis {axis}: {name} size {w} with "
                f"dilation {d} spans {extent}, input size {size} with padding ({low}, {high}) is {padded}. "
                f"Use a smaller {name}, less dilation or more padding"
            )


def pad_circular(x: jax.Array, pairs: Pairs) -> jax.Array:
    """Return `x` (batch, *spatial, channels) with its spatial axes continued periodically.

    Raises ValueError if there is not one pair per spatial axis or a pad is larger than its axis.
    """
    spatial = x.shape[1:-1]
    if len(pairs) != len(spatial):
        raise ValueError(f"expected one (low, high) pair per spatial axis ({len(spatial)}), got {pairs}")
    for axis, (size, pair) in enumerate(zip(spatial, pairs, strict=True)):
        if max(pair) > size:
            raise ValueError(
                f"circular padding {pair} exceeds the size {size} of spatial axis {axis}: "
                "use a smaller kernel, less dilation or a larger input"
            )
    return jnp.pad(x, ((0, 0), *pairs, (0, 0)), mode="wrap")


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _valid(size: int, extent: int, stride: int) -> tuple[int, int]:
    return 0, 0


def _same(size: int, extent: int, stride: int) -> tuple[int, int]:
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + extent - size, 0)
    return total // 2, total - total // 2


def _full(size: int, extent: int, stride: int) -> tuple[int, int]:
    return extent - 1, extent - 1


_NAMED = {"VALID": _valid, "SAME": _same, "FULL": _full, "CIRCULAR": _same}


def _explicit_padding(padding: int | Sequence[Sequence[int]], rank: int) -> Pairs:
    pairs = ((padding, padding),) * rank if _is_integer(padding) else padding
    if not isinstance(pairs, Sequence) or not all(map(_is_pair, pairs)):
        raise TypeError(f"padding must be {_ACCEPTED}, got {padding!r}")
    if len(pairs) != rank:
        raise ValueError(f"padding must have one pair per spatial axis ({rank}), got {padding!r}")
    if any(amount < 0 for pair in pairs for amount in pair):
        raise ValueError(f"padding must not be negative, got {padding!r}")
    return tuple((int(low), int(high)) for low, high in pairs)


def _is_pair(value: object) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(map(_is_integer, value))
