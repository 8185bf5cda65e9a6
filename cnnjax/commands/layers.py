"""The layers of a model with their sizes, parameters and arithmetic, from one abstract trace: nothing is computed."""

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict
from jax.ad_checkpoint import checkpoint_name

from cnnjax import functional as F
from cnnjax.commands.reach import Field, Span, follow
from cnnjax.nn import Activation, ConvTranspose, Stack

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
      parameters, multiply_adds, backward_multiply_adds, output_bytes: of all repetitions, for one image, in float32. Back
        through a kernel there are two products, for its gradient and for its input's; the images' own is not needed.
    """

    name: str
    repeats: int
    output: Shape
    kernel: Shape | None
    fields: tuple[Field, Field]
    parameters: int
    multiply_adds: int
    backward_multiply_adds: int
    output_bytes: int

    @property
    def flops(self) -> int:
        """Forward, a multiply-add as 2."""
        return 2 * self.multiply_adds


@dataclasses.dataclass(frozen=True)
class _Part:
    """A module that owns parameters, or an activation: its path, its shapes in and out, and its parameters by name.

    `products` are the spatial axes that each entry of its kernel is multiplied at.
    """

    path: Path
    input: Shape
    output: Shape
    products: Shape
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
        products = args[0].shape[1:-1] if isinstance(module, ConvTranspose) else y.shape[1:-1]
        self.parts[path] = _Part(path, args[0].shape, y.shape, products, self._owned.get(path, {}))
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


def rows(model: nn.Module, image: Sequence[int], *, dtype: str = "float32") -> list[Row]:
    """The layers of a model in the order of execution, those of a stack once.

    Args:
      model: called as `model(images, train=...)`.
      image: shape of one image, `(*spatial, channels)`.
      dtype: of the images.

    Raises:
      ValueError: the model does not take such images.
    """
    if getattr(model, "remat", False):
        # The same network; but a checkpointed stack may run blocks past its end, which let everything through.
        model = model.clone(remat=False)
    images = jax.ShapeDtypeStruct((1, *image), dtype)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    trace = _Trace(model, variables, images)
    found = [_row(trace, parts) for parts in _layers(trace)]
    first = next((i for i, row in enumerate(found) if row.kernel is not None), None)
    if first is not None:
        found[first] = dataclasses.replace(found[first], backward_multiply_adds=found[first].multiply_adds)
    return found


def folded(rows: Sequence[Row], depth: int) -> list[Row]:
    """One row for all neighboring layers whose names begin with the same `depth` parts."""

    def place(row: Row) -> str:
        return "/".join(row.name.split("/")[:depth])

    return [_sum(name, list(group)) for name, group in itertools.groupby(rows, place)]


def _sum(name: str, rows: Sequence[Row]) -> Row:
    if len(rows) == 1:
        return dataclasses.replace(rows[0], name=name)
    sums = {
        column: sum(getattr(row, column) for row in rows)
        for column in ("parameters", "multiply_adds", "backward_multiply_adds", "output_bytes")
    }
    repeats = math.gcd(*(row.repeats for row in rows))
    return dataclasses.replace(
        rows[-1],
        name=name,
        repeats=repeats,
        kernel=None,
        fields=(rows[0].fields[0], rows[-1].fields[1]),
        **sums,
    )


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
    multiply_adds = repeats * sum(_multiply_adds(part, len(stacks)) for part in parts)
    return Row(
        name=_name(last.path[:-1] or last.path, trace, stacks),
        repeats=repeats,
        output=last.output[1:],
        kernel=kernels[0] if kernels else None,
        fields=(trace.fields[last.path][0], trace.fields[last.path][-1]),
        parameters=sum(F.parameter_count(part.parameters) for part in parts),
        multiply_adds=multiply_adds,
        backward_multiply_adds=2 * multiply_adds,
        output_bytes=repeats * F.activation_bytes([part.output[1:] for part in parts]),
    )


def _multiply_adds(part: _Part, stacks: int) -> int:
    """Of one image: each entry of the kernel is multiplied and added once at every position of the output.

    Of a transposed convolution: of the input.
    """
    if "kernel" not in part.parameters:
        return 0
    kernel = part.parameters["kernel"].shape[stacks:]
    if len(kernel) == 2:
        return math.prod(part.products) * math.prod(kernel)
    return F.conv_flops(part.products, kernel[:-2], *kernel[-2:]) // 2


def _name(path: Path, trace: _Trace, stacks: Sequence[Path]) -> str:
    """The path as text: blocks 0 to 2 of the stack "stage1" are "stage1[0..2]"."""
    parts = list(path)
    for stack in reversed(stacks):
        last = trace.stacks[stack] - 1
        parts[len(stack) - 1 : len(stack) + 1] = [f"{stack[-1]}[{f'0..{last}' if last else 0}]"]
    return "/".join(parts)
