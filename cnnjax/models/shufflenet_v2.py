"""ShuffleNet V2 (Ma et al. 2018): half of the channels pass each unit by."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax import functional as F
from cnnjax.models.base import Model, Variant, check_choice
from cnnjax.nn import Activation, Conv, DepthwiseConv, Layer, Pool, Stack
from cnnjax.nn.blocks import ModuleDef


class _Part(nn.Module):
    """What the parts of the network have in common.

    Attributes:
      features: number of channels of the output.
      stride: of the depthwise layer.
      conv, depthwise, norm, act: make the layers.
    """

    features: int
    stride: int = 1
    conv: ModuleDef = Conv
    depthwise: ModuleDef = functools.partial(DepthwiseConv, 1)
    norm: ModuleDef | None = None
    act: ModuleDef = Activation

    @nn.nowrap
    def _pointwise_layer(self, name: str) -> Layer:
        return Layer(functools.partial(self.conv, self.features, 1), self.norm, self.act, name=name)

    @nn.nowrap
    def _depthwise_layer(self) -> Layer:
        linear = functools.partial(self.depthwise, 3, self.stride)
        return Layer(linear, self.norm, functools.partial(Activation, "identity"), name="depthwise")

    @nn.nowrap
    def _shared(self) -> dict[str, Any]:
        return dict(conv=self.conv, depthwise=self.depthwise, norm=self.norm, act=self.act)


class Projection(_Part):
    """Depthwise 3x3 without activation, 1x1: the short branch of a unit of stride 2 (figure 3d, left)."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial / stride, features)`."""
        h = self._depthwise_layer()(x, train=train)
        return self._pointwise_layer("pointwise")(h, train=train)


class Branch(_Part):
    """1x1, depthwise 3x3 without activation, 1x1 (figure 3c and d, right)."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial / stride, features)`."""
        h = self._pointwise_layer("pointwise1")(x, train=train)
        h = self._depthwise_layer()(h, train=train)
        return self._pointwise_layer("pointwise2")(h, train=train)


class ShuffleUnitV2(_Part):
    """A unit: two halves of the channels, side by side and shuffled (figure 3c and d).

    At stride 1 one half is that of the input and passes; at stride 2 both are computed, from all of the input.

    Attributes:
      skip: False lets nothing pass: at stride 1 the branch then has all channels, in and out.
    """

    skip: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial / stride, features)`."""
        if self.stride == 1 and not self.skip:
            return Branch(self.features, **self._shared(), name="branch2")(x, train=train)
        half = self.features // 2
        if self.stride == 1:
            left, x = jnp.split(x, 2, axis=-1)
        else:
            left = Projection(half, self.stride, **self._shared(), name="branch1")(x, train=train)
        right = Branch(half, self.stride, **self._shared(), name="branch2")(x, train=train)
        return F.channel_shuffle(jnp.concatenate([left, right], axis=-1), 2)


class ShuffleNetV2(Model, kw_only=True):
    """A 3x3 convolution, a max pooling, three stages of units, a 1x1 convolution, the mean, a dense head (table 5).

    The paper gives no initial kernels: he_normal. The depthwise layers are linear.

    Attributes:
      widths: channels of stages 2 to 4, each even.
      depths: units of stages 2 to 4.
      stem_width: channels of the first convolution.
      last_width: channels of the last convolution.
      stem: "imagenet", or "cifar": stride 1 and no pooling in front of the stages, for images of 32x32.
      skip: False lets no channels pass a unit: those of stride 1 are then as wide as their stage, with about four times
        the parameters; all others stay.
      scan: False writes the units out instead of scanning over the identical ones of each stage.
      remat: recompute activations in the backward pass (see `nn.Stack`).
    """

    num_classes: int = 1000
    norm: str | Callable[..., nn.Module] | None = "batch"
    widths: tuple[int, ...] = (116, 232, 464)
    depths: tuple[int, ...] = (4, 8, 4)
    stem_width: int = 24
    last_width: int = 1024
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
                f"ShuffleNet V2 has three stages: got widths={self.widths} and depths={self.depths}"
            )
        if any(width % 2 for width in self.widths):
            raise ValueError(f"units have two halves: widths must be even; got widths={self.widths}")

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        small = self.stem == "cifar"
        stem = functools.partial(self._symmetric_conv, self.stem_width, 3, 1 if small else 2)
        x = Layer(stem, self._norm(), self._act, name="stem")(x, train=train)
        if not small:
            x = Pool(3, 2, padding=1, name="pool")(x)
        depthwise = functools.partial(self._depthwise, activation="identity")
        parts = dict(conv=self._conv, depthwise=depthwise, norm=self._norm(), act=self._act)
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True), start=2):
            unit = functools.partial(ShuffleUnitV2, width, skip=self.skip, **parts)
            x = unit(stride=2, name=f"stage{stage}_down")(x, train=train)
            stack = Stack(unit, depth - 1, scan=self.scan, remat=self.remat, name=f"stage{stage}")
            x = stack(x, train=train)
        x = self._conv_layer(self.last_width, 1, name="conv5")(x, train=train)
        return self._head(F.global_avg_pool(x))


_WIDTHS = {"x0_5": (48, 96, 192), "x1_0": (116, 232, 464), "x1_5": (176, 352, 704), "x2_0": (244, 488, 976)}
VARIANTS = {
    f"shufflenet_v2_{scale}": Variant(
        ShuffleNetV2,
        {"widths": widths, "last_width": 2048 if scale == "x2_0" else 1024},
        image=(224, 224, 3),
        paper="Ma et al. 2018, arXiv:1807.11164",
    )
    for scale, widths in _WIDTHS.items()
}
