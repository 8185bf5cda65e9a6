"""Residual networks for ImageNet: He et al. 2016, wide ones (Zagoruyko & Komodakis 2016), and ResNeXt (Xie et al. 2017)."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax

from cnnjax import functional as F
from cnnjax.models.base import Model, Variant, check_choice
from cnnjax.models.residual import branch, check_branch_scale
from cnnjax.nn import BasicBlock, BottleneckBlock, Pool, Stack

STEMS = ("imagenet", "cifar")
_EXPANSION = 4


class ResidualStages(Model, kw_only=True):
    """Stages of residual blocks: each halves the image, but for the first, and doubles the channels.

    The shortcut of a block that changes the shape is a 1x1 convolution, the others are identities (option B). He's kernels
    are those of the paper, with the fan-in; torchvision takes the fan-out. Modules are called as torchvision counts them:
    `stage2_down`, where the first block changes the shape, and the stack `stage2` of the others.

    Attributes:
      block: "basic", two 3x3 convolutions, or "bottleneck", a 3x3 between two 1x1 with 4 times the channels at its end.
      depths: blocks of each stage.
      width: channels of the first stage; of a bottleneck before the 4 times.
      groups: of the 3x3 convolution of a bottleneck.
      width_per_group: channels of each of those groups in the first stage, for a `width` of 64.
      skip: whether the shortcuts are there; the twin without has no projections either.
      branch_scale: how the residual branches start, a name in `initializers.RESIDUAL_SCALES`: each is then multiplied by a
        learned number. None for neither. Meant for `norm=None`.
      scan: False writes the blocks out instead of scanning over the identical ones of each stage.
      remat: recompute activations in the backward pass (see `nn.Stack`).
    """

    num_classes: int = 1000
    norm: str | Callable[..., nn.Module] | None = "batch"
    block: str = "basic"
    depths: tuple[int, ...] = (2, 2, 2, 2)
    width: int = 64
    groups: int = 1
    width_per_group: int = 64
    skip: bool = True
    branch_scale: str | None = None
    scan: bool = True
    remat: bool = False

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_choice("block", self.block, ("basic", "bottleneck"))
        check_branch_scale(self.branch_scale, skip=self.skip)
        if self.block == "basic" and (self.groups, self.width_per_group) != (1, 64):
            raise ValueError(
                f"groups={self.groups} and width_per_group={self.width_per_group} are for bottlenecks: use "
                "block='bottleneck', or groups=1 and width_per_group=64"
            )
        if self.width * self.width_per_group < 64:
            raise ValueError(
                f"width={self.width} and width_per_group={self.width_per_group} leave less than one channel a group: their "
                "product must be 64 or more"
            )

    @nn.nowrap
    def _sizes(self, stage: int) -> tuple[dict[str, int], int]:
        """The options of a block of that stage that decide its channels, and how many it puts out."""
        features = self.width * 2**stage
        if self.block == "basic":
            return dict(features=features), features
        inner = features * self.width_per_group // 64 * self.groups
        sizes = dict(features=features, inner=inner, groups=self.groups, expansion=_EXPANSION)
        return sizes, features * _EXPANSION

    @nn.nowrap
    def _parts(self) -> dict[str, Any]:
        layers = 2 if self.block == "basic" else 3
        scaled = branch(
            self._symmetric_conv, self.branch_scale, num_blocks=sum(self.depths), layers_per_block=layers
        )
        projection = self._symmetric_conv
        return dict(skip=self.skip, norm=self._norm(), act=self._act, projection=projection, **scaled)

    def _stages(
        self, blocks: Mapping[str, type[nn.Module]], x: jax.Array, train: bool, **first: Any
    ) -> jax.Array:
        """All stages, of one of the `blocks`; `first` are options of the very first block, if it has some of its own."""
        parts = self._parts()
        for stage, depth in enumerate(self.depths):
            sizes, features = self._sizes(stage)
            block = functools.partial(blocks[self.block], **sizes, **parts)
            name, stride = f"stage{stage + 1}", 1 if stage == 0 else 2
            own = first if stage == 0 else {}
            reshapes = stride > 1 or x.shape[-1] != features
            if reshapes or own:
                alone = block(stride=stride, name=f"{name}_{'down' if reshapes else 'first'}", **own)
                x, depth = alone(x, train=train), depth - 1
            x = Stack(block, depth, scan=self.scan, remat=self.remat, name=name)(x, train=train)
        return x

    def _image_stem(self, stem: str, x: jax.Array, train: bool) -> jax.Array:
        """7x7 with stride 2 and 3x3 max pooling with stride 2; for "cifar" a 3x3 convolution at full resolution."""
        if stem == "cifar":
            return self._conv_layer(self.width, 3, padding=1, name="stem")(x, train=train)
        x = self._conv_layer(self.width, 7, 2, padding=3, name="stem")(x, train=train)
        return Pool(3, 2, padding=1, name="pool")(x)


class ResNet(ResidualStages, kw_only=True):
    """conv - norm - act, the addition before the last activation of a block; a bottleneck has the stride in its 3x3.

    Attributes:
      stem: "imagenet": 7x7 with stride 2 and max pooling; "cifar": 3x3 with stride 1 and no pooling, for 32x32 images.
    """

    stem: str = "imagenet"

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_choice("stem", self.stem, STEMS)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        x = self._image_stem(self.stem, x, train)
        x = self._stages({"basic": BasicBlock, "bottleneck": BottleneckBlock}, x, train)
        return self._head(F.global_avg_pool(x))


BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
"""Blocks of each stage by the depth of the network."""
BOTTLENECK = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""The same for those of three layers."""


def _variant(paper: str, depths: tuple[int, ...], block: str = "bottleneck", **options: Any) -> Variant:
    return Variant(ResNet, {"block": block, "depths": depths, **options}, image=(224, 224, 3), paper=paper)


_RESNET = "He et al. 2016, arXiv:1512.03385"
_WIDE = "Zagoruyko & Komodakis 2016, arXiv:1605.07146"
_RESNEXT = "Xie et al. 2017, arXiv:1611.05431"
VARIANTS = {
    **{f"resnet{depth}": _variant(_RESNET, depths, "basic") for depth, depths in BASIC.items()},
    **{f"resnet{depth}": _variant(_RESNET, depths) for depth, depths in BOTTLENECK.items()},
    "wide_resnet50_2": _variant(_WIDE, BOTTLENECK[50], width_per_group=128),
    "wide_resnet101_2": _variant(_WIDE, BOTTLENECK[101], width_per_group=128),
    "resnext50_32x4d": _variant(_RESNEXT, BOTTLENECK[50], groups=32, width_per_group=4),
    "resnext101_32x8d": _variant(_RESNEXT, BOTTLENECK[101], groups=32, width_per_group=8),
    "resnext101_64x4d": _variant(_RESNEXT, BOTTLENECK[101], groups=64, width_per_group=4),
}
