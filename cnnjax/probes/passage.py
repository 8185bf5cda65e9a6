"""A model cut out between two of its probe points, as a function of one array, also where they lie in a scanned stack."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.functional.names import lookup
from cnnjax.nn import Activation
from cnnjax.probes.flow import Recorder
from cnnjax.probes.points import Point
from cnnjax.probes.trees import at_path, tree_with

_SHIFT = "passage_shift"
_SEEN = "passage_seen"


@dataclasses.dataclass(frozen=True)
class Site:
    """One layer of a model: where its pre-activations pass.

    Attributes:
      point: its probe point.
      lengths: of the stacks around the point.
      index: of the layer among those of the point, flat.
    """

    point: Point
    lengths: tuple[int, ...]
    index: int


def sites(recorder: Recorder) -> dict[str, Site]:
    """The site of every layer under its name, in execution order."""
    lengths = [at_path(recorder.slots, point.path)["gradient"].shape[:-1] for point in recorder.points]
    offsets = np.cumsum([0, *map(math.prod, lengths)])
    made = {}
    for name, row in zip(recorder.layers, recorder.order, strict=True):
        i = int(np.searchsorted(offsets, row, side="right")) - 1
        made[name] = Site(recorder.points[i], lengths[i], int(row - offsets[i]))
    return made


def image_sites(
    model: nn.Module, variables: Mapping[str, Any], image: jax.Array, *, train: bool
) -> dict[str, Site]:
    """`sites` of a model that is given one image.

    Raises:
      ValueError: the model does not take this image, or has no probe point.
      TypeError: the image is not floating point.
    """
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise TypeError(f"the image must be floating point; got {image.dtype}: use cnnjax.data.normalize")
    images = jax.ShapeDtypeStruct((1, *image.shape), image.dtype)
    try:
        jax.eval_shape(
            lambda v, x: model.apply(v, x, train=train, mutable=["batch_stats"]), variables, images
        )
    except (flax.errors.FlaxError, ValueError, TypeError) as error:
        raise ValueError(
            f"{type(model).__name__} does not take an image of shape {image.shape}: give one example (height, width, "
            f"channels) without a batch axis, as the variables were made for. It said: {error}"
        ) from error
    return sites(Recorder.of(model, variables, images, train=train))


def find(known: Mapping[str, Site], layer: str | None) -> Site | None:
    """The site of a layer's name; None stands for the image or the logits and stays None.

    Raises:
      ValueError: no layer has this name (the text gives the nearest).
      TypeError: it is no name.
    """
    return None if layer is None else lookup(known, layer, "layer")


def passage(
    model: nn.Module,
    variables: Mapping[str, Any],
    image: jax.Array,
    *,
    start: Site | None,
    end: Site | None,
    train: bool,
) -> tuple[Callable[..., jax.Array], jax.Array]:
    """From the pre-activations of one layer to those of another, all else that the image decides left as it is.

    Args:
      model, variables: as for `gradient_flow`.
      image: one example.
      start: the layer to start from; None starts from the image.
      end: the layer to end at; None ends at the logits.
      train: whether norms use the statistics of the batch, which is that one image.

    Returns:
      (function, shift): `function(shift, i, j)` gives the array at `end` when `shift`, of zeros, is added to the one
      at `start`; i and j are the flat indices of the two layers, integers or traced ones, `start.index` and `end.index` if
      they are left out.
    """
    run = functools.partial(_run, model, variables, image, start, end, train)
    if start is None:
        return run, jnp.zeros_like(image)
    shape = jax.eval_shape(
        lambda x: _run(model, variables, image, None, start, train, x), jnp.zeros_like(image)
    )
    return run, jnp.zeros(shape.shape, shape.dtype)


def _run(
    model: nn.Module,
    variables: Mapping[str, Any],
    image: jax.Array,
    start: Site | None,
    end: Site | None,
    train: bool,
    shift: jax.Array,
    start_index: jax.Array | int | None = None,
    end_index: jax.Array | int | None = None,
) -> jax.Array:
    collections, images = dict(variables), image[None]
    if start is None:
        images = images + shift[None]
    else:
        chosen = start.index if start_index is None else start_index
        flags = jnp.arange(math.prod(start.lengths)) == chosen
        collections[_SHIFT] = tree_with((*start.point.path, "flag"), flags.reshape(start.lengths))

    def intervene(next_function: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        if not isinstance(module, Activation) or context.method_name != "__call__":
            return next_function(*args, **kwargs)
        z = args[0]
        if start is not None and module.path == start.point.path:
            z = z + jnp.where(module.get_variable(_SHIFT, "flag"), shift, jnp.zeros_like(shift))[None]
        if end is not None and module.path == end.point.path:
            module.put_variable(_SEEN, "z", z)
        return next_function(z, *args[1:], **kwargs)

    with nn.intercept_methods(intervene):
        logits, state = model.apply(collections, images, train=train, mutable=[_SEEN])
    if end is None:
        return logits[0]
    seen = at_path(state[_SEEN], end.point.path)["z"]
    flat = seen.reshape(-1, *seen.shape[len(end.lengths) + 1 :])
    return flat[end.index if end_index is None else end_index]
