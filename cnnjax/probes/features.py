"""The maps inside a network, by the names of its layers."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from cnnjax.nn import Activation
from cnnjax.probes.points import execution_order, label, probe_points

_CAPTURED = "intermediates"


def features(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    *,
    train: bool = False,
    key: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """What each layer puts out, by its name, in the order of execution: "stem", "stage1[0]/layer2", ..., "head".

    The output of a layer is that of its activation; the head's are the logits. The names are those of `gradient_flow`'s
    table; the layers of a scanned stack come apart. May be called inside jit (which returns a dict sorted by name).

    Args:
      model: called as `model(images, train=...)`.
      variables: of the model.
      images: `(batch, *spatial, channels)`.
      train: whether norms take the statistics of the batch and layers are dropped.
      key: of the random stream "dropout", where `train` needs one.

    Returns:
      Arrays `(batch, ..., channels)`.

    Raises:
      ValueError: the model has no probe point.
    """
    rngs = {} if key is None else {"dropout": key}
    points = probe_points(model, variables, images, train=train, rngs=rngs)
    if not points:
        raise ValueError(f"{type(model).__name__} has no probe point: use cnnjax.nn.Activation in its layers")
    _, state = model.apply(
        variables,
        images,
        train=train,
        rngs=rngs,
        capture_intermediates=lambda module, _: isinstance(module, Activation),
        mutable=[_CAPTURED, "batch_stats"],
    )
    found = {point: _at(state[_CAPTURED], point.path) for point in points}
    lengths = {
        stack: size
        for point, maps in found.items()
        for stack, size in zip(point.stacks, maps.shape, strict=False)
    }
    return {label(point, index): found[point][index] for point, index in execution_order(points, lengths)}


def _at(captured: Mapping[str, Any], path: tuple[str, ...]) -> jax.Array:
    for name in path:
        captured = captured[name]
    return captured["__call__"][0]
