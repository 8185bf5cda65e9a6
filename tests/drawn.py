"""Variables and images drawn with NumPy: JAX takes seconds to compile its random normals."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def images(*shape: int, seed: int = 1) -> jax.Array:
    """Standard normal entries."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def shapes(module: nn.Module, *inputs: Any, **options: Any) -> Any:
    """The variables of a module as shapes: nothing is computed."""
    return jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **options))


def variables(module: nn.Module, *inputs: Any, gain: float = 1.0, seed: int = 0) -> Any:
    """Variables of a module: kernels of deviation gain / sqrt(fan_in), scales and slopes near 1, biases and means near 0."""
    rng = np.random.default_rng(seed)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = path[-1].key
        stacked = any(key.key == "block" for key in path)
        if name == "kernel":
            fan_in = math.prod(leaf.shape[stacked:-1])
            values = rng.normal(0, gain / math.sqrt(fan_in), leaf.shape)
        elif name in ("scale", "variance", "slope"):
            values = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            values = rng.normal(0, 0.1, leaf.shape)
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes(module, *inputs))
