"""Residual networks without normalization that start by fixed updates (Fixup, Zhang et al. 2019)."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax import functional as F
from cnnjax.initializers import RESIDUAL_SCALES, BranchScale, Initializer, zeros
from cnnjax.models.base import Model, Variant, check_choice
from cnnjax.nn import Activation, Dense, Layer, ModuleDef, Multiplier, Pool, Stack

_IDENTITY = functools.partial(Activation, "identity")
_EXPANSION = 4


class Shift(nn.Module):
    """The input plus one learned number.

    Attributes:
      init: an initializer of that number.
    """

    init: Initializer = zeros()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`x`: of any shape."""
        return x + self.param("bias", self.init, (), jnp.float32).astype(x.dtype)


class FixupLayer(Layer):
    """(shift -) linear - norm - (multiplier -) shift - (+ residual) - activation (rule 3 of the paper).

    Attributes:
      shift: makes the learned numbers that are added.
      shift_input: whether one is added in front of the linear part, too.
    """

    shift: ModuleDef = Shift
    shift_input: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, residual: jax.Array | None = None, train: bool = False) -> jax.Array:
        """`x`: `(batch, ..., channels)`; `residual`, of the output's shape, is added before the activation."""
        if self.shift_input:
            x = self.shift(name="shift_in")(x)
        z = self.linear(use_bias=False, name="linear")(x)
        if self.norm is not None:
            z = self.norm(name="norm")(z, train=train)
        if self.multiplier is not None:
            z = Multiplier(self.multiplier, name="multiplier")(z)
        z = self.shift(name="shift")(z)
        return self.act(name="act")(z if residual is None else z + residual)


