"""The layers of a model with their sizes, parameters and arithmetic, from one abstract trace: nothing is computed."""

import collections
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax.ad_checkpoint import checkpoint_name

from cnnjax import functional as F
from cnnjax.commands.reach import Field, Span, follow
from cnnjax.nn import Activation, Stack

Path = tuple[str, ...]
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A layer: the parts with parameters and the activations that lie beside each other, with one kernel at most.

    Attributes:
      name: path in the model, the blocks of a stack in brackets.
      repeats: how often it runs: the number of blocks of the stacks around it.
      output: shape for one image.
      kernel: shape of one, without the axes of stacks; None where there is none.
      fields: receptive fields of the output of the first and of the last repetition.
      parameters, flops, output_bytes: of all repetitions; FLOPs and outputs for one image, in float32.
    """

    name: str
    repeats: int
    output: Shape
    kernel: Shape | None
    fields: tuple[Field, Field]
    parameters: int
    flops: int
    output_bytes: int


@dataclasses.dataclass(frozen=True)
class _Part:
    """A module that owns parameters, or an activation: its path, its shapes in and out, and its parameters by name."""

    path: Path
    input: Shape
    output: Shape
    parameters: Mapping[str, jax.ShapeDtypeStruct]


class _Trace:
    """One abstract run of a model: its parts, its stacks, and the field of every part's output each time that it ran."""

    def __init__(self, model: nn.Module, variables: Any, images: jax.ShapeDtypeStruct) -> None:
        self.parts: dict[Path, _Part] = {}
        self.stacks: dict[Path, int] = {}
        self.fields: dict[Path, list[Field]] = collections.defaultdict(list)
        self._entered: Field = ()
        self._owned: dict[Path, dict[str, Any]] = collections.defaultdict(dict)
        for (*path, name), leaf in flatten_dict(variables["params"]).items():
            self._owned[tuple(path)][name] = leaf
        with nn.intercept_methods(self._note):
            traced = jax.make_jaxpr(lambda v, x: model.apply(v, x, train=False))(variables, images)
        constants = [None] * len(jax.tree.leaves(variables))
        follow(traced.jaxpr, [*constants, (Span(),) * (len(images.shape) - 2)], self._mark)

    def _note(self, next_function, args, kwargs, context) -> Any:
        module, path = context.module, context.module.path
        if context.method_name != "__call__":
            return next_function(*args, **kwargs)
        if isinstance(module, Stack) and module.scan:
            self.stacks[path] = module.length
        if not isinstance(module, Activation) and path not in self._owned:
            return next_function(*args, **kwargs)
        name = "/".join(path)
        y = next_function(checkpoint_name(args[0], f"into {name}"), *args[1:], **kwargs)
        self.parts[path] = _Part(path, args[0].shape, y.shape, self._owned.get(path, {}))
        return checkpoint_name(y, name)

    def _mark(self, name: str, field: Field) -> Field:
        if name.startswith("into "):
            self._entered = field
            return field
        path = tuple(name.split("/"))
        # A norm's statistics see the whole image; by convention they are not counted.
        field = field if "kernel" in self._owned.get(path, {}) else self._entered
        self.fields[path].append(field)
        return field

    def ancestors(self, path: Path) -> list[Path]:
        """The scanned stacks around a part, from the outside in."""
        return sorted((stack for stack in self.stacks if path[: len(stack)] == stack), key=len)


def rows(model: nn.Module, image: Sequence[int]) -> list[Row]:
    """The layers of a model in the order of execution, those of a stack once.

    Args:
      model: called as `model(images, train=...)`.
      image: shape of one image, `(*spatial, channels)`.

    Raises:
      ValueError: the model does not take such images.
    """
    images = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    trace = _Trace(model, variables, images)
    return [_row(trace, parts) for parts in _layers(trace)]


def _layers(trace: _Trace) -> Iterator[list[_Part]]:
    """Parts beside each other, cut where a second kernel begins; a part of the model itself stands alone."""
    layer: list[_Part] = []
    for path in trace.fields:
        part = trace.parts[path]
        beside = bool(layer) and len(path) > 1 and layer[0].path[:-1] == path[:-1]
        if layer and not (beside and sum("kernel" in p.parameters for p in [*layer, part]) <= 1):
            yield layer
            layer = []
        layer.append(part)
    if layer:
        yield layer


def _row(trace: _Trace, parts: Sequence[_Part]) -> Row:
    last = parts[-1]
    stacks = trace.ancestors(last.path)
    repeats = len(trace.fields[last.path])
    kernels = [
        part.parameters["kernel"].shape[len(stacks) :] for part in parts if "kernel" in part.parameters
    ]
    return Row(
        name=_name(last.path[:-1] or last.path, trace, stacks),
        repeats=repeats,
        output=last.output[1:],
        kernel=kernels[0] if kernels else None,
        fields=(trace.fields[last.path][0], trace.fields[last.path][-1]),
        parameters=sum(F.parameter_count(part.parameters) for part in parts),
        flops=repeats * sum(_flops(part, len(stacks)) for part in parts),
        output_bytes=repeats * F.activation_bytes([part.output[1:] for part in parts]),
    )


def _flops(part: _Part, stacks: int) -> int:
    """Of one image: each entry of the kernel is multiplied and added once at every position of the output."""
    if "kernel" not in part.parameters:
        return 0
    kernel = part.parameters["kernel"].shape[stacks:]
    positions = part.output[1:-1]
    if len(kernel) == 2:
        return math.prod(positions) * F.dense_flops(*kernel)
    return F.conv_flops(positions, kernel[:-2], *kernel[-2:])


def _name(path: Path, trace: _Trace, stacks: Sequence[Path]) -> str:
    """The path as text: blocks 0 to 2 of the stack "stage1" are "stage1[0..2]"."""
    parts = list(path)
    for stack in reversed(stacks):
        last = trace.stacks[stack] - 1
        parts[len(stack) - 1 : len(stack) + 1] = [f"{stack[-1]}[{f'0..{last}' if last else 0}]"]
    return "/".join(parts)
