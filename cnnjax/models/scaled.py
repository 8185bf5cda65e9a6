"""What the MobileNets and EfficientNets have in common: a width multiplier, and stages that are rows of a table."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax

from cnnjax import functional as F
from cnnjax.models.base import Model, check_choice, check_rate, is_integer
from cnnjax.nn import Dropout, Stack

STEMS: Mapping[str, int] = MappingProxyType({"imagenet": 2, "cifar": 1})
"""Stride of the first convolution."""


def round_channels(channels: float, *, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, or the next one where that is less than nine tenths of them.

    It comes from the code of Sandler et al. 2018; every later MobileNet and EfficientNet rounds in this way.
    """
    rounded = max(divisor, math.floor(channels / divisor + 0.5) * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


class Scaled(Model, kw_only=True):
    """A network of stages whose numbers of channels are scaled by one factor.

    Attributes:
      width_multiplier: factor on all numbers of channels, which are then rounded to multiples of 8.
      stem: "imagenet", a first convolution of stride 2, or "cifar", one of stride 1 for images of 32x32.
      dropout: rate in front of the head.
      scan: False writes the blocks out instead of scanning over the identical ones of each stage.
      remat: recompute activations in the backward pass (see `nn.Stack`).
    """

    num_classes: int = 1000
    norm: str | Callable[..., nn.Module] | None = "batch"
    width_multiplier: float = 1.0
    stem: str = "imagenet"
    dropout: float = 0.0
    scan: bool = True
    remat: bool = False

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_factor("width_multiplier", self.width_multiplier)
        check_choice("stem", self.stem, STEMS)
        check_rate("dropout", self.dropout)

    @nn.nowrap
    def _channels(self, channels: int) -> int:
        return round_channels(channels * self.width_multiplier)

    @nn.nowrap
    def _parts(self, activation: str | F.Activation | None = None) -> dict[str, Any]:
        """The parts of an inverted residual block; `activation` is the model's by default."""
        return dict(
            conv=functools.partial(self._symmetric_conv, activation=activation),
            last_conv=functools.partial(self._conv, activation="identity"),
            norm=self._norm(),
            act=self._act_of(activation),
        )

    def _stem(self, x: jax.Array, channels: int, *, train: bool, **options: Any) -> jax.Array:
        stride = STEMS[self.stem]
        stem = self._conv_layer(self._channels(channels), 3, stride, padding=1, name="stem", **options)
        return stem(x, train=train)

    def _stage(
        self,
        x: jax.Array,
        make: Callable[[int], Callable[..., nn.Module]],
        *,
        name: str,
        blocks: int,
        stride: int,
        train: bool,
        rates: Sequence[float] | None = None,
    ) -> jax.Array:
        """The first block, which changes the shape, and a stack of those behind it.

        `make` takes the number of channels in front of a block; `rates` are those of the blocks (see `nn.Stack`).
        """
        rate = {} if rates is None else {"rate": rates[0]}
        x = make(x.shape[-1])(stride=stride, name=f"{name}_first")(x, **rate, train=train)
        rest = None if rates is None else rates[1:]
        stack = Stack(make(x.shape[-1]), blocks - 1, rates=rest, scan=self.scan, remat=self.remat, name=name)
        return stack(x, train=train)

    def _classified(self, features: jax.Array, *, train: bool) -> jax.Array:
        """The logits of features `(batch, channels)`."""
        return self._head(Dropout(self.dropout, name="dropout")(features, train=train))


def check_factor(name: str, factor: float) -> None:
    """Raises ValueError unless `factor` is a positive number."""
    if isinstance(factor, bool) or not isinstance(factor, Real) or not 0 < factor < math.inf:
        raise ValueError(f"{name} is a factor and must be a positive number; got {factor!r}")


def check_rows(name: str, rows: object, kind: type[tuple]) -> None:
    """Raises ValueError unless `rows` are those of a table of the named tuple `kind`, whose integers are positive."""
    types = kind.__annotations__
    if not isinstance(rows, Sequence) or not all(_fits(row, tuple(types.values())) for row in rows):
        fields = ", ".join(f"{field}: {type_.__name__}" for field, type_ in types.items())
        raise ValueError(f"{name} must be a sequence of ({fields}), integers positive; got {rows!r}")


def _fits(row: object, types: Sequence[type]) -> bool:
    if not isinstance(row, Sequence) or len(row) != len(types):
        return False
    pairs = zip(row, types, strict=True)
    return all(is_integer(v) and v > 0 if t is int else isinstance(v, t) for v, t in pairs)
