"""Guided backpropagation: the gradient without what would inhibit a unit."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax import functional as F
from cnnjax.explain.cut import cut
from cnnjax.explain.inputs import check_floating
from cnnjax.explain.target import Target, chosen_scores, resolve_target
from cnnjax.nn import Activation


def guided_backpropagation(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    *,
    target: Target = None,
    layer: str | None = None,
) -> jax.Array:
    """Guided backpropagation (Springenberg et al. 2015): the gradient of the score, passed on only where it excites.

    At every activation but the identity the gradient with respect to the pre-activation z passes where both it and z are
    positive. With ReLU that is the paper's rule; other activations keep their own derivative where it passes. The forward
    pass stays as it is, bit for bit. May be called inside jit.

    Args:
      model: called as `model(images, train=False)`.
      variables: of the model.
      images: `(batch, *spatial, channels)`.
      target: the class, one for all images or `(batch,)`; None takes the predicted one.
      layer: the gradient with respect to what this layer puts out, by its name (see `cut`); None takes the images.

    Returns:
      Of the shape of the images, or of what the layer puts out.

    Raises:
      ValueError: no such layer or class.
      TypeError: the images are not floating point, or the class is no integer.
    """
    function, maps = cut(model, variables, images, layer)
    check_floating(maps)
    with nn.intercept_methods(_guiding):
        classes = resolve_target(function(maps), target)
        return jax.grad(lambda a: jnp.sum(chosen_scores(function(a), classes)))(maps)


def _guiding(next_function: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
    module = context.module
    if context.method_name != "__call__" or not isinstance(module, Activation):
        return next_function(*args, **kwargs)
    if F.get_activation(module.kind).name == "identity":
        return next_function(*args, **kwargs)
    return next_function(_positive(args[0]), *args[1:], **kwargs)


@jax.custom_vjp
def _positive(z: jax.Array) -> jax.Array:
    """Returns `z`; the cotangent passes where both it and `z` are positive."""
    return z


def _positive_forward(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    return z, z > 0


def _positive_backward(excited: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(excited & (g > 0), g, jnp.zeros_like(g)),)


_positive.defvjp(_positive_forward, _positive_backward)
