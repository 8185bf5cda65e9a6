"""The places of a model whose output can be looked at, by name, also inside scanned stacks."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnnjax.functional.names import lookup
from cnnjax.nn import Activation, Stack
from cnnjax.probes.points import Path, execution_order, label
from cnnjax.probes.trees import at_path

SEEN = "explain_seen"
"""The collection that holds the outputs of modules, under `OUTPUT`."""
OUTPUT = "explain_output"


@dataclasses.dataclass(frozen=True)
class Place:
    """One module of a model as one of the layers that it stands for.

    Attributes:
      module: its path.
      lengths: of the scanned stacks around it, from the outside in.
      index: among the layers that share the module, flat.
      shape: of what it puts out, `(batch, ..., channels)`.
      listed: whether it is an activation or a block around activations; other modules are found, but not listed.
    """

    module: Path
    lengths: tuple[int, ...]
    index: int
    shape: tuple[int, ...]
    listed: bool


@dataclasses.dataclass(frozen=True)
class _Output:
    """The variable that holds what a module puts out. The name of an activation's is that of its layer."""

    module: Path
    activation: bool
    stacks: tuple[Path, ...]

    @property
    def path(self) -> Path:
        return self.module if self.activation else (*self.module, OUTPUT)


def places(
    model: nn.Module, variables: Mapping[str, Any], images: jax.Array | jax.ShapeDtypeStruct
) -> dict[str, Place]:
    """Where a model can be cut, by name, in the order in which the modules are done. Nothing is computed.

    "stage1[0]/layer2" is the activation of a layer, as in `probes.features`, "stage1[0]" the block around it, and
    "stage1[0]/layer2/linear" a part of it.

    Raises:
      ValueError: the model has no probe point.
    """
    outputs, state = _outputs(model, variables, images)
    shapes = {output: at_path(state[SEEN], (*output.module, OUTPUT)).shape for output in outputs}
    stacks = {s: length for o in outputs for s, length in zip(o.stacks, shapes[o], strict=False)}
    blocks = {
        output.module[:depth]
        for output in outputs
        for depth in range(len(output.module))
        if output.activation
    }
    found: dict[str, Place] = {}
    for output, index in execution_order(outputs, stacks):
        name, depth = label(output, index), len(output.stacks)
        if output.activation:
            found.pop(name, None)
        lengths = shapes[output][:depth]
        flat = int(np.ravel_multi_index(index, lengths)) if index else 0
        listed = output.activation or output.module in blocks
        found.setdefault(name, Place(output.module, lengths, flat, shapes[output][depth:], listed))
    if not blocks:
        raise ValueError(f"{type(model).__name__} has no probe point: use cnnjax.nn.Activation in its layers")
    return found


def find(known: Mapping[str, Place], name: str) -> Place:
    """The place of that name.

    Raises:
      ValueError: there is none; the text gives the nearest, and lists activations and blocks.
      TypeError: it is no name.
    """
    listed = {other: place for other, place in known.items() if place.listed}
    return lookup({**listed, name: known[name]} if name in known else listed, name, "layer")


def _outputs(
    model: nn.Module, variables: Mapping[str, Any], images: jax.Array | jax.ShapeDtypeStruct
) -> tuple[list[_Output], Any]:
    """The modules that put out one array, and the shapes of those, from one abstract trace."""
    done: dict[Path, bool] = {}
    scanned: list[Path] = []

    def see(next_function: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        y, module = next_function(*args, **kwargs), context.module
        if context.method_name == "__call__" and isinstance(y, jax.Array) and y.ndim > 1 and module.path:
            done.setdefault(module.path, isinstance(module, Activation))
            module.put_variable(SEEN, OUTPUT, y)
        if isinstance(module, Stack) and module.scan:
            scanned.append(module.path)
        return y

    with nn.intercept_methods(see):
        _, state = jax.eval_shape(
            lambda v, x: model.apply(v, x, train=False, mutable=[SEEN]), variables, images
        )
    around = {
        path: sorted({s for s in scanned if path[: len(s)] == s and path != s}, key=len) for path in done
    }
    return [_Output(path, done[path], tuple(around[path])) for path in done], state
