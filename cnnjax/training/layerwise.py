"""Learning rates that fall from the head to the stem: what was learned first is general, and changes least."""

import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from cnnjax.nn import Stack
from cnnjax.probes.points import Path, Point, execution_order, probe_points


def layerwise_decay(
    model: nn.Module, variables: Mapping[str, Any], images: Any, *, decay: float
) -> optax.GradientTransformation:
    """Multiplies the update of each layer by `decay` to the power of the number of layers behind it.

    Discriminative fine-tuning (Howard & Ruder 2018, section 3.1, with decay = 1 / 2.6) and the layer-wise decay of ELECTRA
    (Clark et al. 2020) and of its successors in vision. Put it LAST in a chain, behind Adam and the learning rate, because
    Adam undoes any factor on a gradient:

        optax.chain(optax.adamw(1e-3), layerwise_decay(model, variables, images, decay=0.75))

    Layers are those of `layer_depths`, and the decay is per layer: the stem of 50 layers learns 0.75^49 = 8e-7 times as fast
    as the head, so that deep networks take a decay near 1.

    Args:
      model: called as `model(images, train=True)`.
      variables: of the model.
      images: a batch, of which only the shape matters; `jax.ShapeDtypeStruct` will do.
      decay: above 0, 1 at most, which changes nothing.

    Raises:
      ValueError: `decay` is out of range, or as for `layer_depths`.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay is the factor from a layer to the one before it, in (0, 1]; got {decay!r}")
    depths: dict[Path, Any] = flatten_dict(layer_depths(model, variables, images))
    last = max(int(depth.max()) for depth in depths.values())
    factors = {path: decay ** (last - depth.astype(np.float64)) for path, depth in depths.items()}

    def scaled(path: tuple, update: jax.Array) -> jax.Array:
        factor = factors[tuple(key.key for key in path)]
        return update * factor.reshape(factor.shape + (1,) * (update.ndim - factor.ndim)).astype(update.dtype)

    # By path: where a mask has taken parameters out, the tree of updates lacks them.
    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scaled, updates))


def layer_depths(model: nn.Module, variables: Mapping[str, Any], images: Any) -> dict[str, Any]:
    """The number of the layer that each parameter belongs to, in the order of execution: 0 for the first, most for the head.

    A layer is a probe point with parameters: a parameter belongs to the activation that shares most of its path, and
    among several to the next one executed. Branches side by side have numbers of their own. What a call does not use, an
    auxiliary head, is as far from the input as the head. Nothing is computed.

    Args:
      model: called as `model(images, train=True)`.
      variables: of the model.
      images: a batch, of which only the shape matters.

    Returns:
      A tree like the parameters of integer arrays: `()`, and `(length,)` for each stack around a parameter.

    Raises:
      ValueError: the model has no probe point.
    """
    options: dict[str, Any] = dict(train=True, rngs={"dropout": jax.random.key(0)})
    points = probe_points(model, variables, images, **options)
    if not points:
        raise ValueError(f"{type(model).__name__} has no probe point: use cnnjax.nn.Activation in its layers")
    calls, lengths = _calls(model, variables, images, options)
    params = flatten_dict(variables["params"])
    layers = {owner: _layer(owner, points, calls) for owner in {path[:-1] for path in params} & calls.keys()}
    owned = set(layers.values())
    used = [point for point in points if point in owned]
    order = list(execution_order(used, lengths))
    numbers = {point: np.zeros([lengths[stack] for stack in point.stacks], np.int32) for point in used}
    for number, (point, index) in enumerate(order):
        numbers[point][index] = number
    last = np.asarray(len(order) - 1, np.int32)
    return unflatten_dict(
        {path: _around(path, layers[path[:-1]], numbers) if path[:-1] in layers else last for path in params}
    )


def _calls(
    model: nn.Module, variables: Mapping[str, Any], images: Any, options: Mapping[str, Any]
) -> tuple[dict[Path, int], dict[Path, int]]:
    """When each module was first called, and the number of blocks of each scanned stack."""
    calls: dict[Path, int] = {}
    lengths: dict[Path, int] = {}

    def note(next_function: Any, args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        calls.setdefault(module.path, len(calls))
        if isinstance(module, Stack) and module.scan:
            lengths[module.path] = module.length
        return next_function(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(lambda v, x: model.apply(v, x, **options, mutable=True)[1], variables, images)
    return calls, lengths


def _layer(owner: Path, points: tuple[Point, ...], calls: Mapping[Path, int]) -> Point:
    """The probe point to which the parameters of a module belong."""

    def distance(point: Point) -> tuple[int, bool, int]:
        shared = len(os.path.commonprefix([owner, point.path[:-1]]))
        wait = calls[point.path] - calls[owner]
        return -shared, wait < 0, abs(wait)

    return min(points, key=distance)


def _around(path: Path, point: Point, numbers: Mapping[Point, np.ndarray]) -> np.ndarray:
    """The numbers of a layer for one of its parameters, which may lie outside of some stacks: then its first block's."""
    outside = sum(path[: len(stack)] != stack for stack in point.stacks)
    return numbers[point][(..., *[0] * outside)]
