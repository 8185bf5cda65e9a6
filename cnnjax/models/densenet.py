"""DenseNet (Huang et al. 2017): every layer sees the outputs of all layers before it in its block."""

import functools
from collections.abc import Callable
from numbers import Real

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax import functional as F
from cnnjax.models.base import Model, Variant, check_choice, check_rate
from cnnjax.nn import Activation, Conv, Dropout, Layer, Pool, PreActivationLayer
from cnnjax.nn.blocks import ModuleDef


class DenseLayer(nn.Module):
    """norm - act - 1x1 to four times the growth, then norm - act - 3x3 to the growth.

    Attributes:
      growth: output channels.
      bottleneck: whether the 1x1 layer is there.
      dropout: behind each convolution.
      conv, norm, act: make the parts.
    """

    growth: int
    bottleneck: bool = True
    dropout: float = 0.0
    conv: ModuleDef = Conv
    norm: ModuleDef | None = None
    act: ModuleDef = Activation

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial, growth)`."""
        rows = [(4 * self.growth, 1), (self.growth, 3)] if self.bottleneck else [(self.growth, 3)]
        for i, (features, window) in enumerate(rows, 1):
            linear = functools.partial(self.conv, features, window)
            x = PreActivationLayer(linear, self.norm, self.act, name=f"layer{i}")(x, train=train)
            x = Dropout(self.dropout, name=f"dropout{i}")(x, train=train)
        return x


class DenseBlock(nn.Module):
    """`depth` dense layers, each on all outputs before it, the block's input among them.

    Attributes:
      layer: makes a layer, called with a name.
      depth: number of layers.
      skip: False: each layer is on the output of the one before it alone, and the block's output is that of the last.
      remat: recompute each layer, and what it concatenates, in the backward pass.
    """

    layer: Callable[..., nn.Module]
    depth: int
    skip: bool = True
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial, channels + depth * growth)`; growth without skips."""

        def run(layer: nn.Module, seen: list[jax.Array]) -> jax.Array:
            return layer(jnp.concatenate(seen, axis=-1), train=train)

        run = nn.remat(run) if self.remat else run
        seen = [x]
        for i in range(1, self.depth + 1):
            new = run(self.layer(name=f"denselayer{i}"), seen)
            seen = [*seen, new] if self.skip else [new]
        return jnp.concatenate(seen, axis=-1)


class DenseNet(Model, kw_only=True):
    """Dense blocks with transitions in between: norm - act - 1x1 convolution to fewer channels, and 2x2 average pooling.

    `skip=False` is the plain twin: the same layers with the same outputs, but each sees only the one before it. What remains
    are chains of narrow layers: kernels and norms have `growth` input channels where there were all those before, the
    transitions widen again to the channels that they had, and the logits are linear in the last `growth` maps.

    Attributes:
      depths: layers of each block.
      growth: channels that each adds, k in the paper.
      width: channels of the first convolution.
      bottleneck: whether a 1x1 layer to 4 `growth` channels comes before each 3x3 layer (DenseNet-B).
      compression: share of the channels that a transition keeps (below 1: DenseNet-C).
      stem: "imagenet": a 7x7 window with a stride of 2, norm, activation and 3x3 pooling; "cifar": a 3x3 window alone.
      dropout: behind each convolution but the first; 0.2 in the paper for CIFAR without augmentation.
      skip: whether layers see more than the one before.
      remat: recompute each dense layer in the backward pass: memory grows with the depth, and not with its square (Pleiss
        et al. 2017).
    """

    num_classes: int = 1000
    norm: str | Callable[..., nn.Module] | None = "batch"
    depths: tuple[int, ...] = (6, 12, 24, 16)
    growth: int = 32
    width: int = 64
    bottleneck: bool = True
    compression: float = 0.5
    stem: str = "imagenet"
    dropout: float = 0.0
    skip: bool = True
    remat: bool = False

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_choice("stem", self.stem, ("imagenet", "cifar"))
        check_rate("dropout", self.dropout)
        if not isinstance(self.compression, Real) or not 0 < self.compression <= 1:
            raise ValueError(
                f"compression is the share of channels kept and must lie in (0, 1]; got {self.compression!r}"
            )

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        x, channels = self._stem(x, train), self.width
        for block, depth in enumerate(self.depths, 1):
            if block > 1:
                channels = int(channels * self.compression)
                x = self._transition(x, block - 1, channels, train)
            x = self._block(depth, name=f"denseblock{block}")(x, train=train)
            channels += depth * self.growth
        norm = self._norm()
        if norm is not None:
            x = norm(name="final_norm")(x, train=train)
        return self._head(F.global_avg_pool(self._act(name="final_act")(x)))

    def _stem(self, x: jax.Array, train: bool) -> jax.Array:
        if self.stem == "imagenet":
            x = self._conv_layer(self.width, 7, 2, padding=3, name="stem")(x, train=train)
            return Pool(3, 2, 1, name="stem_pool")(x)
        linear = functools.partial(self._conv, self.width, 3)
        identity = functools.partial(Activation, "identity")
        return Layer(linear, None, identity, use_bias=self.norm is None, name="stem")(x)

    def _transition(self, x: jax.Array, number: int, features: int, train: bool) -> jax.Array:
        linear = functools.partial(self._conv, features, 1)
        name = f"transition{number}"
        x = PreActivationLayer(linear, self._norm(), self._act, name=name)(x, train=train)
        x = Dropout(self.dropout, name=f"{name}_dropout")(x, train=train)
        return Pool(2, function=F.avg_pool, name=f"{name}_pool")(x)

    @nn.nowrap
    def _block(self, depth: int, *, name: str) -> DenseBlock:
        layer = functools.partial(
            DenseLayer,
            self.growth,
            self.bottleneck,
            self.dropout,
            conv=self._conv,
            norm=self._norm(),
            act=self._act,
        )
        return DenseBlock(layer, depth, self.skip, self.remat, name=name)


_IMAGENET = {
    "densenet121": {"depths": (6, 12, 24, 16)},
    "densenet161": {"depths": (6, 12, 36, 24), "growth": 48, "width": 96},
    "densenet169": {"depths": (6, 12, 32, 32)},
    "densenet201": {"depths": (6, 12, 48, 32)},
}
_CIFAR = {
    "densenet40_12": {"depths": (12, 12, 12), "width": 16, "bottleneck": False, "compression": 1.0},
    "densenet_bc100_12": {"depths": (16, 16, 16), "width": 24},
}
_PAPER = "Huang et al. 2017, arXiv:1608.06993"
VARIANTS = {
    **{
        name: Variant(DenseNet, options, image=(224, 224, 3), paper=_PAPER)
        for name, options in _IMAGENET.items()
    },
    **{
        name: Variant(
            DenseNet,
            {"stem": "cifar", "growth": 12, "num_classes": 10, **options},
            image=(32, 32, 3),
            paper=_PAPER,
        )
        for name, options in _CIFAR.items()
    },
}
