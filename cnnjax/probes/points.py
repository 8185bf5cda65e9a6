"""Where a model's probe points are, and in which order they are executed."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import flax.linen as nn
import jax

from cnnjax.nn import Activation, Stack

Path = tuple[str, ...]


class Placed(Protocol):
    """Whatever has a place in a model: a module's path, and the scanned stacks around it."""

    @property
    def path(self) -> Path: ...

    @property
    def stacks(self) -> tuple[Path, ...]: ...


AnyPlaced = TypeVar("AnyPlaced", bound=Placed)


@dataclasses.dataclass(frozen=True)
class Point:
    """One probe point of a model: an activation, and the kernel that belongs to the same layer.

    Attributes:
      path: of the `Activation` module in the model.
      activation: its name.
      stacks: the paths of the scanned stacks around it, from the outside in; each adds a leading axis to its variables.
      kernel: the path of the layer's kernel in the parameters, or None.
    """

    path: Path
    activation: str
    stacks: tuple[Path, ...]
    kernel: Path | None


@dataclasses.dataclass(frozen=True)
class _Call:
    path: Path
    activation: str | None = None


def probe_points(model: nn.Module, variables: Any, *inputs: Any, **options: Any) -> tuple[Point, ...]:
    """The probe points of a model in the order in which a call executes them; a stacked one stands there once.

    The model is traced once with abstract values; nothing is computed.
    """
    return points_and_state(model, variables, *inputs, **options)[0]


def points_and_state(
    model: nn.Module, variables: Any, *inputs: Any, **options: Any
) -> tuple[tuple[Point, ...], Any]:
    """The probe points, and the shapes of all collections after the call, from the same trace."""
    calls: dict[Path, _Call] = {}
    stacks: dict[Path, bool] = {}

    def note(next_function, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__" and module.path not in calls:
            if isinstance(module, Stack):
                stacks[module.path] = module.scan
            elif isinstance(module, Activation):
                kind = module.kind
                calls[module.path] = _Call(module.path, kind if isinstance(kind, str) else kind.name)
            elif module.has_variable("params", "kernel"):
                calls[module.path] = _Call(module.path)
        return next_function(*args, **kwargs)

    with nn.intercept_methods(note):
        state = jax.eval_shape(lambda v, x: model.apply(v, *x, **options, mutable=True)[1], variables, inputs)
    scanned = [path for path, scan in stacks.items() if scan]
    order = list(calls.values())
    points = tuple(
        Point(call.path, call.activation, _ancestors(call.path, scanned), _kernel_of(i, order))
        for i, call in enumerate(order)
        if call.activation is not None
    )
    return points, state


def _ancestors(path: Path, candidates: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(sorted((c for c in candidates if path[: len(c)] == c), key=len))


def _kernel_of(index: int, calls: Sequence[_Call]) -> Path | None:
    """The nearest kernel under the activation's parent: before it if there is one, else behind it.

    Between the two lies no other activation, and a part of the parent with an activation of its own keeps its kernels: so
    the kernel is not that of another layer.
    """
    activations = [call.path for call in calls if call.activation is not None]
    parent = calls[index].path[:-1]
    before = itertools.takewhile(lambda call: call.activation is None, reversed(calls[:index]))
    behind = itertools.takewhile(lambda call: call.activation is None, calls[index + 1 :])
    for call in itertools.chain(before, behind):
        part = call.path[: len(parent) + 1]
        if part[:-1] == parent and not any(path[: len(part)] == part for path in activations):
            return (*call.path, "kernel")
    return None


def execution_order(
    points: Sequence[AnyPlaced], lengths: dict[Path, int], _depth: int = 0, _index: tuple[int, ...] = ()
) -> Iterator[tuple[AnyPlaced, tuple[int, ...]]]:
    """Every layer as it is executed: (point, its index in each stack around it).

    The points of one stack alternate: all of block 0, then all of block 1.

    Args:
      points: from `probe_points`, or other things with a place in the model, in execution order.
      lengths: the number of blocks of each scanned stack.
    """

    def stack_at_depth(point: Placed) -> Path | None:
        return point.stacks[_depth] if len(point.stacks) > _depth else None

    for stack, group in itertools.groupby(points, stack_at_depth):
        members = list(group)
        if stack is None:
            yield from ((point, _index) for point in members)
        else:
            for i in range(lengths[stack]):
                yield from execution_order(members, lengths, _depth + 1, (*_index, i))


def label(point: Placed, index: Sequence[int]) -> str:
    """The layer's name in a table: its path without the activation, blocks of a stack in brackets: "stack[3]/layer"."""
    parts = list(point.path[:-1] or point.path)
    # As the stack would call its blocks if it were written out.
    for stack, i in zip(point.stacks, index, strict=True):
        parts[len(stack)] = f"block_{i}"
    return re.sub(r"(^|/)block_(\d+)", r"[\2]", "/".join(parts))
