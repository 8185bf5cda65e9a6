"""A new head on a trained network."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from cnnjax.models import Model

Path = tuple[str, ...]
Leaves = dict[Path, Any]


def replace_head(variables: Mapping[str, Any], model: Model, key: jax.Array, image: Any) -> dict[str, Any]:
    """The variables of a trained network with a fresh head for `model`, which may have another number of classes.

    The head is every parameter whose shape depends on `num_classes`, auxiliary heads included; it starts as in
    `model.init(key, image)`. Everything else is taken over as it is, bit for bit.

        model = models.create("resnet18", num_classes=1000)
        ...
        smaller = model.clone(num_classes=5)
        variables = replace_head(variables, smaller, jax.random.key(0), image)

    Args:
      variables: of the trained network.
      model: the network that they are for, the same but for its head.
      key: of the fresh head.
      image: a batch, of which only shape and type matter; `jax.ShapeDtypeStruct` will do.

    Raises:
      ValueError: apart from the head, `model` has other variables (the text names them), or it has no head.
    """
    other = _shapes(model.clone(num_classes=model.num_classes + 1), image)
    wanted = _shapes(model, image)
    head = {path for path in wanted if wanted[path].shape != other[path].shape}
    if not head:
        raise ValueError(f"no parameter of {type(model).__name__} depends on num_classes: it has no head")
    kept = {path: leaf for path, leaf in flatten_dict(dict(variables)).items() if path not in head}
    _check_same(kept, {path: leaf for path, leaf in wanted.items() if path not in head})
    made = _initial(key, model=model, shape=image.shape, dtype=image.dtype, paths=frozenset(head))
    return unflatten_dict({**kept, **made})


@functools.partial(jax.jit, static_argnames=("model", "shape", "dtype", "paths"))
def _initial(
    key: jax.Array, *, model: Model, shape: tuple[int, ...], dtype: Any, paths: frozenset[Path]
) -> Leaves:
    """Those of a model's initial variables that lie at `paths`; XLA leaves out the others."""
    made = flatten_dict(model.init(key, jnp.zeros(shape, dtype)))
    return {path: made[path] for path in paths}


def _shapes(model: Model, image: Any) -> Leaves:
    return flatten_dict(
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(image.shape, image.dtype)))
    )


def _check_same(kept: Leaves, wanted: Leaves) -> None:
    """Raises ValueError unless both hold arrays of the same shapes at the same paths."""
    for path in sorted({*kept, *wanted}):
        there, here = ("none" if path not in tree else str(tree[path].shape) for tree in (kept, wanted))
        if there != here:
            raise ValueError(
                f"only heads may differ: {'/'.join(path)} has shape {there} in the variables and {here} in the model; "
                "create it with the options of the trained one (nn.unstack and restack go between scan=True and False)"
            )
