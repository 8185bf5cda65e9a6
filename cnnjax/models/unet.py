"""U-Net (Ronneberger et al. 2015): a class for every position, by a path down to coarse maps and up again.

31,030,658 parameters from one channel to two classes.
"""

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from cnnjax.initializers import Initializer
from cnnjax.models.base import Model, Variant, check_choice, check_rate
from cnnjax.nn import Activation, Conv, ConvTranspose, Dropout, Layer, Pool
from cnnjax.nn.blocks import ModuleDef


class Pair(nn.Module):
    """Two 3x3 layers.

    Attributes:
      features: number of channels.
      conv, norm, act: make the parts.
    """

    features: int
    conv: ModuleDef = Conv
    norm: ModuleDef | None = None
    act: ModuleDef = Activation

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *output spatial, features)`."""
        linear = functools.partial(self.conv, self.features, 3)
        for name in ("layer1", "layer2"):
            x = Layer(linear, self.norm, self.act, name=name)(x, train=train)
        return x


class UNet(Model, kw_only=True):
    """`depth` times two layers and a pooling, two layers, and as often upsampling, concatenation and two layers (figure 1).

    Maps images `(batch, *spatial, channels)` of one to three dimensions to logits `(batch, *output spatial, num_classes)`,
    which without padding are those of the middle part.

    The up-convolutions are linear and have no norm, as in the paper (the authors' code has a ReLU behind them). Kernels
    start as in its section 3.1: he_normal, where N counts the inputs of one output. An up-convolution has those of one
    position, whatever its window.

    Attributes:
      depth: number of poolings.
      width: channels of the first level; each level has twice those of the one above it.
      padding: of the 3x3 convolutions: "VALID", as in the paper, or "SAME", which keeps the size.
      dropout: rate behind the two coarsest levels on the way down. The paper gives none; the authors' code has 0.5.
      skip: False leaves out the concatenations: then the first layer of each level has half of the inputs on the way up.
    """

    num_classes: int = 2
    depth: int = 4
    width: int = 64
    padding: str = "VALID"
    dropout: float = 0.5
    skip: bool = True

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_choice("padding", self.padding, ("VALID", "SAME"))
        check_rate("dropout", self.dropout)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> logits `(batch, *output spatial, num_classes)`.

        Raises ValueError for sizes of which a pooling or a convolution cannot make a whole number of positions.
        """
        self.check()
        self._check_sizes(x.shape[1:-1])
        passed = []
        for level in range(self.depth):
            x = self._pair(level, f"down{level + 1}")(x, train=train)
            if level == self.depth - 1:
                x = Dropout(self.dropout)(x, train=train)
            passed.append(x)
            x = Pool(2, name=f"pool{level + 1}")(x)
        x = self._pair(self.depth, "bottom")(x, train=train)
        x = Dropout(self.dropout)(x, train=train)
        for level in reversed(range(self.depth)):
            x = self._upsampled(level, x)
            if self.skip:
                x = jnp.concatenate([center(passed[level], x.shape[1:-1]), x], axis=-1)
            x = self._pair(level, f"up{level + 1}")(x, train=train)
        return self._head(x)

    @nn.nowrap
    def _pair(self, level: int, name: str) -> Pair:
        conv = functools.partial(self._conv, padding=self.padding)
        return Pair(self.width * 2**level, conv, self._norm(), self._act, name=name)

    def _upsampled(self, level: int, x: jax.Array) -> jax.Array:
        kernel_init = per_position(self._kernel_init()())
        linear = functools.partial(
            ConvTranspose, self.width * 2**level, 2, 2, kernel_init=kernel_init, **self._shared()
        )
        identity = functools.partial(Activation, "identity")
        return Layer(linear, None, identity, name=f"upsample{level + 1}")(x)

    @nn.nowrap
    def _check_sizes(self, sizes: Sequence[int]) -> None:
        # A pair of layers loses `lost` positions. Sizes that fit are `step` apart; the whole network loses `total`.
        step, lost = 2**self.depth, 0 if self.padding == "SAME" else 4
        total = lost * (3 * step - 2)
        for axis, size in enumerate(sizes):
            below = size - (size + lost) % step
            if below == size > total:
                continue
            least = max(size, total + 1)
            nearest = [below] * (below > total) + [least + -(least + lost) % step]
            raise ValueError(
                f"spatial axis {axis} has size {size}: with depth={self.depth} and padding={self.padding!r} the sizes "
                f"that fit are {step} apart, the nearest {' and '.join(map(str, nearest))}; pad or crop the images"
            )


def center(x: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """The middle of `x` `(batch, *spatial, channels)`, of these sizes: the first of two where it cannot be exact."""
    starts = [(n - size) // 2 for n, size in zip(x.shape[1:-1], sizes, strict=True)]
    return x[(slice(None), *[slice(a, a + n) for a, n in zip(starts, sizes, strict=True)])]


def per_position(initialize: Initializer) -> Initializer:
    """The initializer of an up-convolution whose stride is its window: a dense layer from a position to a block of them."""

    def initialized(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        *window, n_in, n_out = shape
        dense = initialize(key, (n_in, math.prod(window) * n_out), dtype)
        return jnp.moveaxis(dense.reshape(n_in, *window, n_out), 0, -2)

    return initialized


_PAPER = "Ronneberger et al. 2015, arXiv:1505.04597"
VARIANTS = {
    "unet": Variant(UNet, {}, image=(572, 572, 1), paper=_PAPER),
    "unet_padded": Variant(UNet, {"padding": "SAME"}, image=(512, 512, 1), paper=_PAPER),
    # The same class on volumes: the 3D U-Net of Cicek et al. 2016 (arXiv:1606.06650) has other widths.
    "unet3d": Variant(
        UNet,
        {"padding": "SAME", "depth": 3, "width": 32},
        image=(64, 64, 64, 1),
        paper=f"{_PAPER}, on volumes",
    ),
}
