"""Branches side by side: the inception modules."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.nn.blocks import Layer

Sizes = tuple[Any, ...]
Step = Sizes | tuple[Sizes, ...] | Callable[..., nn.Module]


class Branches(nn.Module):
    """Sequences of layers on the same input, concatenated along the channels (Szegedy et al. 2015, figure 2).

    A step of a branch is the sizes of a layer, `(features, window, ...)`; or a tuple of such sizes: layers side by side,
    concatenated; or, as the first step and in one branch only, what makes a pooling.

    The layers of a branch are called "branch_1", "branch_2", ...; one by itself "branch"; layers side by side "branch_2a",
    "branch_2b"; the pooling "pool".

    Attributes:
      branches: the steps of each branch, by its name.
      layer: makes a layer, called as `layer(*sizes, name=...)`.
    """

    branches: Mapping[str, Sequence[Step]]
    layer: Callable[..., Layer]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *output spatial, channels of all branches)`."""
        outputs = [self._branch(x, name, steps, train) for name, steps in self.branches.items()]
        return jnp.concatenate(outputs, axis=-1)

    def _branch(self, x: jax.Array, name: str, steps: Sequence[Step], train: bool) -> jax.Array:
        if callable(steps[0]):
            x, steps = steps[0](name="pool")(x), steps[1:]
        for number, step in enumerate(steps, 1):
            label = f"{name}_{number}" if len(steps) > 1 else name
            x = self._step(x, label, step, train)
        return x

    def _step(self, x: jax.Array, label: str, step: Any, train: bool) -> jax.Array:
        if not isinstance(step[0], Sequence):
            return self.layer(*step, name=label)(x, train=train)
        named = zip("abcdefgh", step, strict=False)
        sides = [self.layer(*sizes, name=label + letter)(x, train=train) for letter, sizes in named]
        return jnp.concatenate(sides, axis=-1)
