"""The parts of a model that a gradient passes on its way back, in the order in which a call executes them."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import functional as F
from cnnjax.nn import (
    NORMS,
    Activation,
    BatchNorm,
    Layer,
    PreActivationBlock,
    PreActivationBottleneckBlock,
    Stack,
)
from cnnjax.probes.points import Path, execution_order, label
from cnnjax.probes.trees import at_path, put_at_path

Kind = Literal["activation", "kernel", "norm", "statistics", "skip"]
KINDS: tuple[Kind, ...] = ("activation", "kernel", "norm", "statistics", "skip")
"""The kinds of parts."""
PRE_ACTIVATION_BLOCKS = (PreActivationBlock, PreActivationBottleneckBlock)
"""The blocks that add their shortcut themselves."""


def variable(kind: Kind) -> str:
    """The name of a module's variable that belongs to its part of this kind; no submodule is called so."""
    return f"{kind}_part"


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a model; a stacked one stands for as many.

    Attributes:
      kind: "activation"; "kernel", a convolution or dense layer; "norm"; "statistics", a norm's path through mean and
        variance; "skip", what is added past a branch.
      path: of the module; of a skip, the block's or layer's with "skip" behind it.
      stacks: the paths of the scanned stacks around it, from the outside in.
      isometric: whether a kernel's gradient can pass an isometry: as many positions on both sides, and no fewer channels
        in front.
      reads: of a norm, the kernel whose output it reads directly, or None; of a kernel, the activation whose output it reads
        directly, or else the first module that was called with what it reads.
      gain: of an activation, the table's; 1 elsewhere.
      passive: an activation that is the identity: nothing to replace.
    """

    kind: Kind
    path: Path
    stacks: tuple[Path, ...] = ()
    isometric: bool = False
    reads: Path | None = None
    gain: float = 1.0
    passive: bool = False

    @property
    def switch(self) -> Path:
        """Where a variable of this part lies."""
        module = self.path[:-1] if self.kind == "skip" else self.path
        return (*module, variable(self.kind))


def find_parts(
    model: nn.Module, variables: Any, images: Any, *, train: bool, rngs: Mapping[str, jax.Array]
) -> tuple[tuple[Part, ...], dict[Path, int]]:
    """The parts of a model in execution order, and the number of blocks of each scanned stack. Nothing is computed."""
    found: dict[Path, Part] = {}
    lengths: dict[Path, int] = {}
    outputs: list[tuple[Any, Path]] = []
    # By identity, with the arrays themselves, so that none is forgotten and its identity used again.
    sources: dict[int, tuple[Any, Path]] = {}

    def add(*parts: Part) -> None:
        for part in parts:
            found.setdefault(part.switch, part)

    def note(next_function: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        if context.method_name == "_shortcut":
            shortcut = next_function(*args, **kwargs)
            if shortcut is not None and isinstance(module, PRE_ACTIVATION_BLOCKS):
                add(Part("skip", (*module.path, "skip")))
            return shortcut
        if context.method_name != "__call__":
            return next_function(*args, **kwargs)
        if isinstance(module, Stack) and module.scan:
            lengths[module.path] = module.length
        x = args[0] if args else None
        reads = sources.setdefault(id(x), (x, module.path))[1]
        if isinstance(module, Layer) and kwargs.get("residual") is not None:
            add(Part("skip", (*module.path, "skip")))
        y = next_function(*args, **kwargs)
        if isinstance(module, Activation):
            activation = F.get_activation(module.kind)
            add(Part("activation", module.path, gain=activation.gain, passive=activation.name == "identity"))
            sources[id(y)] = (y, module.path)
        elif isinstance(module, tuple(NORMS.values())):
            kernel = next((path for output, path in outputs if output is x), None)
            add(*_norm_parts(module, kernel, kwargs.get("train", False)))
        elif module.has_variable("params", "kernel"):
            add(Part("kernel", module.path, isometric=_isometric(module, args[0], y), reads=reads))
            outputs.append((y, module.path))
        return y

    with nn.intercept_methods(note):
        jax.eval_shape(
            lambda v, x: model.apply(v, x, train=train, rngs=dict(rngs), mutable=["batch_stats"]),
            variables,
            images,
        )
    parts = (dataclasses.replace(part, stacks=_around(part.path, lengths)) for part in found.values())
    return tuple(parts), lengths


def _norm_parts(norm: nn.Module, reads: Path | None, train: bool) -> list[Part]:
    whole = Part("norm", norm.path, reads=reads)
    # Running statistics are constants already.
    constant = isinstance(norm, BatchNorm) and not train
    return [whole] if constant else [whole, Part("statistics", norm.path)]


def _isometric(module: nn.Module, x: jax.Array, y: jax.Array) -> bool:
    *_, inputs, outputs = module.get_variable("params", "kernel").shape
    return x.shape[:-1] == y.shape[:-1] and inputs == x.shape[-1] >= outputs


def _around(path: Path, stacks: Mapping[Path, int]) -> tuple[Path, ...]:
    return tuple(sorted((stack for stack in stacks if path[: len(stack)] == stack), key=len))


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Every single part of a model as an entry of a vector.

    Attributes:
      parts: of the model, stacked ones once.
      lengths: the leading axes of each part's variables.
      offsets: where each part begins in the vector.
      order: all of them as executed: (part, flat index, name of the layer).
    """

    parts: tuple[Part, ...]
    lengths: dict[Part, tuple[int, ...]]
    offsets: dict[Part, int]
    order: list[tuple[Part, int, str]]

    @classmethod
    def of(cls, parts: tuple[Part, ...], stacks: dict[Path, int]) -> "Layout":
        lengths = {part: tuple(stacks[stack] for stack in part.stacks) for part in parts}
        ends = np.cumsum([math.prod(shape) for shape in lengths.values()]).tolist()
        offsets = dict(zip(parts, [0, *ends[:-1]], strict=True))
        order = [
            (part, int(np.ravel_multi_index(index, lengths[part])) if index else 0, label(part, index))
            for part, index in execution_order(parts, stacks)
        ]
        return cls(parts, lengths, offsets, order)

    @property
    def size(self) -> int:
        """The length of the vector."""
        return sum(math.prod(shape) for shape in self.lengths.values())

    @functools.cached_property
    def rows(self) -> list[tuple[Part, int, str]]:
        """Those of `order` that the gradient at the first layer passes: the first activation, and what comes behind it."""
        first = next((i for i, row in enumerate(self.order) if row[0].kind == "activation"), len(self.order))
        return self.order[first:]

    def tree(self, vector: jax.Array | np.ndarray) -> dict[str, Any]:
        """The vector's entries as variables of the parts."""
        tree: dict[str, Any] = {}
        for part in self.parts:
            shape, offset = self.lengths[part], self.offsets[part]
            entries = jnp.asarray(vector[offset : offset + math.prod(shape)])
            put_at_path(tree, part.switch, entries.reshape(shape))
        return tree

    def factors(self, measured: Any) -> np.ndarray:
        """The factor of each part, from what `measuring` wrote.

        A signal that an activation puts out entirely gives no factor: there it is that of the table, 1 / gain.
        """
        logs = np.zeros(self.size)
        for part in self.parts:
            if part.kind in ("activation", "norm"):
                found = np.asarray(at_path(measured, part.switch), np.float64).reshape(-1)
                standard = -math.log10(part.gain)
                entries = slice(self.offsets[part], self.offsets[part] + found.size)
                logs[entries] = np.where(np.isfinite(found), found, standard)
        readers = {part.reads: part for part in self.parts if part.kind == "norm" and part.reads}
        # log of the activation last in front of each module as it begins, and of each activation, once in each block.
        known: dict[tuple[Path | None, tuple[int, ...]], float] = {}
        before = 0.0
        for part, flat, _ in self.order:
            index = tuple(int(i) for i in np.unravel_index(flat, self.lengths[part]))
            for module in _modules(part):
                known.setdefault((module, index[: _depth(module, part)]), before)
            if part.kind == "activation":
                before = known[part.path, index] = logs[self.offsets[part] + flat]
            elif part.kind == "kernel":
                reader = readers.get(part.path)
                undone = 0.0 if reader is None else logs[self.offsets[reader] + flat]
                logs[self.offsets[part] + flat] = -known.get((part.reads, index), before) - undone
        return np.power(10.0, logs).astype(np.float32)


def _modules(part: Part) -> list[Path]:
    """The modules around a part, from the model on, and its own."""
    path = part.path[:-1] if part.kind == "skip" else part.path
    return [path[:i] for i in range(len(path) + 1)]


def _depth(module: Path, part: Part) -> int:
    """Number of scanned stacks around a module, which is one of those around the part."""
    return sum(len(stack) < len(module) for stack in part.stacks)