class FixupBlock(nn.Module):
    """Layers with shifts, and a shortcut that is added in front of the last activation.

    Attributes:
      linears: make the convolutions, the first to the last.
      shortcut: makes a module for a shortcut that changes the shape, called as `shortcut(name=...)`; None for the identity.
      skip: whether there is a shortcut.
      norm, act, shift: make the parts.
      multiplier: where the learned number starts that multiplies the last layer.
    """

    linears: Sequence[ModuleDef]
    shortcut: ModuleDef | None = None
    skip: bool = True
    norm: ModuleDef | None = None
    act: ModuleDef = Activation
    shift: ModuleDef = Shift
    multiplier: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)`."""
        shifted = self.shift(name="shift")(x)
        if not self.skip:
            residual = None
        elif self.shortcut is None:
            residual = x
        else:
            residual = self.shortcut(name="shortcut")(shifted, train=train)
        layer = functools.partial(FixupLayer, norm=self.norm, act=self.act, shift=self.shift)
        *firsts, last = self.linears
        h = shifted
        for i, linear in enumerate(firsts, start=1):
            h = layer(linear, shift_input=i > 1, name=f"layer{i}")(h, train=train)
        ending = layer(last, multiplier=self.multiplier, name=f"layer{len(self.linears)}")
        return ending(h, residual=residual, train=train)


class AppendZeros(nn.Module):
    """Every `stride`-th position, with channels of zeros behind the others: a shortcut without parameters.

    Attributes:
      features: number of channels of the result.
      stride: of the block.
    """

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial / stride, features)`; `train` changes nothing."""
        x = x[(slice(None), *[slice(None, None, self.stride)] * (x.ndim - 2))]
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, self.features - x.shape[-1])])


class FixupResNet(Model, kw_only=True):
    """The networks of He et al. 2016 without norms, with learned numbers that are added and multiplied instead.

    In front of and behind every convolution a number is added, and every branch is multiplied by one. Kernels start as in
    He et al. 2015, but in a branch of m layers, one of L branches, they are multiplied by L^(-1 / (2 m - 2)), and the last
    one is zero; so is the classifier. What a step of the kernels changes in the function then does not depend on the depth,
    other than what a step of the numbers does, whose learning rate is a tenth in the authors' code: with 4, 16 and 64
    bottlenecks in two stages of width 8, and a random classifier in the place of the zero one, a step of size 1 changed the
    logits by 3.3, 3.1 and 3.2 thousand through the kernels and by 8, 17 and 55 thousand through the numbers; with basic
    blocks by 308, 228, 260 and by 158, 156, 149 (norms of the first-order change, one draw; JAX 0.10.2, Python 3.11.7,
    2026-11-22).

    Attributes:
      norm: another than None stands behind every convolution, the projections included; nothing else changes.
      block: "basic", two 3x3 convolutions, or "bottleneck", a 3x3 between two 1x1 with 4 times the channels at its end.
      depths: blocks of each stage; the first block of all but the first stage halves the image.
      width: channels of the first stage, of a bottleneck before the 4 times; doubled from stage to stage.
      stem: "imagenet": 7x7 with stride 2 and max pooling; "cifar": 3x3 with stride 1 and no pooling, for 32x32 images.
      shortcut: where the shape changes: "projection", a 1x1 convolution, or "zeros", which appends channels of zeros.
      skip: whether the shortcuts are there. The twin without has no branches, so that none of its kernels is scaled or zero.
      branch_scale: how the branches start, a name in `initializers.RESIDUAL_SCALES`; None: all kernels as `initializer`
        draws them, the classifier's too.
      scan: False writes the blocks out instead of scanning over the identical ones of each stage.
      remat: recompute activations in the backward pass (see `nn.Stack`).
    """

    num_classes: int = 1000
    block: str = "bottleneck"
    depths: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    stem: str = "imagenet"
    shortcut: str = "projection"
    skip: bool = True
    branch_scale: str | None = "fixup"
    scan: bool = True
    remat: bool = False

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_choice("block", self.block, ("basic", "bottleneck"))
        check_choice("stem", self.stem, ("imagenet", "cifar"))
        check_choice("shortcut", self.shortcut, ("projection", "zeros"))
        if self.branch_scale is not None:
            check_choice("branch_scale", self.branch_scale, RESIDUAL_SCALES)

    @nn.nowrap
    def _sizes(self, features: int, stride: int) -> list[tuple[int, ...]]:
        """(channels, window, stride) of each convolution of a block."""
        if self.block == "basic":
            return [(features, 3, stride), (features, 3)]
        return [(features, 1), (features, 3, stride), (_EXPANSION * features, 1)]

    @nn.nowrap
    def _scale(self) -> BranchScale:
        if self.branch_scale is None or not self.skip:
            return BranchScale()
        return RESIDUAL_SCALES[self.branch_scale](sum(self.depths), len(self._sizes(self.width, 1)))

    @nn.nowrap
    def _parts(self) -> dict[str, Any]:
        return dict(norm=self._norm(), act=self._act, shift=functools.partial(Shift, self._bias_init))

    @nn.nowrap
    def _block(self, features: int, stride: int = 1, *, reshapes: bool = False) -> ModuleDef:
        scale, conv = self._scale(), self._symmetric_conv
        sizes = self._sizes(features, stride)
        factors = [scale.kernels] * (len(sizes) - 1) + [scale.last_kernel]
        linears = [
            functools.partial(conv, *size, factor=factor) for size, factor in zip(sizes, factors, strict=True)
        ]
        return functools.partial(
            FixupBlock,
            tuple(linears),
            self._reshaping(sizes[-1][0], stride) if reshapes else None,
            self.skip,
            multiplier=scale.multiplier,
            **self._parts(),
        )

    @nn.nowrap
    def _reshaping(self, outputs: int, stride: int) -> ModuleDef:
        if self.shortcut == "zeros":
            return functools.partial(AppendZeros, outputs, stride)
        linear = functools.partial(self._symmetric_conv, outputs, 1, stride)
        return functools.partial(Layer, linear, self._norm(), _IDENTITY, use_bias=False)

    def _stem(self, x: jax.Array, train: bool) -> jax.Array:
        size = (7, 2) if self.stem == "imagenet" else (3, 1)
        linear = functools.partial(self._symmetric_conv, self.width, *size)
        x = FixupLayer(linear, shift_input=False, **self._parts(), name="stem")(x, train=train)
        return Pool(3, 2, padding=1, name="pool")(x) if self.stem == "imagenet" else x

    def _classified(self, x: jax.Array) -> jax.Array:
        x = Shift(self._bias_init, name="head_shift")(x)
        kernel_init = self._kernel_init("identity", factor=self._scale().last_kernel)
        linear = functools.partial(Dense, self.num_classes, kernel_init=kernel_init, **self._shared())
        return Layer(linear, None, _IDENTITY, name="head")(x).astype(jnp.float32)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        x = self._stem(x, train)
        for stage, depth in enumerate(self.depths):
            features, stride = self.width * 2**stage, min(stage + 1, 2)
            name = f"stage{stage + 1}"
            if stride > 1 or self._sizes(features, 1)[-1][0] != x.shape[-1]:
                down = self._block(features, stride, reshapes=True)
                x, depth = down(name=f"{name}_down")(x, train=train), depth - 1
            block = self._block(features)
            x = Stack(block, depth, scan=self.scan, remat=self.remat, name=name)(x, train=train)
        return self._classified(F.global_avg_pool(x))


_PAPER = "Zhang et al. 2019, arXiv:1901.09321"
_CIFAR = {"num_classes": 10, "block": "basic", "width": 16, "stem": "cifar", "shortcut": "zeros"}
_IMAGENET = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
VARIANTS = {
    **{
        f"fixup_resnet{depth}": Variant(
            FixupResNet,
            {"block": "basic" if depth < 50 else "bottleneck", "depths": depths},
            image=(224, 224, 3),
            paper=_PAPER,
        )
        for depth, depths in _IMAGENET.items()
    },
    **{
        f"fixup_resnet{depth}": Variant(
            FixupResNet, {**_CIFAR, "depths": 3 * ((depth - 2) // 6,)}, image=(32, 32, 3), paper=_PAPER
        )
        for depth in (20, 32, 44, 56, 110, 1202)
    },
}
