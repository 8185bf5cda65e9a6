"""A model as the steps that theory knows, read off one abstract trace: nothing is computed."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.functional.padding import per_axis, resolve_padding
from cnnjax.models.plain import Cell
from cnnjax.nn import (
    NORMS,
    Activation,
    BasicBlock,
    BatchNorm,
    BottleneckBlock,
    Conv,
    Dense,
    Dropout,
    Layer,
    Multiplier,
    Stack,
)
from cnnjax.probes.flow import Recorder
from cnnjax.probes.parts import PRE_ACTIVATION_BLOCKS
from cnnjax.probes.quadrature import Response, response
from cnnjax.probes.theory.kernels import bias_variance, kernel_distribution

Shape = tuple[int, ...]

_POST_BLOCKS = (Cell, BasicBlock, BottleneckBlock)
_BLOCKS = (*_POST_BLOCKS, *PRE_ACTIVATION_BLOCKS)


@dataclasses.dataclass(frozen=True, eq=False)
class Linear:
    """A convolution or a dense layer.

    Attributes:
      reach: for each spatial axis how often input position j enters output position i, `(outputs, inputs)`; none for a
        dense layer.
      variance: of a kernel entry.
      bias: variance of a bias.
      fan_in, fan_out: channels (of a group) that an output sums, and that an input reaches, at one position of the window.
    """

    reach: tuple[np.ndarray, ...]
    variance: float
    bias: float
    fan_in: int
    fan_out: int


@dataclasses.dataclass(frozen=True, eq=False)
class Normalize:
    """Batch normalization; `positions` share a channel's statistics in each example."""

    positions: int


@dataclasses.dataclass(frozen=True, eq=False)
class Activate:
    """An activation, which is one row of the prediction."""

    response: Response


@dataclasses.dataclass(frozen=True, eq=False)
class Aside:
    """An activation beside the path that theory follows, which is a row without a prediction; why, in words."""

    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Scale:
    """A multiplication by a number."""

    factor: float


@dataclasses.dataclass(frozen=True, eq=False)
class Fork:
    """The beginning of a residual branch.

    Attributes:
      activated: whether an activation follows the addition at its end.
      reshapes: whether the shortcut changes the shape, or projects.
    """

    activated: bool
    reshapes: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Join:
    """Its end: the branch is added to what came to the fork."""


@dataclasses.dataclass(frozen=True, eq=False)
class Unknown:
    """Something that theory does not cover, in words."""

    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Repeat:
    """A stack: the same steps `length` times."""

    steps: "Sequence[Step]"
    length: int


Step = Linear | Normalize | Activate | Aside | Scale | Fork | Join | Unknown | Repeat


def walk(
    model: nn.Module, variables: Any, images: jax.ShapeDtypeStruct, *, train: bool
) -> tuple[Recorder, list[Step]]:
    """A model's recorder, and from the same trace its steps in the order of execution.

    Those of a scanned stack are there once, within a `Repeat`.

    Args:
      model: called as `model(images, train=...)`.
      variables: of it, as shapes.
      images: shape of a batch, `(batch, *spatial, channels)`.
      train: whether norms use the batch and dropout is active.
    """
    reader = _Reader()
    with nn.intercept_methods(reader.note):
        recorder = Recorder.of(model, variables, images, train=train)
    return recorder, _resolved(reader.steps)


def _resolved(calls: Sequence[Any]) -> list[Step]:
    """The steps of calls that were noted during the trace, where no number could be computed."""
    found: list[Step] = []
    for call in calls:
        if isinstance(call, _Call):
            found.extend(_read(call))
        elif isinstance(call, Repeat):
            found.append(Repeat(_resolved(call.steps), call.length))
        else:
            found.append(call)
    return found


@dataclasses.dataclass(frozen=True)
class _Call:
    """A module, and the shapes of its input and output."""

    module: nn.Module
    input: Shape
    output: Shape


