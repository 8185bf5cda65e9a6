"""Normalizer-free residual networks (Brock et al. 2021a): standardized kernels in the place of normalized activations."""

import functools
import math
from collections.abc import Iterator, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from cnnjax import functional as F
from cnnjax.initializers import Choice, Initializer, lecun_normal
from cnnjax.models.base import Model, Variant, check_choice, check_rate
from cnnjax.models.scaled import check_factor
from cnnjax.nn import (
    Activation,
    Dropout,
    Layer,
    ModuleDef,
    Multiplier,
    Pool,
    PreActivationLayer,
    Stack,
    WSConv,
)

_EXPANSION = 4


def predicted_deviations(depths: Sequence[int], *, alpha: float) -> Iterator[list[float]]:
    """The deviation of the input of each block, stage by stage, at initialization (section 4.1).

    A block adds a branch of variance alpha^2 to its input, so that the variance grows by alpha^2. The first block of a
    stage projects its input after dividing it by its deviation, and the variance starts over at 1.

    Args:
      depths: blocks of each stage.
      alpha: factor on the branches.
    """
    grown = 0
    for depth in depths:
        yield [math.sqrt(1 + alpha**2 * blocks) for blocks in (grown, *range(1, depth))]
        grown = depth


def paper_kernels(*, groups: int = 1) -> Initializer:
    """Normal, of variance 1 / fan_in for a convolution and of deviation 0.01 for a dense kernel, as in the authors' code."""

    def initialize(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        draw = jax.nn.initializers.normal(0.01) if len(shape) == 2 else lecun_normal(groups=groups)
        return draw(key, shape, dtype)

    return initialize


class NFBlock(nn.Module):
    """x' = shortcut + alpha branch(x / deviation), a branch of three layers act - conv: 1x1, 3x3 with the stride, 1x1.

    Attributes:
      features: inside of the block; it puts out four times as many.
      stride: of the block.
      project: whether the shortcut is a 1x1 convolution of the first activation; otherwise it is the identity.
      conv, norm, act: make the parts.
      alpha: factor on the branch.
      skip: whether the shortcut is there; without, neither are the projection and `alpha`.
      skip_init: whether the branch is multiplied by a learned number that starts at 0.
    """

    features: int
    stride: int = 1
    project: bool = False
    conv: ModuleDef = WSConv
    norm: ModuleDef | None = None
    act: ModuleDef = Activation
    alpha: float = 0.2
    skip: bool = True
    skip_init: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, *, rate: Sequence[float] | jax.Array = (1.0,), train: bool = False
    ) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial / stride, 4 * features)`.

        `rate` holds 1 / deviation, and behind it the probability of dropping the branch, if it is to be dropped.
        """
        beta, *drop = rate
        outputs = _EXPANSION * self.features
        sizes = ((self.features, 1), (self.features, 3, self.stride), (outputs, 1))
        first, *others = (
            PreActivationLayer(functools.partial(self.conv, *size), self.norm, self.act, name=f"layer{i}")
            for i, size in enumerate(sizes, start=1)
        )
        h, activated = first.with_activated(x * jnp.asarray(beta, x.dtype), train=train)
        for layer in others:
            h = layer(h, train=train)
        if self.skip_init:
            h = Multiplier(0.0, name="multiplier")(h)
        if drop:
            h = F.drop_path(h, self.make_rng("dropout"), rate=drop[0])
        return self.alpha * h + self._shortcut(x, activated) if self.skip else h

    def _shortcut(self, x: jax.Array, activated: jax.Array) -> jax.Array:
        if not self.project:
            return x
        linear = functools.partial(self.conv, _EXPANSION * self.features, 1, self.stride)
        identity = functools.partial(Activation, "identity")
        return Layer(linear, None, identity, use_bias=self.norm is None, name="shortcut")(activated)


class NFResNet(Model, kw_only=True):
    """A pre-activation ResNet of bottlenecks whose signal keeps a known variance without any norm.

    Kernels are standardized and scaled by 1 / sqrt(Var[phi(z)]) of the activation in front (`nn.WSConv`), branches are
    scaled by `alpha`, and the input of each is divided by the deviation that follows (`predicted_deviations`). The first
    block of a stage, `stage1_down`, projects its shortcut from its first activation.

    Two points of the authors' code are otherwise here: it divides behind the activation, which is the same for ReLU, and it
    does not scale up the branches that stochastic depth keeps. Standardization takes out the scale of the initial kernels,
    so that `initializer` and `gain` decide the size of a step, but the logits only in the head.

    Attributes:
      norm: another than None stands in front of every activation but keeps the standardized kernels and the factors.
      depths: blocks of each stage.
      width: channels of the stem; those inside of the blocks of the first stage.
      stem: "imagenet": 7x7 with stride 2 and max pooling; "cifar": 3x3 with stride 1 and no pooling, for 32x32 images.
      alpha: factor on the branches.
      skip: whether the shortcuts are there; the twin without has neither projections nor `alpha` and deviations.
      skip_init: whether every branch has a learned factor that starts at 0 (SkipInit, De & Smith 2020): the authors' code
        has it, timm's networks of this name do not. Without it each branch has a gradient at initialization.
      dropout: rate of zeros in front of the head.
      drop_path: stochastic depth: block i of n, counted from 0, loses its branch at the rate drop_path * i / n.
      scan: False writes the blocks out instead of scanning over the identical ones of each stage.
      remat: recompute activations in the backward pass (see `nn.Stack`).
    """

    num_classes: int = 1000
    initializer: Choice = paper_kernels
    depths: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    stem: str = "imagenet"
    alpha: float = 0.2
    skip: bool = True
    skip_init: bool = False
    dropout: float = 0.0
    drop_path: float = 0.0
    scan: bool = True
    remat: bool = False

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_choice("stem", self.stem, ("imagenet", "cifar"))
        check_factor("alpha", self.alpha)
        check_rate("dropout", self.dropout)
        check_rate("drop_path", self.drop_path)
        if self.skip_init and not self.skip:
            raise ValueError("skip_init=True is for residual branches: use skip=True or skip_init=False")

    @nn.nowrap
    def _standardized(self, *sizes: int, scale: float | None = None, **options: bool | str) -> WSConv:
        scale = F.get_activation(self.activation).variance_gain if scale is None else scale
        return WSConv(*sizes, scale=scale, kernel_init=self._kernel_init(), **self._shared(), **options)

    @nn.nowrap
    def _rates(self, *, train: bool) -> Iterator[list[tuple[float, ...]]]:
        """What each block takes, stage by stage."""
        total, index = sum(self.depths), 0
        for stage in predicted_deviations(self.depths, alpha=self.alpha if self.skip else 0.0):
            rates = [self.drop_path * i / total for i in range(index, index + len(stage))]
            index += len(stage)
            dropped = ((rate,) if train and self.drop_path else () for rate in rates)
            yield [(1 / deviation, *drop) for deviation, drop in zip(stage, dropped, strict=True)]

    def _stem(self, x: jax.Array) -> jax.Array:
        size = (7, 2) if self.stem == "imagenet" else (3, 1)
        linear = functools.partial(self._standardized, self.width, *size, scale=1.0)
        identity = functools.partial(Activation, "identity")
        x = Layer(linear, None, identity, use_bias=self.norm is None, name="stem")(x)
        return Pool(3, 2, padding="SAME", name="pool")(x) if self.stem == "imagenet" else x

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        x = self._stem(x)
        parts = dict(conv=self._standardized, norm=self._norm(), act=self._act)
        parts |= dict(alpha=self.alpha, skip=self.skip, skip_init=self.skip_init)
        for stage, (rate, *rates) in enumerate(self._rates(train=train)):
            block = functools.partial(NFBlock, self.width * 2**stage, **parts)
            name = f"stage{stage + 1}"
            down = block(stride=min(stage + 1, 2), project=True, name=f"{name}_down")
            x = down(x, rate=rate, train=train)
            stack = Stack(block, len(rates), rates=rates, scan=self.scan, remat=self.remat, name=name)
            x = stack(x, train=train)
        norm = self._norm()
        if norm is not None:
            x = norm(name="final_norm")(x, train=train)
        x = F.global_avg_pool(self._act(name="final_act")(x))
        return self._head(Dropout(self.dropout, name="dropout")(x, train=train))


# 26 is timm's, the others are those of the authors' code.
_DEPTHS = {
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
    288: (24, 24, 24, 24),
}
VARIANTS = {
    f"nf_resnet{depth}": Variant(
        NFResNet,
        {"depths": depths},
        image=(224, 224, 3),
        paper="Brock et al. 2021, arXiv:2101.08692",
    )
    for depth, depths in _DEPTHS.items()
}
