"""Dropping of entries, feature maps or whole residual branches at random.

What is kept is divided by the probability of keeping it, so the expected value is the input and nothing needs to be
scaled in evaluation. A rate of the Python number 0 is the identity. A rate may also be a traced number, for rates
that differ between layers or runs of one program; it must lie in [0, 1), which cannot be checked then.
"""

import jax
import jax.numpy as jnp

from cnnjax.functional.dtypes import at_least_float32

Rate = float | jax.Array


def dropout(x: jax.Array, key: jax.Array, *, rate: Rate) -> jax.Array:
    """Drop each entry with probability `rate` (Srivastava et al. 2014, section 10).

    Args:
      x: of any shape.
      key: a key of `jax.random`.
      rate: probability of dropping, in [0, 1).

    Returns:
      The shape and type of `x`.

    Raises:
      TypeError, ValueError: `x` is not floating-point, or `rate` is outside of [0, 1).
    """
    return _drop(x, key, rate, x.shape)


def dropout_channels(x: jax.Array, key: jax.Array, *, rate: Rate) -> jax.Array:
    """Drop each feature map of each example with probability `rate` (Tompson et al. 2015, section 3.2).

    Neighboring pixels are correlated, so that dropping single ones only lowers the learning rate.

    Args:
      x: `(batch, *spatial, channels)`.
      key: a key of `jax.random`.
      rate: probability of dropping, in [0, 1).

    Returns:
      The shape and type of `x`.

    Raises:
      TypeError, ValueError: `x` is not floating-point or of a rank below 2, or `rate` is outside of [0, 1).
    """
    if x.ndim < 2:
        raise ValueError(f"dropout_channels takes x (batch, *spatial, channels), got shape {x.shape}")
    return _drop(x, key, rate, (x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1]))


def drop_path(x: jax.Array, key: jax.Array, *, rate: Rate) -> jax.Array:
    """Drop each example with probability `rate`: stochastic depth, for a residual branch (Huang et al. 2016).

    Args:
      x: `(batch, ...)`, the branch before it is added to the skip connection.
      key: a key of `jax.random`.
      rate: probability of dropping, in [0, 1).

    Returns:
      The shape and type of `x`.

    Raises:
      TypeError, ValueError: `x` is not floating-point or has no batch axis, or `rate` is outside of [0, 1).
    """
    if x.ndim < 1:
        raise ValueError("drop_path takes x (batch, ...), got a scalar")
    return _drop(x, key, rate, (x.shape[0], *(1,) * (x.ndim - 1)))


def _drop(x: jax.Array, key: jax.Array, rate: Rate, mask_shape: tuple[int, ...]) -> jax.Array:
    wide = at_least_float32(x, "dropout")
    if not isinstance(rate, jax.Array):
        if not 0 <= rate < 1:
            raise ValueError(f"rate, the probability of dropping, must lie in [0, 1), got {rate}")
        if rate == 0:
            return x
    keep = 1 - rate
    mask = jax.random.bernoulli(key, keep, mask_shape)
    return jnp.where(mask, wide / jnp.asarray(keep, wide.dtype), 0).astype(x.dtype)
