"""The methods by name, each as one map that is as large as the images."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.explain.cam import grad_cam, grad_cam_plus_plus
from cnnjax.explain.guided import guided_backpropagation
from cnnjax.explain.integrated import integrated_gradients
from cnnjax.explain.occlusion import occlusion
from cnnjax.explain.resize import to_images
from cnnjax.explain.target import Target
from cnnjax.functional.names import lookup


class Explanation(NamedTuple):
    """Where the evidence for a class lies.

    Attributes:
      maps: `(batch, *spatial)`, of the size of the images; negative where something speaks against the class.
      difference, completeness_error: `(batch,)`, of integrated gradients (see there); None of other methods.
    """

    maps: jax.Array
    difference: jax.Array | None = None
    completeness_error: jax.Array | None = None


def explain(
    method: str,
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    *,
    target: Target = None,
    layer: str | None = None,
) -> Explanation:
    """Any method by its name, with its defaults. May be called inside jit.

    Channels are taken together: of guided backpropagation by their largest magnitude (Simonyan et al. 2014, section 3.1),
    of integrated gradients by their sum, which keeps them complete. Maps of a layer are interpolated linearly.

    Args:
      method: a name in `METHODS`.
      model: called as `model(images, train=False)`.
      variables: of the model.
      images: `(batch, *spatial, channels)`.
      target: the class, one for all images or `(batch,)`; None takes the predicted one.
      layer: its name, as in `cut`. None takes the last layer with maps for class activation maps, and the
        images for the other methods.

    Raises:
      ValueError: an unknown method (with the nearest), no such layer or class, or a layer without spatial axes.
      TypeError: the images are not floating point, or the class is no integer.
    """
    return lookup(METHODS, method, "method")(model, variables, images, target=target, layer=layer)


def _map_of(function: Callable[..., jax.Array]) -> Callable[..., Explanation]:
    def explained(model: nn.Module, variables: Any, images: jax.Array, **options: Any) -> Explanation:
        maps = function(model, variables, images, **options)
        return Explanation(to_images(maps, images))

    return explained


def _guided(model: nn.Module, variables: Any, images: jax.Array, **options: Any) -> Explanation:
    gradients = guided_backpropagation(model, variables, images, **options)
    return Explanation(_spatial(jnp.max(jnp.abs(gradients), axis=-1), images, options["layer"]))


def _integrated(model: nn.Module, variables: Any, images: jax.Array, **options: Any) -> Explanation:
    found = integrated_gradients(model, variables, images, **options)
    maps = _spatial(jnp.sum(found.maps, axis=-1), images, options["layer"])
    return Explanation(maps, found.difference, found.completeness_error)


def _spatial(maps: jax.Array, images: jax.Array, layer: str | None) -> jax.Array:
    if maps.ndim < 2:
        raise ValueError(f"a map of the image takes a layer with spatial maps; {layer!r} has none")
    return to_images(maps, images)


METHODS: Mapping[str, Callable[..., Explanation]] = MappingProxyType(
    {
        "gradcam": _map_of(grad_cam),
        "gradcam++": _map_of(grad_cam_plus_plus),
        "guided": _guided,
        "integrated_gradients": _integrated,
        "occlusion": _map_of(occlusion),
    }
)
"""The methods of `explain` by name."""
