"""Depth as a scan: identical blocks whose parameters are stacked along a leading axis."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class Stack(nn.Module):
    """`length` identical blocks, one after the other, compiled once whatever their number.

    Every variable of the block, in any collection, has a leading axis of size `length`: the layers in execution order.

    Attributes:
      block: makes one block; called as `block(name=...)`, it gives a module that maps `(x, train=...)` to an array like `x`.
      length: number of blocks.
      scan: False writes the blocks out, as modules `block_0`, `block_1`, ...: for comparison, and for `unstack`.
      rates: a number for each block, which is then called as `block(x, rate=..., train=...)`: stochastic depth that grows.
        A sequence for each block, all of one length, gives it as many numbers.
      remat: keep only about 2 sqrt(length) activations for the backward pass and compute the others anew (Chen et al.
        2016).
    """

    block: Callable[..., nn.Module]
    length: int
    rates: Sequence[float] | Sequence[Sequence[float]] | None = None
    scan: bool = True
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: an array that a block maps to one of the same shape."""
        if self.length < 0:
            raise ValueError(f"a stack has 0 blocks or more; got length={self.length}")
        if self.rates is not None and len(self.rates) != self.length:
            raise ValueError(f"a stack of {self.length} blocks takes as many rates; got {len(self.rates)}")
        if not self.scan:
            return self._unrolled(x, train)
        if self.length == 0:
            return x
        if self.remat and not self.is_initializing():
            return self._checkpointed(x, train)
        return self._scanned(x, train)

    def _unrolled(self, x: jax.Array, train: bool) -> jax.Array:
        for i in range(self.length):
            run = functools.partial(_run, rate=None if self.rates is None else self.rates[i], train=train)
            x = (nn.remat(run) if self.remat else run)(self.block(name=f"block_{i}"), x)
        return x

    def _scanned(self, x: jax.Array, train: bool) -> jax.Array:
        def body(block: nn.Module, x: jax.Array, rate: jax.Array | None) -> tuple[jax.Array, None]:
            return _run(block, x, rate=rate, train=train), None

        return _over_layers(body, self.length)(self.block(name="block"), x, self._rates())[0]

    def _rates(self) -> jax.Array | None:
        return None if self.rates is None else jnp.asarray(self.rates, jnp.float32)

    def _checkpointed(self, x: jax.Array, train: bool) -> jax.Array:
        """A scan over chunks whose inner scans are checkpointed; the variables keep their one leading axis.

        Where the chunks hold more than `length` layers, those past the end let `x` through: they compute the last layer
        of zeros, which overflows nowhere, and nothing comes of it.
        """
        chunk = _chunk(self.length)
        chunks = -(-self.length // chunk)
        layers = jnp.arange(chunks * chunk)
        rates = self._rates()

        def layer(block: nn.Module, x: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
            rate = None if rates is None else rates[jnp.minimum(index, self.length - 1)]
            if len(layers) == self.length:
                return _run(block, x, rate=rate, train=train), None
            real = index < self.length
            return jnp.where(real, _run(block, jnp.where(real, x, 0), rate=rate, train=train), x), None

        def outer(block: nn.Module, x: jax.Array, indices: jax.Array) -> tuple[jax.Array, None]:
            return _over_layers(layer, chunk)(block, x, indices)

        def nested(block: nn.Module, x: jax.Array) -> jax.Array:
            chunked = _over_layers(nn.remat(outer, prevent_cse=False), chunks)
            return chunked(block, x, layers.reshape(chunks, chunk))[0]

        def fold(a: jax.Array) -> jax.Array:
            filled = a if len(layers) == self.length else a[jnp.minimum(layers, self.length - 1)]
            return filled.reshape(chunks, chunk, *a.shape[1:])

        folded = nn.map_variables(
            nested,
            True,
            trans_in_fn=lambda tree: jax.tree.map(fold, tree),
            trans_out_fn=lambda tree: jax.tree.map(
                lambda a: a.reshape(-1, *a.shape[2:])[: self.length], tree
            ),
            mutable=True,
        )
        return folded(self.block(name="block"), x)


def _run(
    block: nn.Module, x: jax.Array, *, rate: float | Sequence[float] | jax.Array | None, train: bool
) -> jax.Array:
    return block(x, train=train) if rate is None else block(x, rate=rate, train=train)


def _over_layers(body: Callable, length: int) -> Callable:
    # True stands for every collection and every random stream.
    return nn.scan(body, variable_axes={True: 0}, split_rngs={True: True}, length=length)


def _chunk(length: int) -> int:
    """Layers of a chunk: of the numbers near sqrt(length) the one that fills its chunks best."""
    root = math.sqrt(length)
    near = range(math.ceil(root / 1.5), math.floor(root * 1.5) + 1)
    return min(near, key=lambda chunk: (-length % chunk, abs(chunk - root)))


def unstack(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of a model, of any collection, with its stacks written out: those of the same model with `scan=False`.

    Wherever there is `{"block": tree of arrays (length, ...)}`, it becomes `{"block_0": tree, "block_1": tree, ...}`.
    """
    if set(variables) == {"block"}:
        length = len(jax.tree.leaves(variables)[0])
        blocks = [jax.tree.map(lambda a, i=i: a[i], variables["block"]) for i in range(length)]
        return {f"block_{i}": unstack(block) for i, block in enumerate(blocks)}
    return {k: unstack(v) if isinstance(v, Mapping) else v for k, v in variables.items()}


def restack(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `unstack`: `{"block_0": tree, ...}` becomes `{"block": tree of stacked arrays}`."""
    if variables and all(name.startswith("block_") for name in variables):
        blocks = [restack(variables[f"block_{i}"]) for i in range(len(variables))]
        return {"block": jax.tree.map(_stacked, *blocks)}
    return {k: restack(v) if isinstance(v, Mapping) else v for k, v in variables.items()}


def _stacked(*leaves: Any) -> Any:
    # JAX would compile a program for each shape.
    on_host = all(isinstance(leaf, np.ndarray) for leaf in leaves)
    return np.stack(leaves) if on_host else jnp.stack(leaves)
