"""The plain convolutional network of any depth: the subject of He et al. 2015 (section 2.2) and Xiao et al. 2018."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax

from cnnjax.functional.padding import Padding
from cnnjax.models.base import Model, Variant, check_depth, check_padding, flatten
from cnnjax.nn import Layer, Stack


class Cell(nn.Module):
    """One hidden layer of a stack, with or without the identity around it.

    Attributes:
      make: makes the layer.
      skip: whether the input is added before the activation.
    """

    make: Callable[[], Layer]
    skip: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, ..., channels)` -> the same shape."""
        return self.make()(x, residual=x if self.skip else None, train=train)


class Plain(Model, kw_only=True):
    """`depth - 1` convolutions of one width at full resolution, flattened, and a dense head.

    Attributes:
      depth: layers with weights, the head included; 2 or more.
      width: channels of every convolution.
      skip: adds the input of each convolution but the first before its activation; no parameter is added.
      window: size of the kernels.
      padding: of the convolutions; "CIRCULAR" keeps zeros from leaking in, as theory assumes.
      scan: False writes the layers out instead of scanning over them.
      remat: recompute activations in the backward pass (see `nn.Stack`).
    """

    depth: int = 10
    width: int = 16
    skip: bool = False
    window: int = 3
    padding: Padding = "SAME"
    scan: bool = True
    remat: bool = False

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        check_depth(self.depth, least=2)
        super().check()
        check_padding(self.padding)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        conv_layer = functools.partial(self._conv_layer, self.width, self.window, padding=self.padding)
        x = conv_layer(name="stem")(x, train=train)
        cell = functools.partial(Cell, functools.partial(conv_layer, name="layer"), self.skip)
        x = Stack(cell, self.depth - 2, scan=self.scan, remat=self.remat, name="stack")(x, train=train)
        return self._head(flatten(x))


VARIANTS = {
    "plain": Variant(
        Plain,
        {},
        image=(32, 32, 3),
        paper="He et al. 2015, arXiv:1502.01852; Xiao et al. 2018, arXiv:1806.05393",
    )
}
