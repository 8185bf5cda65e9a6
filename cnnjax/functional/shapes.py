"""Sizes, receptive fields, parameters, arithmetic and memory of layers in plain integers: nothing is run.

A size is an int for one axis, or a tuple with one entry per spatial axis; other options may be an int for all
axes. Counts are for one example.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import jax

from cnnjax.functional.padding import (
    Padding,
    Pairs,
    check_window_fits,
    effective_window,
    per_axis,
    resolve_padding,
)

Axes = int | Sequence[int]
Size = TypeVar("Size", int, tuple[int, ...])


class WindowLayer(NamedTuple):
    """A convolution or pooling along one axis, as `receptive_field` takes it; a plain tuple does as well."""

    window: int
    stride: int = 1
    padding: Padding = "VALID"
    dilation: int = 1


class Layer(NamedTuple):
    """A convolution to `features` channels, as `flops` takes it; without features a pooling."""

    window: Axes
    features: int | None = None
    stride: Axes = 1
    padding: Padding = "VALID"
    dilation: Axes = 1
    groups: int = 1


@dataclass(frozen=True, kw_only=True)
class ReceptiveField:
    """What one unit of a layer sees along one axis.

    Attributes:
      size: entries of the input that reach the unit.
      jump: entries of the input between the centers of two neighboring units.
      start: index in the input of the center of the first unit (halfway between two for an even size).
    """

    size: int
    jump: int
    start: float


def output_size(
    size: Size, window: Axes, *, stride: Axes = 1, padding: Padding = "VALID", dilation: Axes = 1
) -> Size:
    """Return the size after a convolution or pooling, an int or a tuple as `size` is.

        floor((size + low + high - effective window) / stride) + 1

    where the effective window is (window - 1) dilation + 1 and the options are those of `conv`. Raises
    ValueError if the window is larger than the padded input or an option does not fit the axes.
    """
    sliding = _Sliding.of(size, window, stride, dilation)
    pads = sliding.pads(padding)
    check_window_fits(sliding.size, pads, sliding.window, sliding.dilation, name="window")
    rows = zip(sliding.size, pads, sliding.extents(), sliding.stride, strict=True)
    return _like(size, [(n + low + high - extent) // s + 1 for n, (low, high), extent, s in rows])


def transposed_output_size(
    size: Size, window: Axes, *, stride: Axes = 1, padding: Padding = "SAME", dilation: Axes = 1
) -> Size:
    """Return the size after `conv_transpose`, an int or a tuple as `size` is.

    "SAME": size * stride. Else (size - 1) stride + effective window - low - high, where "VALID" crops nothing
    (Dumoulin & Visin 2016, section 4). Raises ValueError if nothing is left, or for another named padding.
    """
    name = padding.upper() if isinstance(padding, str) else ""
    if name not in ("", "SAME", "VALID"):
        raise ValueError(
            f"a transposed convolution takes SAME or VALID padding, an int or pairs, got {padding!r}"
        )
    sliding = _Sliding.of(size, window, stride, dilation)
    if name == "SAME":
        return _like(size, [n * s for n, s in zip(sliding.size, sliding.stride, strict=True)])
    rows = zip(sliding.size, sliding.pads(padding), sliding.extents(), sliding.stride, strict=True)
    sizes = [(n - 1) * s + extent - low - high for n, (low, high), extent, s in rows]
    if min(sizes) < 1:
        raise ValueError(f"padding {padding!r} crops all of the output: its size would be {tuple(sizes)}")
    return _like(size, sizes)


def same_padding(size: Axes, window: Axes, *, stride: Axes = 1, dilation: Axes = 1) -> Pairs:
    """Return the (low, high) padding of each axis that makes the output ceil(size / stride).

    Of an odd amount the high end gets one more. The result can be passed on as `padding`. Raises TypeError or
    ValueError if an option is not made of positive integers or does not fit the axes.
    """
    return _Sliding.of(size, window, stride, dilation).pads("SAME")


def ceil_padding(size: Axes, window: Axes, *, stride: Axes = 1, padding: int = 0) -> Pairs:
    """Return the (low, high) padding of each axis with which a last window that reaches over the end counts, too.

    The output has ceil((size + 2 padding - window) / stride) + 1 entries, or one less where that last window would begin
    behind the input (Caffe's pooling; `ceil_mode` of torch). Raises TypeError or ValueError as `output_size` does.
    """
    sliding = _Sliding.of(size, window, stride, 1)
    pairs = []
    for n, w, s in zip(sliding.size, sliding.window, sliding.stride, strict=True):
        steps = -(-(n + 2 * padding - w) // s)
        if steps * s >= n + padding:
            steps -= 1
        pairs.append((padding, max(steps * s + w - n - padding, padding)))
    return tuple(pairs)


def receptive_field(layers: Iterable[tuple[Any, ...]], *, size: int | None = None) -> list[ReceptiveField]:
    """Return the receptive field of the input (1, 1, 0) and after each layer, along one axis.

        size  += (effective window - 1) jump
        start += ((effective window - 1) / 2 - low padding) jump
        jump  *= stride

    (Araujo et al. 2019, Computing receptive fields of convolutional neural networks.)

    Args:
      layers: (window, stride, padding, dilation) of each, from the input on; the last ones may be left out.
      size: of the input; only "SAME" and "CIRCULAR" padding with a stride depend on it.

    Raises ValueError if such a layer comes without `size`.
    """
    fields = [ReceptiveField(size=1, jump=1, start=0.0)]
    for layer in (WindowLayer(*record) for record in layers):
        before, reach = fields[-1], (layer.window - 1) * layer.dilation
        field = ReceptiveField(
            size=before.size + reach * before.jump,
            jump=before.jump * layer.stride,
            start=before.start + (reach / 2 - _low_padding(layer, size)) * before.jump,
        )
        fields.append(field)
        size = None if size is None else output_size(size, **layer._asdict())
    return fields


def conv_parameters(
    window: Axes, in_channels: int, out_channels: int, *, groups: int = 1, bias: bool = True
) -> int:
    """Return the number of weights (and biases) of a convolution; an int `window` has one axis.

    Raises ValueError if a size is below 1 or the channels do not divide into groups.
    """
    return _kernel_size(window, in_channels, out_channels, groups) + bias * out_channels


def dense_parameters(n_in: int, n_out: int, *, bias: bool = True) -> int:
    """Return the number of weights (and biases) of a dense layer. Raises ValueError if a size is below 1."""
    return _product(n_in, "n_in") * _product(n_out, "n_out") + bias * n_out


def parameter_count(tree: Any) -> int:
    """Return the number of entries in a pytree of arrays or `jax.ShapeDtypeStruct`s."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def conv_flops(output: Axes, window: Axes, in_channels: int, out_channels: int, *, groups: int = 1) -> int:
    """Return the floating-point operations of a convolution on one example, a multiply-add counted as 2.

    `output` is its spatial output size (of a transposed convolution: the input size). Products with padding
    count, the bias does not. Raises ValueError if a size is below 1 or the channels do not divide into groups.
    """
    return 2 * _product(output, "output") * _kernel_size(window, in_channels, out_channels, groups)


def dense_flops(n_in: int, n_out: int) -> int:
    """Return the floating-point operations of a dense layer on one example, a multiply-add counted as 2.

    Raises ValueError if a size is below 1.
    """
    return 2 * dense_parameters(n_in, n_out, bias=False)


def flops(layers: Iterable[tuple[Any, ...]], *, size: Size, channels: int) -> int:
    """Return the floating-point operations of a chain of layers on one example: the sum of their `conv_flops`.

    Args:
      layers: (window, features, stride, padding, dilation, groups) of each, from the input on; the last ones may
        be left out. Without features it is a pooling, which counts nothing; a dense layer is a convolution whose
        window is all that is left.
      size: of the input, an int for one axis.
      channels: of the input.

    Raises ValueError if a layer does not fit what comes out of the one before.
    """
    total = 0
    for layer in (Layer(*record) for record in layers):
        size = output_size(
            size, layer.window, stride=layer.stride, padding=layer.padding, dilation=layer.dilation
        )
        if layer.features is not None:
            window = per_axis(layer.window, len(_entries(size)), "window")
            total += conv_flops(size, window, channels, layer.features, groups=layer.groups)
            channels = layer.features
    return total


def activation_bytes(shapes: Iterable[Sequence[int]], *, itemsize: int = 4) -> int:
    """Return the memory of arrays of these shapes, all kept at once, at `itemsize` bytes an entry.

    Raises ValueError if a size is negative or `itemsize` is below 1.
    """
    return _product(itemsize, "itemsize") * sum(map(_array_size, shapes))


@dataclass(frozen=True, kw_only=True)
class _Sliding:
    """A window that slides over one or more axes, one entry per axis."""

    size: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]

    @classmethod
    def of(cls, size: Axes, window: Axes, stride: Axes, dilation: Axes) -> "_Sliding":
        rank = len(_entries(size))
        return cls(
            size=per_axis(size, rank, "size"),
            window=per_axis(window, rank, "window"),
            stride=per_axis(stride, rank, "stride"),
            dilation=per_axis(dilation, rank, "dilation"),
        )

    def pads(self, padding: Padding) -> Pairs:
        return resolve_padding(padding, self.size, self.window, stride=self.stride, dilation=self.dilation)

    def extents(self) -> list[int]:
        return [effective_window(w, d) for w, d in zip(self.window, self.dilation, strict=True)]