class _Reader:
    """Writes down what each module does when it is called for the first time."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self._seen: set[tuple[str, ...]] = set()
        self._joining: set[tuple[str, ...]] = set()
        self._last: jax.Array | None = None

    def note(self, next_function: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module, path = context.module, context.module.path
        if context.method_name == "_shortcut" and isinstance(module, _BLOCKS):
            return self._shortcut(next_function, args, kwargs)
        if context.method_name != "__call__" or path in self._seen or not path:
            return next_function(*args, **kwargs)
        self._seen.add(path)
        if isinstance(module, Stack):
            return self._stack(module, next_function, args, kwargs)
        if isinstance(module, Layer) and kwargs.get("residual") is not None:
            self._joining.add(path)
        if isinstance(module, _BLOCKS) and module.skip:
            return self._block(module, next_function, args, kwargs)
        owned = any(not isinstance(leaf, dict) for leaf in module.variables.get("params", {}).values())
        if not (owned or isinstance(module, Activation | Dropout)):
            return next_function(*args, **kwargs)
        if isinstance(module, Activation) and path[:-1] in self._joining:
            self.steps.append(Join())
        else:
            self._connect(args[0])
        outer, self.steps = self.steps, []
        y = next_function(*args, **kwargs)
        # What it calls itself is a part of it.
        self.steps = [*outer, _Call(module, args[0].shape, y.shape)]
        self._last = y
        return y

    def _stack(self, module: Stack, next_function: Any, args: Any, kwargs: Any) -> Any:
        outer, self.steps = self.steps, []
        self._connect(args[0], outer)
        self._last = None
        y = next_function(*args, **kwargs)
        body, self.steps = self.steps, outer
        self.steps.extend([Repeat(body, module.length)] if module.scan else body)
        self._last = y
        return y

    def _block(self, module: Any, next_function: Any, args: Any, kwargs: Any) -> Any:
        self._connect(args[0])
        fork = len(self.steps)
        y = next_function(*args, **kwargs)
        projects = any(isinstance(step, Aside) for step in self.steps[fork:])
        reshapes = projects or y.shape != args[0].shape
        self.steps.insert(fork, Fork(isinstance(module, _POST_BLOCKS), reshapes))
        if isinstance(module, PRE_ACTIVATION_BLOCKS):
            self.steps.append(Join())
        self._last = y
        return y

    def _shortcut(self, next_function: Any, args: Any, kwargs: Any) -> Any:
        """What a shortcut computes is no part of the branch that it is executed beside."""
        branch, last, self.steps = self.steps, self._last, []
        y = next_function(*args, **kwargs)
        beside = [
            step for step in self.steps if isinstance(step, _Call) and isinstance(step.module, Activation)
        ]
        self.steps, self._last = [*branch, *[Aside("a projected shortcut")] * len(beside)], last
        return y

    def _connect(self, x: jax.Array, written: list[Any] | None = None) -> None:
        """Notes what happened to the last result before it became this input."""
        last, self._last = self._last, None
        if last is None or last is x:
            return
        if last.size == x.size:
            reason = "" if last.ndim != x.ndim else "an operation between the modules"
        else:
            reason = "pooling" if last.size > x.size else "an operation that changes the shape"
        if reason:
            (self.steps if written is None else written).append(Unknown(reason))


def _read(call: _Call) -> list[Step]:
    module = call.module
    if isinstance(module, Activation):
        return [Activate(response(module.kind))]
    if isinstance(module, Conv | Dense):
        return [_linear(module, call.input, call.output)]
    if isinstance(module, BatchNorm):
        return [Normalize(math.prod(call.input[1:-1]))]
    if isinstance(module, Multiplier):
        return [Scale(float(module.start))]
    if isinstance(module, Dropout):
        return [Unknown("dropout")] if module.rate else []
    name = next((name for name, kind in NORMS.items() if isinstance(module, kind)), None)
    return [Unknown(f"{name} norm" if name else type(module).__name__)]


def _linear(module: Conv | Dense, inputs: Shape, outputs: Shape) -> Step:
    rank = len(inputs) - 2 if isinstance(module, Conv) else 0
    groups = module.groups if isinstance(module, Conv) else 1
    window = per_axis(module.window, rank, "window") if isinstance(module, Conv) else ()
    shape = (*window, inputs[-1] // groups, module.features)
    drawn = kernel_distribution(module.kernel_init, shape, groups=groups)
    if drawn is None:
        return Unknown("a kernel that is not random")
    bias = bias_variance(module.bias_init) if module.use_bias else 0.0
    reach = _reach(module, inputs[1:-1], outputs[1:-1], drawn.centered) if isinstance(module, Conv) else ()
    return Linear(reach, drawn.variance, bias, shape[-2], shape[-1] // groups)


def _reach(module: Conv, inputs: Shape, outputs: Shape, centered: bool) -> tuple[np.ndarray, ...]:
    window, stride, dilation = (
        per_axis(value, len(inputs), "size") for value in (module.window, module.stride, module.dilation)
    )
    pads = resolve_padding(module.padding, inputs, window, stride=stride, dilation=dilation)
    circular = isinstance(module.padding, str) and module.padding.upper() == "CIRCULAR"
    axes = zip(inputs, outputs, window, stride, dilation, (low for low, _ in pads), strict=True)
    return tuple(_axis_reach(*axis, circular=circular, centered=centered) for axis in axes)


def _axis_reach(
    size: int,
    outputs: int,
    window: int,
    stride: int,
    dilation: int,
    low: int,
    *,
    circular: bool,
    centered: bool,
) -> np.ndarray:
    taps = np.array([(window - 1) // 2]) if centered else np.arange(window)
    position = np.arange(outputs)[:, None] * stride + taps * dilation - low
    position = position % size if circular else position
    reach = np.zeros((outputs, size))
    inside = (position >= 0) & (position < size)
    np.add.at(reach, (np.nonzero(inside)[0], position[inside]), 1.0)
    return reach


def image_batch(shape: Sequence[int], batch: int) -> jax.ShapeDtypeStruct:
    """A batch of float32 images of a shape `(*spatial, channels)`."""
    return jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
