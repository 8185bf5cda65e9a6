"""Class activation maps: where in a layer's maps the evidence for a class lies."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.explain.cut import cut, layer_shapes
from cnnjax.explain.resize import to_images
from cnnjax.explain.target import Target, chosen_scores, resolve_target


def grad_cam(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    *,
    target: Target = None,
    layer: str | None = None,
    resize: bool = True,
) -> jax.Array:
    """Grad-CAM (Selvaraju et al. 2017, equations 1 and 2): relu(sum over channels k of w_k A_k).

    A are the layer's maps and w_k is the mean over positions of d score / d A_k. The score is the logit of the class; in a
    dense prediction, its mean over positions. May be called inside jit.

    Args:
      model: called as `model(images, train=False)`.
      variables: of the model.
      images: `(batch, *spatial, channels)`.
      target: the class, one for all images or `(batch,)`; None takes the predicted one.
      layer: its name, as in `cut`; None takes the last one with more than one position (`last_spatial_layer`).
      resize: interpolate the maps linearly to the size of the images.

    Returns:
      `(batch, *spatial)`, not negative; of the layer's size without `resize`.

    Raises:
      ValueError: no such layer, a layer without spatial axes, or no such class.
      TypeError: the class is no integer.
    """
    maps, gradients = _maps_and_gradients(model, variables, images, target, layer)
    weights = jnp.mean(gradients, axis=_positions(maps), keepdims=True)
    return _weighted(weights, maps, images, resize)


def grad_cam_plus_plus(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    *,
    target: Target = None,
    layer: str | None = None,
    resize: bool = True,
) -> jax.Array:
    """Grad-CAM++ (Chattopadhyay et al. 2018, equations 10 and 19): weights that do not fade where a class appears twice.

    With g = d score / d A_k at one position, w_k = sum over positions of alpha relu(g), where
    alpha = g^2 / (2 g^2 + g^3 sum over positions of A_k) = 1 / (2 + g sum A_k). The paper's score is the exponential of the
    logit; its derivatives are powers of g times one positive factor, which is left out, as it only scales the map.

    Args: as in `grad_cam`.

    Returns: as in `grad_cam`.

    Raises: as in `grad_cam`.
    """
    maps, gradients = _maps_and_gradients(model, variables, images, target, layer)
    denominators = 2 + gradients * jnp.sum(maps, axis=_positions(maps), keepdims=True)
    # Maps that are nowhere negative, as the paper's, have no zero here where g > 0.
    slopes = jax.nn.relu(gradients) / jnp.where(denominators == 0, 1, denominators)
    return _weighted(jnp.sum(slopes, axis=_positions(maps), keepdims=True), maps, images, resize)


def last_spatial_layer(
    model: nn.Module, variables: Mapping[str, Any], images: jax.Array | jax.ShapeDtypeStruct
) -> str:
    """The name of the last layer, or block of layers, that puts out maps of more than one position, but not the logits.

    Raises:
      ValueError: there is none.
    """
    found = layer_shapes(model, variables, images)
    logits = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, images)
    spatial = [
        name for name, shape in found.items() if max(shape[1:-1], default=1) > 1 and shape != logits.shape
    ]
    if not spatial:
        raise ValueError(
            f"{type(model).__name__} has no layer with maps of more than one position, which Grad-CAM needs: it has "
            + ", ".join(f"{name} {shape[1:]}" for name, shape in found.items())
        )
    return spatial[-1]


def _maps_and_gradients(
    model: nn.Module, variables: Mapping[str, Any], images: jax.Array, target: Target, layer: str | None
) -> tuple[jax.Array, jax.Array]:
    """A layer's maps `(batch, *spatial, channels)`, and the gradients of the scores with respect to them."""
    chosen = last_spatial_layer(model, variables, images) if layer is None else layer
    function, maps = cut(model, variables, images, chosen)
    if maps.ndim < 3:
        found = layer_shapes(model, variables, images)
        raise ValueError(
            f"Grad-CAM takes a layer with spatial maps; {chosen!r} puts out shape {maps.shape[1:]}. With maps: "
            + ", ".join(name for name, shape in found.items() if len(shape) > 2)
        )
    classes = resolve_target(function(maps), target)
    return maps, jax.grad(lambda a: jnp.sum(chosen_scores(function(a), classes)))(maps)


def _positions(maps: jax.Array) -> tuple[int, ...]:
    return tuple(range(1, maps.ndim - 1))


def _weighted(weights: jax.Array, maps: jax.Array, images: jax.Array, resize: bool) -> jax.Array:
    heat = jax.nn.relu(jnp.sum(jnp.broadcast_to(weights, maps.shape) * maps, axis=-1))
    return to_images(heat, images) if resize else heat
