"""Detours: identities in the forward pass that send the gradient another way back.

The switch of a detour is a float32 number, 0 or 1, so that a switch may be an array that a scan runs over.
"""

import jax
import jax.numpy as jnp

from cnnjax.functional import statistics


@jax.custom_vjp
def detour(y: jax.Array, other: jax.Array, taken: jax.Array) -> jax.Array:
    """Returns `y`; the cotangent goes to `other` where the switch `taken` is on, else to `y`.

    Args:
      y: any array.
      other: of the same shape and type. Its value is never read.
      taken: 0 or 1, `()`.
    """
    return y


def _detour_forward(y: jax.Array, other: jax.Array, taken: jax.Array) -> tuple[jax.Array, jax.Array]:
    return y, taken


def _detour_backward(taken: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    zero = jnp.zeros_like(g)
    return jnp.where(taken > 0, zero, g), jnp.where(taken > 0, g, zero), jnp.zeros_like(taken)


detour.defvjp(_detour_forward, _detour_backward)


@jax.custom_vjp
def scale_gradient(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Returns `x`; the cotangent is multiplied by `factor`, `()`."""
    return x


def _scale_forward(x: jax.Array, factor: jax.Array) -> tuple[jax.Array, jax.Array]:
    return x, factor


def _scale_backward(factor: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    return g * factor.astype(g.dtype), jnp.zeros_like(factor)


scale_gradient.defvjp(_scale_forward, _scale_backward)


@jax.custom_vjp
def enter(x: jax.Array, gain: jax.Array, taken: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Before a part whose gradient is to be rescaled: `x`, and a token that `leave` takes behind the part.

    Where `taken` is on, the cotangent that comes out of the part is scaled to `gain` times the Euclidean norm of the one
    that went into it; its direction stays. A cotangent of zeros stays zero.

    Args:
      x: what goes into the part.
      gain: `()`, float32.
      taken: 0 or 1, `()`.
    """
    return x, jnp.zeros((), jnp.float32)


def _enter_forward(x: jax.Array, gain: jax.Array, taken: jax.Array) -> tuple:
    return enter(x, gain, taken), (gain, taken)


def _enter_backward(saved: tuple, cotangents: tuple) -> tuple[jax.Array, jax.Array, jax.Array]:
    (gain, taken), (g, norm) = saved, cotangents
    largest, squares = statistics.scaled_norm(g)
    wide = g.astype(jnp.float32) / jnp.where(largest > 0, largest, 1)
    rescaled = wide * (gain * norm / jnp.sqrt(jnp.where(squares > 0, squares, 1)))
    return (
        jnp.where(taken > 0, rescaled.astype(g.dtype), g),
        jnp.zeros_like(gain),
        jnp.zeros_like(taken),
    )


enter.defvjp(_enter_forward, _enter_backward)


@jax.custom_vjp
def leave(y: jax.Array, token: jax.Array) -> jax.Array:
    """Returns `y`; the norm of its cotangent travels to `enter` as the cotangent of `token`."""
    return y


def _leave_forward(y: jax.Array, token: jax.Array) -> tuple[jax.Array, None]:
    return y, None


def _leave_backward(_: None, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    largest, squares = statistics.scaled_norm(g)
    return g, largest * jnp.sqrt(squares)


leave.defvjp(_leave_forward, _leave_backward)
