"""EfficientNet (Tan & Le 2019), scaled in width, depth and resolution at once, and EfficientNetV2-S (Tan & Le 2021)."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax

from cnnjax import functional as F
from cnnjax.models.base import Variant, check_rate
from cnnjax.models.scaled import Scaled, check_factor, check_rows, round_channels
from cnnjax.nn import FusedInvertedResidual, InvertedResidual, SqueezeExcite


class Stage(NamedTuple):
    """A row of table 1 of either paper; `fused` tells Fused-MBConv from MBConv."""

    fused: bool
    expansion: int
    window: int
    stride: int
    channels: int
    blocks: int


B0 = (
    Stage(False, 1, 3, 1, 16, 1),
    Stage(False, 6, 3, 2, 24, 2),
    Stage(False, 6, 5, 2, 40, 2),
    Stage(False, 6, 3, 2, 80, 3),
    Stage(False, 6, 5, 1, 112, 3),
    Stage(False, 6, 5, 2, 192, 4),
    Stage(False, 6, 3, 1, 320, 1),
)
V2_S = (
    Stage(True, 1, 3, 1, 24, 2),
    Stage(True, 4, 3, 2, 48, 4),
    Stage(True, 4, 3, 2, 64, 4),
    Stage(False, 4, 3, 2, 128, 6),
    Stage(False, 6, 3, 1, 160, 9),
    Stage(False, 6, 3, 2, 256, 15),
)


class EfficientNet(Scaled, kw_only=True):
    """A 3x3 convolution, stages of inverted residual blocks with squeeze-and-excite, a 1x1 convolution and a head.

    Two parts of the design stay what they are: blocks end without activation, and the gates of squeeze-and-excite are
    sigmoids; these have biases in the place of a norm. The papers do not say how weights start; `initializer` is the
    package's default, he_normal.

    Attributes:
      depth_multiplier: factor on the number of blocks of each stage, rounded up.
      stages: rows (fused, expansion, window, stride, channels, blocks), the stride that of the first block. Fused blocks
        have no squeeze-and-excite.
      stem_width, last_width: channels of the first and last convolution, before scaling.
      drop_path: stochastic depth: block i of n, counted from 0, loses its branch at the rate drop_path * i / n, if it has
        a shortcut.
      skip: whether the shortcuts are there; without parameters, between blocks' ends of the same shape.
    """

    activation: str | F.Activation = "silu"
    dropout: float = 0.2
    depth_multiplier: float = 1.0
    stages: Sequence[Stage] = B0
    stem_width: int = 32
    last_width: int = 1280
    drop_path: float = 0.2
    skip: bool = True

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_factor("depth_multiplier", self.depth_multiplier)
        check_rate("drop_path", self.drop_path)
        check_rows("stages", self.stages, Stage)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, height, width, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        x = self._stem(x, self.stem_width, train=train)
        for index, (stage, rates) in enumerate(self._scaled_stages(), 1):
            x = self._stage(
                x,
                functools.partial(self._block, stage),
                name=f"stage{index}",
                blocks=stage.blocks,
                stride=stage.stride,
                rates=rates if train and self.drop_path else None,
                train=train,
            )
        x = self._conv_layer(self._channels(self.last_width), 1, name="last")(x, train=train)
        return self._classified(F.global_avg_pool(x), train=train)

    @nn.nowrap
    def _scaled_stages(self) -> Iterator[tuple[Stage, list[float]]]:
        """The stages with their blocks counted, and the rate of each block."""
        stages = [Stage._make(row) for row in self.stages]
        counts = [math.ceil(stage.blocks * self.depth_multiplier) for stage in stages]
        total, before = sum(counts), 0
        for stage, blocks in zip(stages, counts, strict=True):
            rates = [self.drop_path * i / total for i in range(before, before + blocks)]
            yield stage._replace(channels=self._channels(stage.channels), blocks=blocks), rates
            before += blocks

    @nn.nowrap
    def _block(self, stage: Stage, in_channels: int) -> Callable[..., nn.Module]:
        expanded = round_channels(in_channels * stage.expansion)
        options = dict(skip=self.skip, **self._parts())
        if stage.fused:
            return functools.partial(FusedInvertedResidual, stage.channels, expanded, stage.window, **options)
        squeeze = functools.partial(SqueezeExcite, max(in_channels // 4, 1), conv=self._conv, act=self._act)
        return functools.partial(
            InvertedResidual,
            stage.channels,
            expanded,
            stage.window,
            depthwise=self._depthwise,
            squeeze=squeeze,
            **options,
        )


_PAPER = "Tan & Le 2019, arXiv:1905.11946"
_NORM = dict(norm_epsilon=1e-3, norm_momentum=0.99)
# Width, depth, dropout, resolution and norms of torchvision: the authors' b2 has 260 pixels, and all of theirs _NORM.
_SCALES: dict[str, tuple[float, float, float, int, dict[str, float]]] = {
    "b0": (1.0, 1.0, 0.2, 224, {}),
    "b1": (1.0, 1.1, 0.2, 240, {}),
    "b2": (1.1, 1.2, 0.3, 288, {}),
    "b3": (1.2, 1.4, 0.3, 300, {}),
    "b4": (1.4, 1.8, 0.4, 380, {}),
    "b5": (1.6, 2.2, 0.4, 456, _NORM),
    "b6": (1.8, 2.6, 0.5, 528, _NORM),
    "b7": (2.0, 3.1, 0.5, 600, _NORM),
}
VARIANTS = {
    **{
        f"efficientnet_{name}": Variant(
            EfficientNet,
            dict(width_multiplier=width, depth_multiplier=depth, dropout=dropout, **options),
            image=(size, size, 3),
            paper=_PAPER,
        )
        for name, (width, depth, dropout, size, options) in _SCALES.items()
    },
    "efficientnet_v2_s": Variant(
        EfficientNet,
        dict(stages=V2_S, stem_width=24, norm_epsilon=1e-3),
        image=(384, 384, 3),
        paper="Tan & Le 2021, arXiv:2104.00298",
    ),
}
