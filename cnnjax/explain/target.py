"""The class that is explained."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from cnnjax.models.base import is_integer

Target = int | jax.Array | np.ndarray | None


def resolve_target(scores: jax.Array, target: Target) -> jax.Array:
    """The class of each image, `(batch,)` in int32.

    Args:
      scores: `(batch, classes)`.
      target: one class for all images, one for each `(batch,)`, or None for the class of the highest score.

    Raises:
      ValueError: there is no such class, or there are not as many as images.
      TypeError: a class is no integer.
    """
    batch, classes = scores.shape
    if target is None:
        return jnp.argmax(scores, axis=-1).astype(jnp.int32)
    integer = is_integer(target) or jnp.issubdtype(getattr(target, "dtype", jnp.float32), jnp.integer)
    if not integer:
        raise TypeError(
            f"target must be the index of a class, an integer from 0 to {classes - 1}; got {target!r}"
        )
    if jnp.shape(target) not in ((), (batch,)):
        raise ValueError(
            f"target must be one class, or one for each of the {batch} images; got shape {jnp.shape(target)}"
        )
    if not isinstance(target, Tracer):
        chosen = np.asarray(target).reshape(-1)
        if wrong := [int(index) for index in chosen if not 0 <= index < classes]:
            raise ValueError(
                f"target must be a class from 0 to {classes - 1}, as the model has {classes}; got {wrong[0]}"
            )
    return jnp.broadcast_to(jnp.asarray(target, jnp.int32), (batch,))


def chosen_scores(scores: jax.Array, target: jax.Array) -> jax.Array:
    """The scores `(batch,)` of the classes `(batch,)` among all, `(batch, classes)`; NaN for a class that there is not."""
    return jnp.take_along_axis(scores, target[:, None], axis=-1, mode="fill")[:, 0]
