"""Batches drawn by (key, step) alone: a run resumed at any step sees the batches it would have seen."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def batch_indices(
    key: jax.Array, first_step: jax.Array | int, *, steps: int, size: int, batch_size: int
) -> jax.Array:
    """Indices `(steps, batch_size)`, int32, of the examples in `steps` consecutive batches.

    Every epoch draws without replacement: the `size // batch_size` batches of epoch `e` are cut one after
    the other from `jax.random.permutation(jax.random.fold_in(key, e), size)`; the `size % batch_size`
    examples at its end are left out of that epoch. `first_step` may be traced. A row depends on `key` and its
    step alone, not on how a run is cut into segments.

    Raises:
        ValueError: `steps` or `batch_size` is below 1, or a batch is larger than the data.
    """
    if steps < 1 or batch_size < 1:
        raise ValueError(f"steps and batch_size must be at least 1, got {steps} and {batch_size}")
    if batch_size > size:
        raise ValueError(
            f"a batch of {batch_size} needs as many examples, got {size}: make batch_size smaller"
        )
    steps_per_epoch = size // batch_size
    # At worst the first step is the last of its epoch.
    epochs = 1 + math.ceil((steps - 1) / steps_per_epoch)
    first_step = jnp.asarray(first_step, jnp.int32)
    first_epoch = first_step // steps_per_epoch
    last_epoch = (first_step + steps - 1) // steps_per_epoch

    def batches(epoch: jax.Array) -> jax.Array:
        order = jax.random.permutation(jax.random.fold_in(key, epoch), size).astype(jnp.int32)
        return order[: steps_per_epoch * batch_size].reshape(steps_per_epoch, batch_size)

    def batches_if_needed(epoch: jax.Array) -> jax.Array:
        # Permuting 50,000 indices takes a CPU longer than a small training step: draw no epoch in vain.
        unused = jnp.zeros((steps_per_epoch, batch_size), jnp.int32)
        return jax.lax.cond(epoch <= last_epoch, batches, lambda _: unused, epoch)

    rows = jax.lax.map(batches_if_needed, first_epoch + jnp.arange(epochs, dtype=jnp.int32))
    rows = rows.reshape(epochs * steps_per_epoch, batch_size)
    return jax.lax.dynamic_slice_in_dim(rows, first_step % steps_per_epoch, steps)
