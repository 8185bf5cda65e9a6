"""The twins of a model: the same network without its skips, without its norms, and without both."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from cnnjax.functional.shapes import parameter_count
from cnnjax.models.base import Model

_CHANGES = {
    "no skip": {"skip": False},
    "no norm": {"norm": None},
    "plain": {"skip": False, "norm": None},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """How the parameters of two models differ, path by path.

    Attributes:
      shared: entries of the arrays that both have under one path, in one shape.
      removed: entries of those that only the first has.
      added: entries of those that only the second has.
    """

    shared: int
    removed: int
    added: int


def twins(model: Model) -> Mapping[str, Model]:
    """The twins of a model by name: "no skip", "no norm", "plain" (neither), as far as it has what they lack."""
    has = {"skip": getattr(model, "skip", False) is True, "norm": model.norm is not None}
    changes = {
        name: change for name, change in _CHANGES.items() if all(has.get(option, False) for option in change)
    }
    return {name: model.clone(**change) for name, change in changes.items()}


def difference(model: Model, other: Model, image: Sequence[int], *, dtype: str = "float32") -> Difference:
    """Compares the parameters of two models; nothing is computed.

    Args:
      model, other: the two, a model and its twin.
      image: shape of one image, `(*spatial, channels)`.
      dtype: of the images.

    Raises:
      ValueError: one of them does not take such images.
    """
    before, after = (_leaves(each, image, dtype) for each in (model, other))
    shared = {path for path, leaf in before.items() if path in after and after[path].shape == leaf.shape}
    return Difference(
        shared=_count(before, shared),
        removed=_count(before, before.keys() - shared),
        added=_count(after, after.keys() - shared),
    )


def _leaves(model: Model, image: Sequence[int], dtype: str) -> dict[tuple[str, ...], Any]:
    images = jax.ShapeDtypeStruct((1, *image), dtype)
    params: Any = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    return flatten_dict(params)


def _count(leaves: Mapping[tuple[str, ...], Any], paths: "set[tuple[str, ...]]") -> int:
    return parameter_count([leaves[path] for path in paths])
