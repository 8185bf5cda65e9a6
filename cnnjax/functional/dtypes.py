"""The type in which sums and statistics are computed."""

import jax
import jax.numpy as jnp


def at_least_float32(x: jax.Array, name: str) -> jax.Array:
    """Return `x` in float32 if its type is narrower, else unchanged; `name` is what errors call its function.

    Raises:
      TypeError: `x` is not of a real floating-point type.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name} takes floating-point numbers, got {x.dtype}: use x.astype(jnp.float32)")
    return widen(x)


def widen(x: jax.Array) -> jax.Array:
    """Return `x` in the type of its sums: float32 for narrower floating-point numbers, else its own."""
    narrow = jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits < 32
    return x.astype(jnp.float32) if narrow else x
