"""MobileNet (Howard et al. 2017): every convolution but the first is depthwise, then 1x1; 4,231,976 parameters."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax

from cnnjax import functional as F
from cnnjax.models.base import Variant
from cnnjax.models.scaled import Scaled, check_rows
from cnnjax.nn import Layer


class Stage(NamedTuple):
    """A row of table 1, with the identical blocks behind it."""

    channels: int
    blocks: int
    stride: int


STAGES = (Stage(64, 1, 1), Stage(128, 2, 2), Stage(256, 2, 2), Stage(512, 6, 2), Stage(1024, 2, 2))


class SeparableBlock(nn.Module):
    """A depthwise 3x3 layer and a 1x1 layer, both with norm and activation (figure 3, right).

    Attributes:
      features: number of channels of the output.
      conv, depthwise, norm, act: make the parts.
      stride: of the depthwise layer.
    """

    features: int
    conv: Callable[..., nn.Module]
    depthwise: Callable[..., nn.Module]
    norm: Callable[..., nn.Module] | None
    act: Callable[..., nn.Module]
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial / stride, features)`."""
        depthwise = functools.partial(self.depthwise, 3, self.stride)
        x = Layer(depthwise, self.norm, self.act, name="depthwise")(x, train=train)
        pointwise = functools.partial(self.conv, self.features, 1)
        return Layer(pointwise, self.norm, self.act, name="pointwise")(x, train=train)


class MobileNetV1(Scaled, kw_only=True):
    """A 3x3 convolution, 13 separable blocks, pooling and a head. It has no shortcut.

    The paper does not say how weights start; `initializer` is the package's default, he_normal, whose fan of a depthwise
    kernel is that of one channel. Its resolution multiplier is the size of the images.

    Attributes:
      width_multiplier: alpha: 1, 0.75, 0.5 and 0.25 in the paper.
      stages: rows (channels, blocks, stride), the stride that of the first block.
    """

    stages: Sequence[Stage] = STAGES

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
        parts = dict(conv=self._conv, depthwise=self._depthwise, norm=self._norm(), act=self._act)
        for index, (channels, blocks, stride) in enumerate(self.stages, 1):
            block = functools.partial(SeparableBlock, self._channels(channels), **parts)
            x = self._stage(
                x,
                lambda _, block=block: block,
                name=f"stage{index}",
                blocks=blocks,
                stride=stride,
                train=train,
            )
        return self._classified(F.global_avg_pool(x), train=train)


VARIANTS = {
    f"mobilenet_v1{suffix}": Variant(
        MobileNetV1,
        {"width_multiplier": width},
        image=(224, 224, 3),
        paper="Howard et al. 2017, arXiv:1704.04861",
    )
    for suffix, width in (("", 1.0), ("_x0_75", 0.75), ("_x0_5", 0.5), ("_x0_25", 0.25))
}
