"""The multilayer perceptron, the oldest subject of the vanishing gradient (Hochreiter 1991; Glorot & Bengio 2010)."""

import functools

import flax.linen as nn
import jax

from cnnjax.models.base import Model, Variant, check_depth, flatten
from cnnjax.models.plain import Cell
from cnnjax.nn import Stack


class MLP(Model, kw_only=True):
    """`depth` dense layers of `width` units; the last one gives the logits.

    Attributes:
      depth: layers with weights, 2 or more.
      width: units of a hidden layer.
      skip: adds the input of each hidden layer but the first before its activation.
      scan: False writes the layers out instead of scanning over them.
      remat: recompute activations in the backward pass (see `nn.Stack`).
    """

    depth: int = 3
    width: int = 256
    skip: bool = False
    scan: bool = True
    remat: bool = False

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        check_depth(self.depth, least=2)
        super().check()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, ...)`, flattened -> logits `(batch, num_classes)`."""
        self.check()
        x = self._dense_layer(self.width, name="stem")(flatten(x), train=train)
        cell = functools.partial(
            Cell, functools.partial(self._dense_layer, self.width, name="layer"), self.skip
        )
        x = Stack(cell, self.depth - 2, scan=self.scan, remat=self.remat, name="stack")(x, train=train)
        return self._head(x)


VARIANTS = {
    "mlp": Variant(
        MLP, {}, image=(28, 28, 1), paper="Glorot & Bengio 2010, proceedings.mlr.press/v9/glorot10a"
    )
}
