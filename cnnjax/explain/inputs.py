"""Checks of what is explained, before anything compiles."""

import jax
import jax.numpy as jnp


def check_floating(maps: jax.Array) -> None:
    """Raises TypeError for what has no gradient: images of integers."""
    if not jnp.issubdtype(maps.dtype, jnp.floating):
        raise TypeError(
            f"images must be floating point; got {maps.dtype}: use cnnjax.data.normalize. Of the words of a text, explain "
            "a layer behind their vectors, with layer=..."
        )


def spread(value: jax.Array | float, maps: jax.Array, name: str) -> jax.Array:
    """`value` in the shape and type of the maps.

    Raises:
      ValueError: it does not broadcast to them; `name` is what the text calls it.
    """
    array = jnp.asarray(value, maps.dtype)
    try:
        return jnp.broadcast_to(array, maps.shape)
    except ValueError:
        raise ValueError(f"{name} must broadcast to {maps.shape}; got shape {array.shape}") from None
