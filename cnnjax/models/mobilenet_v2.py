"""MobileNetV2 (Sandler et al. 2018): inverted residuals and linear bottlenecks; 3,504,872 parameters."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax

from cnnjax import functional as F
from cnnjax.models.base import Variant
from cnnjax.models.scaled import Scaled, check_rows
from cnnjax.nn import InvertedResidual


class Stage(NamedTuple):
    """A row of table 2: t, c, n and s."""

    expansion: int
    channels: int
    blocks: int
    stride: int


STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)


class MobileNetV2(Scaled, kw_only=True):
    """A 3x3 convolution, 17 inverted residual blocks, a 1x1 convolution, pooling and a head.

    Blocks end without activation, whatever `activation` is: linear bottlenecks are what the paper is about. It does not
    say how weights start; `initializer` is the package's default, he_normal. The dropout is that of the authors' code.

    Attributes:
      width_multiplier: below 1 it leaves the channels of the last convolution as they are.
      stages: rows (expansion, channels, blocks, stride), the stride that of the first block.
      skip: whether the shortcuts are there; without parameters, between blocks' ends of the same shape.
    """

    activation: str | F.Activation = "relu6"
    dropout: float = 0.2
    stages: Sequence[Stage] = STAGES
    skip: bool = True

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_rows("stages", self.stages, Stage)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, height, width, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        x = self._stem(x, 32, train=train)
        for index, stage in enumerate(map(Stage._make, self.stages), 1):
            x = self._stage(
                x,
                functools.partial(self._block, stage),
                name=f"stage{index}",
                blocks=stage.blocks,
                stride=stage.stride,
                train=train,
            )
        last = max(self._channels(1280), 1280)
        x = self._conv_layer(last, 1, name="last")(x, train=train)
        return self._classified(F.global_avg_pool(x), train=train)

    @nn.nowrap
    def _block(self, stage: Stage, in_channels: int) -> Callable[..., nn.Module]:
        return functools.partial(
            InvertedResidual,
            self._channels(stage.channels),
            stage.expansion * in_channels,
            skip=self.skip,
            depthwise=self._depthwise,
            **self._parts(),
        )


VARIANTS = {
    "mobilenet_v2": Variant(
        MobileNetV2, {}, image=(224, 224, 3), paper="Sandler et al. 2018, arXiv:1801.04381"
    )
}
