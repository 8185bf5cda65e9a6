"""Statistics of a layer's activations and gradients that survive very small and very large numbers.

A squared float32 underflows below 1e-22, and gradients of deep networks lie far below. So norms are scaled by the largest
entry before they are squared, and kept as base-10 logarithms: 1e-60 is the number -60, and exactly zero is -inf.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Moments(NamedTuple):
    """Moments of all entries of an array, float32."""

    mean: jax.Array
    log10_second_moment: jax.Array
    log10_max: jax.Array

    @classmethod
    def of(cls, scaled: jax.Array) -> "Moments":
        """Reads what `scaled_moments` made, `(..., 3)`, of one array or of many."""
        mean, square, largest = jnp.moveaxis(scaled, -1, 0)
        log10_max = jnp.log10(largest)
        return cls(mean, 2 * log10_max + jnp.log10(square), log10_max)


def moments(x: jax.Array) -> Moments:
    """Mean, log10 of the mean square and log10 of the largest magnitude over all entries of `x`, of any shape.

    NaN or infinite entries give NaN, an array of zeros gives -inf.
    """
    return Moments.of(scaled_moments(x))


def scaled_moments(x: jax.Array) -> jax.Array:
    """The mean of all entries of `x`, the mean of (x / m)^2, and m = max |x|: `(3,)`, float32.

    What is computed in every layer; the logarithms are taken later, of all layers at once (`Moments.of`).
    """
    x = x.astype(jnp.float32)
    largest, scaled = _scaled(x)
    return jnp.stack([_mean(x), _mean(scaled * scaled), largest])


def log10_norm(x: jax.Array) -> jax.Array:
    """log10 of the Euclidean norm of all entries of `x`."""
    return read_norms(scaled_norm(x))


def scaled_norm(x: jax.Array) -> jax.Array:
    """m = max |x| and the sum of (x / m)^2 over all entries of `x`: `(2,)`, float32."""
    largest, scaled = _scaled(x.astype(jnp.float32))
    return jnp.stack([largest, jnp.sum(scaled * scaled)])


def read_norms(scaled: jax.Array) -> jax.Array:
    """log10 of the norms from what `scaled_norm` made, `(..., 2)`: log10(m) + log10(sum((x / m)^2)) / 2."""
    largest, squares = jnp.moveaxis(jnp.log10(scaled), -1, 0)
    return largest + squares / 2


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

    This is the correlation c of mean-field theory (Poole et al. 2016), uncentered. NaN where an example is alone, or all
    zeros, or smaller than the largest one by 19 orders of magnitude.

    Args:
      x: `(batch, ...)`.
    """
    if x.shape[0] < 2:
        return jnp.full((), jnp.nan, jnp.float32)
    _, scaled = _scaled(x.astype(jnp.float32))
    rows = scaled.reshape(x.shape[0], -1)
    inner = jnp.sum(rows * jnp.roll(rows, -1, axis=0), axis=1)
    squares = jnp.sum(rows * rows, axis=1)
    return jnp.mean(inner / jnp.sqrt(squares * jnp.roll(squares, -1)))


def _scaled(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    largest = jnp.max(jnp.abs(x), initial=0.0)
    return largest, x / jnp.where(largest == 0, 1, largest)


def _mean(x: jax.Array) -> jax.Array:
    return jnp.sum(x) / x.size


def _fraction(where: jax.Array) -> jax.Array:
    return _mean(where.astype(jnp.float32))
