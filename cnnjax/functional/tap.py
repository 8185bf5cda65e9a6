"""The tap: statistics of a gradient, delivered as the gradient of a slot.

The cotangent of an activation exists only for a moment inside the backward pass. A tap looks at it there: it lets the
cotangent through unchanged and hands back its moments, a few numbers, as "the gradient" of a second argument, the slot. One
call of `jax.grad` with respect to (parameters, slots) gives both, and nothing of the activation's size is kept.
"""

import jax
import jax.numpy as jnp

from cnnjax.functional.statistics import scaled_moments


def new_slot() -> jax.Array:
    """An empty slot, `(3,)`. Its value is never read: only its gradient means something."""
    return jnp.zeros(3, jnp.float32)


@jax.custom_vjp
def tap(x: jax.Array, slot: jax.Array) -> jax.Array:
    """Returns `x`; in the backward pass the gradient of `slot` is `scaled_moments(cotangent of x)`; `Moments.of` reads it.

    The cotangent itself goes through bit by bit, so a tap changes no other gradient. There is no forward-mode rule: a
    Jacobian by `jax.jvp` goes through a network without slots.

    Args:
      x: any array.
      slot: from `new_slot`.
    """
    return x


def _tap_forward(x: jax.Array, slot: jax.Array) -> tuple[jax.Array, None]:
    return x, None


def _tap_backward(_: None, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    return cotangent, scaled_moments(cotangent)


tap.defvjp(_tap_forward, _tap_backward)
