"""Statistics of a layer's activations and gradients that survive very small and very large numbers.

A squared float32 underflows below 1e-22, and gradients of deep networks lie far below. So norms are scaled by the largest
entry before they are squared, and kept as base-10 logarithms: 1e-60 is the number -60, and exactly zero is -inf.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Moments(NamedTuple):
    """Moments of all entries of an array, float32 scalars."""

    mean: jax.Array
    log10_second_moment: jax.Array
    log10_max: jax.Array


def zero_moments() -> Moments:
    """A `Moments` of zeros, for its structure."""
    return Moments(*(jnp.zeros((), jnp.float32) for _ in Moments._fields))


def moments(x: jax.Array) -> Moments:
    """Mean, log10 of the mean square and log10 of the largest magnitude over all entries of `x`, of any shape.

    NaN or infinite entries give NaN, an array of zeros gives -inf.
    """
    x = x.astype(jnp.float32)
    largest, scaled = _scaled(x)
    log10_max = jnp.log10(largest)
    log10_second_moment = 2 * log10_max + jnp.log10(jnp.mean(scaled * scaled))
    return Moments(jnp.mean(x), log10_second_moment, log10_max)


def log10_norm(x: jax.Array) -> jax.Array:
    """log10 of the Euclidean norm of all entries of `x`: log10(m) + log10(sum((x / m)^2)) / 2 with m = max |x|."""
    largest, scaled = _scaled(x.astype(jnp.float32))
    return jnp.log10(largest) + jnp.log10(jnp.sum(scaled * scaled)) / 2


def slope_fractions(
    z: jax.Array, derivative: Callable[[jax.Array], jax.Array], *, max_slope: float
) -> tuple[jax.Array, jax.Array]:
    """The fractions of entries at which an activation passes no gradient, and little of it.

    Args:
      z: pre-activations, any shape.
      derivative: of the activation, elementwise.
      max_slope: the largest |derivative| anywhere.

    Returns:
      (dead, saturated): the fractions where the derivative is exactly 0, and where it is below a tenth of
      `max_slope`. What is dead is saturated, too.
    """
    slope = jnp.abs(derivative(z).astype(jnp.float32))
    return _fraction(slope == 0), _fraction(slope < 0.1 * max_slope)


def pair_correlation(x: jax.Array) -> jax.Array:
    """The mean cosine of the angle between neighboring examples of a batch (each with the next, the last with the first).

    This is the correlation c of mean-field theory (Poole et al. 2016), uncentered. NaN where an example is all zeros
    or alone.

    Args:
      x: `(batch, ...)`.
    """
    if x.shape[0] < 2:
        return jnp.full((), jnp.nan, jnp.float32)
    rows = x.astype(jnp.float32).reshape(x.shape[0], -1)
    rows = rows / jnp.max(jnp.abs(rows), axis=1, keepdims=True)
    inner = jnp.sum(rows * jnp.roll(rows, -1, axis=0), axis=1)
    norms = jnp.sqrt(jnp.sum(rows * rows, axis=1))
    return jnp.mean(inner / (norms * jnp.roll(norms, -1)))


def _scaled(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    largest = jnp.max(jnp.abs(x), initial=0.0)
    return largest, x / jnp.where(largest == 0, 1, largest)


def _fraction(where: jax.Array) -> jax.Array:
    return jnp.mean(where.astype(jnp.float32))
