"""MobileNetV3 (Howard et al. 2019): inverted residuals with squeeze-and-excite and hard-swish."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax

from cnnjax import functional as F
from cnnjax.models.base import Variant
from cnnjax.models.scaled import Scaled, check_rows, round_channels
from cnnjax.nn import Activation, InvertedResidual, Layer, SqueezeExcite, Stack


class Block(NamedTuple):
    """A row "bneck" of tables 1 and 2: the window, exp size, #out, SE, NL and s."""

    window: int
    expanded: int
    channels: int
    squeeze: bool
    activation: str
    stride: int


_RE, _HS = "relu", "hard_swish"
LARGE = (
    Block(3, 16, 16, False, _RE, 1),
    Block(3, 64, 24, False, _RE, 2),
    Block(3, 72, 24, False, _RE, 1),
    Block(5, 72, 40, True, _RE, 2),
    Block(5, 120, 40, True, _RE, 1),
    Block(5, 120, 40, True, _RE, 1),
    Block(3, 240, 80, False, _HS, 2),
    Block(3, 200, 80, False, _HS, 1),
    Block(3, 184, 80, False, _HS, 1),
    Block(3, 184, 80, False, _HS, 1),
    Block(3, 480, 112, True, _HS, 1),
    Block(3, 672, 112, True, _HS, 1),
    Block(5, 672, 160, True, _HS, 2),
    Block(5, 960, 160, True, _HS, 1),
    Block(5, 960, 160, True, _HS, 1),
)
SMALL = (
    Block(3, 16, 16, True, _RE, 2),
    Block(3, 72, 24, False, _RE, 2),
    Block(3, 88, 24, False, _RE, 1),
    Block(5, 96, 40, True, _HS, 2),
    Block(5, 240, 40, True, _HS, 1),
    Block(5, 240, 40, True, _HS, 1),
    Block(5, 120, 48, True, _HS, 1),
    Block(5, 144, 48, True, _HS, 1),
    Block(5, 288, 96, True, _HS, 2),
    Block(5, 576, 96, True, _HS, 1),
    Block(5, 576, 96, True, _HS, 1),
)


class MobileNetV3(Scaled, kw_only=True):
    """A 3x3 convolution, the blocks of a table, a 1x1 convolution, pooling, a dense layer and a head.

    Three parts of the design stay what they are: blocks end without activation; the gates of squeeze-and-excite are
    hard-sigmoids; and they and the dense layer in front of the head have biases in the place of a norm ("NBN" in the
    tables). The paper does not say how weights start; `initializer` is the package's default, he_normal.

    Block i of the table is "block<i>"; identical ones that follow each other are one stack with the name of the first.

    Attributes:
      activation: of all layers; None for the tables', ReLU in the first blocks and hard-swish everywhere else.
      norm_epsilon, norm_momentum: those of the authors' code.
      width_multiplier: 0.35, 0.5, 0.75, 1 and 1.25 in the paper.
      blocks: rows (window, expanded, channels, squeeze, activation, stride).
      dense_width: channels of the dense layer in front of the head, before scaling.
      skip: whether the shortcuts are there; without parameters, between blocks' ends of the same shape.
    """

    activation: str | F.Activation | None = None
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.99
    dropout: float = 0.2
    blocks: Sequence[Block] = LARGE
    dense_width: int = 1280
    skip: bool = True

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        check_rows("blocks", self.blocks, Block)
        super().check()

    @nn.nowrap
    def _activations(self) -> Sequence[str | F.Activation]:
        return [self._chosen(name) for name in (_HS, *(Block._make(row).activation for row in self.blocks))]

    @nn.nowrap
    def _chosen(self, of_table: str) -> str | F.Activation:
        return of_table if self.activation is None else self.activation

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, height, width, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        activation = self._chosen(_HS)
        x = self._stem(x, 16, activation=activation, train=train)
        x = self._body(x, train)
        x = self._conv_layer(6 * x.shape[-1], 1, activation=activation, name="last")(x, train=train)
        linear = functools.partial(self._dense, self._channels(self.dense_width), activation=activation)
        dense = Layer(linear, None, functools.partial(Activation, activation), name="dense")
        return self._classified(dense(F.global_avg_pool(x)), train=train)

    def _body(self, x: jax.Array, train: bool) -> jax.Array:
        rows = enumerate(map(Block._make, self.blocks), 1)
        for row, same in itertools.groupby(rows, key=lambda pair: pair[1]):
            block, indices = self._block(row), [index for index, _ in same]
            stays = row.stride == 1 and self._channels(row.channels) == x.shape[-1]
            if stays and len(indices) > 1:
                stack = Stack(
                    block, len(indices), scan=self.scan, remat=self.remat, name=f"block{indices[0]}"
                )
                x = stack(x, train=train)
            else:
                for index in indices:
                    x = block(name=f"block{index}")(x, train=train)
        return x

    @nn.nowrap
    def _block(self, row: Block) -> Callable[..., nn.Module]:
        activation, expanded = self._chosen(row.activation), self._channels(row.expanded)
        return functools.partial(
            InvertedResidual,
            self._channels(row.channels),
            expanded,
            row.window,
            row.stride,
            skip=self.skip,
            depthwise=functools.partial(self._depthwise, activation=activation),
            squeeze=self._squeeze(round_channels(expanded // 4)) if row.squeeze else None,
            **self._parts(activation),
        )

    @nn.nowrap
    def _squeeze(self, channels: int) -> Callable[..., nn.Module]:
        inner = self._chosen(_RE)
        conv = functools.partial(self._conv, activation=inner)
        act = functools.partial(Activation, inner)
        return functools.partial(SqueezeExcite, channels, conv=conv, act=act, gate=F.HARD_SIGMOID)


_PAPER = "Howard et al. 2019, arXiv:1905.02244"
VARIANTS = {
    "mobilenet_v3_large": Variant(MobileNetV3, {}, image=(224, 224, 3), paper=_PAPER),
    "mobilenet_v3_small": Variant(
        MobileNetV3, {"blocks": SMALL, "dense_width": 1024}, image=(224, 224, 3), paper=_PAPER
    ),
}