def _entries(value: Axes) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,)


def _product(value: Axes, name: str) -> int:
    return math.prod(per_axis(value, len(_entries(value)), name))


def _array_size(shape: Sequence[int]) -> int:
    if any(size < 0 for size in shape):
        raise ValueError(f"a shape has no negative sizes, got {tuple(shape)}")
    return math.prod(shape)


def _like(size: Size, sizes: Sequence[int]) -> Size:
    if isinstance(size, int):
        return sizes[0]
    return tuple(sizes)


def _low_padding(layer: WindowLayer, size: int | None) -> int:
    named = layer.padding.upper() if isinstance(layer.padding, str) else ""
    if size is None and layer.stride > 1 and named in ("SAME", "CIRCULAR"):
        raise ValueError(
            f"{named} padding with stride {layer.stride} depends on the size of the input: pass size="
        )
    # Otherwise it does not, and 1 stands for any size.
    sliding = _Sliding.of(size or 1, layer.window, layer.stride, layer.dilation)
    return sliding.pads(layer.padding)[0][0]


def _kernel_size(window: Axes, in_channels: int, out_channels: int, groups: int) -> int:
    if groups < 1 or in_channels % groups or out_channels % groups:
        raise ValueError(
            f"{in_channels} input and {out_channels} output channels do not divide into {groups} groups"
        )
    fan = _product(in_channels, "in_channels") // groups
    return _product(window, "window") * fan * _product(out_channels, "out_channels")
