"""ShuffleNet (Zhang et al. 2018): 1x1 convolutions in groups, whose channels are shuffled in between."""

import functools
from collections.abc import Callable
from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax import functional as F
from cnnjax.models.base import Model, Variant, check_choice
from cnnjax.nn import Activation, Conv, DepthwiseConv, Layer, Pool, Stack
from cnnjax.nn.blocks import ModuleDef


class ShuffleUnit(nn.Module):
    """1x1 in groups to a quarter of the channels, shuffle, depthwise 3x3 without activation, 1x1 in groups (figure 2).

    Attributes:
      features: number of channels of the output.
      groups: of the last 1x1 convolution, and of the shuffle.
      first_groups: of the first one.
      stride: 1: the input is added; 2: its averages are set beside the branch, which has the rest of the channels.
      skip: False leaves the input out; at stride 2 the branch then has all channels.
      conv, depthwise, norm, act: make the parts.
    """

    features: int
    groups: int
    first_groups: int
    stride: int = 1
    skip: bool = True
    conv: ModuleDef = Conv
    depthwise: ModuleDef = functools.partial(DepthwiseConv, 1)
    norm: ModuleDef | None = None
    act: ModuleDef = Activation

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial / stride, features)`."""
        h = Layer(self._pointwise(self.features // 4, self.first_groups), self.norm, self.act, name="reduce")
        h = F.channel_shuffle(h(x, train=train), self.groups)
        linear = functools.partial(self.depthwise, 3, self.stride)
        identity = functools.partial(Activation, "identity")
        h = Layer(linear, self.norm, identity, name="depthwise")(h, train=train)
        beside = self.skip and self.stride > 1
        features = self.features - x.shape[-1] if beside else self.features
        expand = Layer(self._pointwise(features, self.groups), self.norm, self.act, name="expand")
        h = expand(h, residual=x if self.skip and not beside else None, train=train)
        if not beside:
            return h
        pooled = F.avg_pool(x, 3, stride=self.stride, padding=1, count_padding=True)
        return jnp.concatenate([pooled, h], axis=-1)

    @nn.nowrap
    def _pointwise(self, features: int, groups: int) -> ModuleDef:
        return functools.partial(self.conv, features, 1, groups=groups)


class ShuffleNetV1(Model, kw_only=True):
    """A 3x3 convolution, a max pooling, three stages of units, the mean, a dense head (table 1).

    The paper gives no initial kernels: he_normal. The depthwise layers are linear. As in the authors' code the activation
    at the end of a unit of stride 2 is that of the branch alone; with ReLU it makes no difference.

    Attributes:
      groups: of the 1x1 convolutions. The first one of stage 2 is not divided: it has few inputs.
      widths: channels of stages 2 to 4, each a multiple of 4 groups and more than the one before.
      depths: units of stages 2 to 4.
      stem_width: channels of the first convolution, a multiple of `groups`.
      stem: "imagenet", or "cifar": stride 1 and no pooling in front of the stages, for images of 32x32.
      skip: False leaves the inputs of the units out. Their last layer then has all channels at stride 2, too: it is the
        only one that gets larger.
      scan: False writes the units out instead of scanning over the identical ones of each stage.
      remat: recompute activations in the backward pass (see `nn.Stack`).
    """

    num_classes: int = 1000
    norm: str | Callable[..., nn.Module] | None = "batch"
    groups: int = 3
    widths: tuple[int, ...] = (240, 480, 960)
    depths: tuple[int, ...] = (4, 8, 4)
    stem_width: int = 24
    stem: str = "imagenet"
    skip: bool = True
    scan: bool = True
    remat: bool = False

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_choice("stem", self.stem, ("imagenet", "cifar"))
        if len(self.widths) != 3 or len(self.depths) != 3:
            raise ValueError(
                f"ShuffleNet has three stages: got widths={self.widths} and depths={self.depths}"
            )
        unit = 4 * self.groups
        if any(width % unit for width in self.widths) or self.stem_width % self.groups:
            raise ValueError(
                f"with groups={self.groups} each of widths must be a multiple of {unit} and stem_width one of "
                f"{self.groups}; got widths={self.widths}, stem_width={self.stem_width}"
            )
        if any(after <= before for before, after in pairwise((self.stem_width, *self.widths))):
            raise ValueError(
                f"each stage must be wider than what comes before; got stem_width={self.stem_width}, widths={self.widths}"
            )

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        small = self.stem == "cifar"
        stem = functools.partial(self._symmetric_conv, self.stem_width, 3, 1 if small else 2)
        x = Layer(stem, self._norm(), self._act, name="stem")(x, train=train)
        if not small:
            x = Pool(3, 2, padding=1, name="pool")(x)
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True), start=2):
            x = self._stage(stage, width, depth, x, train)
        return self._head(F.global_avg_pool(x))

    def _stage(self, stage: int, width: int, depth: int, x: jax.Array, train: bool) -> jax.Array:
        depthwise = functools.partial(self._depthwise, activation="identity")
        parts = dict(conv=self._conv, depthwise=depthwise, norm=self._norm(), act=self._act)
        unit = functools.partial(ShuffleUnit, width, self.groups, skip=self.skip, **parts)
        first_groups = 1 if stage == 2 else self.groups
        x = unit(first_groups, stride=2, name=f"stage{stage}_down")(x, train=train)
        identical = functools.partial(unit, self.groups)
        stack = Stack(identical, depth - 1, scan=self.scan, remat=self.remat, name=f"stage{stage}")
        return stack(x, train=train)


_WIDTHS = {
    1: (144, 288, 576),
    2: (200, 400, 800),
    3: (240, 480, 960),
    4: (272, 544, 1088),
    8: (384, 768, 1536),
}
# Channels of the stem in the authors' code, by groups and scale (github.com/megvii-model/ShuffleNet-Series).
_STEMS = {(3, 0.5): 12, (3, 1.5): 24, (3, 2.0): 48, (8, 0.5): 16, (8, 1.5): 24, (8, 2.0): 48}


def _variant(groups: int, scale: float = 1.0, stem_width: int = 24) -> Variant:
    widths = tuple(int(width * scale) for width in _WIDTHS[groups])
    options = {"groups": groups, "widths": widths, "stem_width": stem_width}
    return Variant(ShuffleNetV1, options, image=(224, 224, 3), paper="Zhang et al. 2018, arXiv:1707.01083")


VARIANTS = {
    **{f"shufflenet_v1_g{groups}": _variant(groups) for groups in _WIDTHS},
    **{
        f"shufflenet_v1_g{groups}_x{str(scale).replace('.', '_')}": _variant(groups, scale, stem_width)
        for (groups, scale), stem_width in _STEMS.items()
    },
}
