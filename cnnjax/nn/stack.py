"""Depth as a scan: identical blocks whose parameters are stacked along a leading axis."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp


class Stack(nn.Module):
    """`length` identical blocks, one after the other, compiled once whatever their number.

    Every variable of the block, in any collection, has a leading axis of size `length`: the layers in execution order.

    Attributes:
      block: makes one block; called as `block(name=...)`, it gives a module that maps `(x, train=...)` to an array like `x`.
      length: number of blocks.
      scan: False writes the blocks out, as modules `block_0`, `block_1`, ...: for comparison, and for `unstack`.
      remat: keep only about 2 sqrt(length) activations for the backward pass and compute the others anew (Chen et al.
        2016).
    """

    block: Callable[..., nn.Module]
    length: int
    scan: bool = True
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: an array that a block maps to one of the same shape."""
        if self.length < 0:
            raise ValueError(f"a stack has 0 blocks or more; got length={self.length}")
        if not self.scan:
            return self._unrolled(x, train)
        if self.length == 0:
            return x
        if self.remat and not self.is_initializing():
            return self._checkpointed(x, train)
        return _scan(self.block(name="block"), x, train, self.length)

    def _unrolled(self, x: jax.Array, train: bool) -> jax.Array:
        def run(block: nn.Module, x: jax.Array) -> jax.Array:
            return block(x, train=train)

        for i in range(self.length):
            x = (nn.remat(run) if self.remat else run)(self.block(name=f"block_{i}"), x)
        return x

    def _checkpointed(self, x: jax.Array, train: bool) -> jax.Array:
        """A scan over chunks whose inner scans are checkpointed; the variables keep their one leading axis.

        Where the chunks hold more than `length` layers, those past the end let `x` through: they compute the last layer
        of zeros, which overflows nowhere, and nothing comes of it.
        """
        chunk = _chunk(self.length)
        chunks = -(-self.length // chunk)
        layers = jnp.arange(chunks * chunk)

        def layer(block: nn.Module, x: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
            if len(layers) == self.length:
                return block(x, train=train), None
            real = index < self.length
            return jnp.where(real, block(jnp.where(real, x, 0), train=train), x), None

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


def _over_layers(body: Callable, length: int) -> Callable:
    # True stands for every collection and every random stream.
    return nn.scan(body, variable_axes={True: 0}, split_rngs={True: True}, length=length)


def _scan(block: nn.Module, x: jax.Array, train: bool, length: int) -> jax.Array:
    def body(block: nn.Module, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return block(x, train=train), None

    return _over_layers(body, length)(block, x, None)[0]


def _chunk(length: int) -> int:
    """Layers of a chunk: of the numbers near sqrt(length) the one that fills its chunks best."""
    root = math.sqrt(length)
    near = range(math.ceil(root / 1.5), math.floor(root * 1.5) + 1)
    return min(near, key=lambda chunk: (-length % chunk, abs(chunk - root)))


def unstack(variables: dict, length: int) -> dict:
    """Variables of a scanned `Stack` (of any collection) as those of the same stack with `scan=False`.

    Args:
      variables: `{"block": tree of arrays (length, ...)}`.
      length: number of blocks.

    Returns:
      `{"block_0": tree, "block_1": tree, ...}`.
    """
    return {f"block_{i}": jax.tree.map(lambda a, i=i: a[i], variables["block"]) for i in range(length)}


def restack(variables: dict) -> dict:
    """The inverse of `unstack`: `{"block_0": tree, ...}` becomes `{"block": tree of stacked arrays}`."""
    blocks = [variables[f"block_{i}"] for i in range(len(variables))]
    return {"block": jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)}
