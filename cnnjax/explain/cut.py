"""A model cut open behind one of its layers: the scores of the classes as a function of what the layer puts out."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.explain.places import OUTPUT, SEEN, find, places
from cnnjax.probes.trees import at_path, tree_with

_GIVEN = "explain_given"

Function = Callable[[jax.Array], jax.Array]


def cut(
    model: nn.Module, variables: Mapping[str, Any], images: jax.Array, layer: str | None
) -> tuple[Function, jax.Array]:
    """What a layer puts out, and the scores of the classes as a function of it.

    All else that the images decide, such as what passes the layer in a shortcut, stays as it is. A layer of a scanned
    stack, rematerialized or not, is like any other. May be called inside jit.

    Args:
      model: called as `model(images, train=False)`.
      variables: of the model.
      images: `(batch, *spatial, channels)`.
      layer: its name, as in `probes.features`: "stage1[0]/layer2"; or that of a block around layers, "stage1[0]", or of
        another module, "stage1[0]/layer2/linear". None stands for the images themselves.

    Returns:
      (function, maps): `function(maps)` are scores `(batch, classes)`, and `maps`, `(batch, ..., channels)`, those of the
      images.

    Raises:
      ValueError: the model has no such layer (the text lists them), or no probe point.
    """
    if layer is None:
        return lambda x: scores(jnp.asarray(model.apply(variables, x, train=False))), images
    place = find(places(model, variables, images), layer)
    flags = (jnp.arange(math.prod(place.lengths)) == place.index).reshape(place.lengths)
    collections = {**variables, _GIVEN: tree_with((*place.module, "flag"), flags)}

    def run(given: jax.Array | None) -> tuple[Any, Any]:
        def intervene(next_function: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
            y = next_function(*args, **kwargs)
            if context.method_name != "__call__" or context.module.path != place.module:
                return y
            if given is None:
                context.module.put_variable(SEEN, OUTPUT, y)
                return y
            return jnp.where(context.module.get_variable(_GIVEN, "flag"), given, y)

        with nn.intercept_methods(intervene):
            return model.apply(collections, images, train=False, mutable=[SEEN])

    seen = at_path(run(None)[1][SEEN], place.module)[OUTPUT]
    maps = seen.reshape(-1, *place.shape)[place.index]
    return lambda given: scores(run(given)[0]), maps


def layer_shapes(
    model: nn.Module, variables: Mapping[str, Any], images: jax.Array | jax.ShapeDtypeStruct
) -> dict[str, tuple[int, ...]]:
    """The shape `(batch, ..., channels)` of what each layer and block puts out, in the order in which they are done.

    Nothing is computed.

    Raises:
      ValueError: the model has no probe point.
    """
    return {name: place.shape for name, place in places(model, variables, images).items() if place.listed}


def scores(logits: jax.Array) -> jax.Array:
    """Logits `(batch, classes)`; those of a dense prediction, `(batch, *spatial, classes)`, are averaged over positions."""
    return jnp.mean(logits, axis=tuple(range(1, logits.ndim - 1)))
