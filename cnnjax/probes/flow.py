"""Gradient flow: what happened in every layer, forward and backward, in one pass."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jax.core import Tracer

from cnnjax import functional as F
from cnnjax.nn import RECORD, SLOTS
from cnnjax.probes.points import Path, Point, execution_order, label, points_and_state

FORWARD_COLUMNS = (
    "mean",
    "log10_second_moment",
    "dead",
    "saturated",
    "correlation",
    "output_mean",
    "output_log10_second_moment",
)
KERNEL_COLUMNS = (
    "kernel_log10_norm",
    "kernel_gradient_log10_norm",
    "gradient_to_kernel_log10",
    "update_to_kernel_log10",
)
GRADIENTS = ("gradient", "output_gradient")
COLUMNS = (
    *FORWARD_COLUMNS,
    *(f"{gradient}_{moment}" for gradient in GRADIENTS for moment in F.Moments._fields),
    *KERNEL_COLUMNS,
)
"""The columns of a `Flow`, the same for every model."""


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["table"], meta_fields=["layers", "activations"]
)
@dataclasses.dataclass(frozen=True)
class Flow:
    """A table of layers in execution order; a pytree, so that it may leave jit, vmap and scan.

    Attributes:
      layers: the name of each layer, its path in the model.
      activations: the name of each layer's activation.
      table: an array `(layers, columns)`, its columns in the order of `COLUMNS`:
        mean, log10_second_moment: of the pre-activation z;
        dead, saturated: fractions of z where the activation's slope is 0, or below a tenth of its maximum;
        correlation: mean cosine between neighboring examples' z;
        output_mean, output_log10_second_moment: of the activation's output;
        gradient_mean, gradient_log10_second_moment, gradient_log10_max: of the gradient of the loss with respect to z;
        output_gradient_...: the same with respect to the output;
        kernel_log10_norm, kernel_gradient_log10_norm: Euclidean norms of the kernel and its gradient;
        gradient_to_kernel_log10, update_to_kernel_log10: log10 of the ratio of norms. NaN without a kernel or an update.
    """

    layers: tuple[str, ...]
    activations: tuple[str, ...]
    table: jax.Array | np.ndarray

    @property
    def columns(self) -> dict[str, Any]:
        """The columns by name, each `(layers,)`."""
        return {name: self.table[..., i] for i, name in enumerate(COLUMNS)}

    def frame(self) -> pd.DataFrame:
        """A row for each layer: `layer` (its index), `path`, `activation`, and the columns.

        Raises:
          ValueError: the table carries further axes (of a vmap): take one entry of it first.
        """
        if self.table.ndim != 2:
            raise ValueError(
                f"a frame has one row for each of {len(self.layers)} layers, but this table has shape "
                f"{self.table.shape}: select one run first, as in jax.tree.map(lambda a: a[0], flow)"
            )
        names = {"layer": range(len(self.layers)), "path": self.layers, "activation": self.activations}
        columns = zip(COLUMNS, np.asarray(self.table).T, strict=True)
        return pd.DataFrame({**names, **dict(columns)})


@dataclasses.dataclass(frozen=True, eq=False)
class Recorder:
    """The static half of a gradient flow: made once for a model, used inside any compiled step, or a static argument of it.

    recorder = Recorder.of(model, variables, images)
    slots = recorder.new_slots()
    logits, state = model.apply({**variables, SLOTS: slots}, images, train=True, mutable=[RECORD, "batch_stats"])
    ... gradients with respect to parameters and slots ...
    flow = recorder.flow(state[RECORD], slot_gradients, params, param_gradients)
    """

    points: tuple[Point, ...]
    layers: tuple[str, ...]
    activations: tuple[str, ...]
    order: np.ndarray
    slots: Any

    @classmethod
    def of(cls, model: nn.Module, variables: Any, images: Any, *, train: bool = True) -> "Recorder":
        """The recorder of a model; arrays may be `ShapeDtypeStruct`s, since nothing is computed.

        Raises:
          ValueError: the model has no probe point.
        """
        points, state = points_and_state(model, variables, images, train=train, rngs=_stream(train))
        if not points:
            raise ValueError(
                f"{type(model).__name__} has no probe point: use cnnjax.nn.Activation in its layers"
            )
        slots = state[SLOTS]
        shapes = [_at(slots, point.path)[GRADIENTS[0]].shape[:-1] for point in points]
        lengths = {
            stack: n
            for p, shape in zip(points, shapes, strict=True)
            for stack, n in zip(p.stacks, shape, strict=True)
        }
        rows = list(execution_order(points, lengths))
        offsets = dict(zip(points, np.cumsum([0, *map(math.prod, shapes)]), strict=False))
        position = {p: shape for p, shape in zip(points, shapes, strict=True)}
        order = [offsets[p] + (np.ravel_multi_index(i, position[p]) if i else 0) for p, i in rows]
        return cls(
            points=points,
            layers=tuple(label(point, index) for point, index in rows),
            activations=tuple(point.activation for point, _ in rows),
            order=np.asarray(order, np.int32),
            slots=slots,
        )

    def new_slots(self) -> Any:
        """Empty slots for the collection `nn.SLOTS`."""
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), self.slots)

    def flow(
        self, record: Any, slot_gradients: Any, params: Any, gradients: Any, updates: Any = None
    ) -> Flow:
        """The table, from what one forward and backward pass gave.

        Args:
          record: the collection `nn.RECORD` after the pass.
          slot_gradients: the gradient with respect to the slots.
          params: parameters.
          gradients: of the parameters.
          updates: what the optimizer adds to the parameters; None leaves that column NaN.
        """
        rows = []
        for point in self.points:
            forward, slots = _at(record, point.path)["forward"], _at(slot_gradients, point.path)
            trees = (params, gradients, updates)
            norms = [_scaled_norms(_kernel(tree, point.kernel), forward.shape[:-1]) for tree in trees]
            row = jnp.concatenate([forward, *(slots[name] for name in GRADIENTS), *norms], axis=-1)
            rows.append(row.reshape(-1, row.shape[-1]))
        return Flow(self.layers, self.activations, _table(jnp.concatenate(rows)[self.order]))


def gradient_flow(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    labels: jax.Array,
    *,
    loss: Callable[[jax.Array, jax.Array], jax.Array] = F.cross_entropy,
    train: bool = True,
    key: jax.Array | None = None,
    optimizer: optax.GradientTransformation | None = None,
    precision: str | None = "highest",
) -> Flow:
    """Forward and backward statistics of every layer of a model on one batch.

    Changes nothing: `variables` stay as they are, and the gradients inside are those without probes, bit for bit before the
    compiler fuses operations; it may fuse them otherwise where statistics are taken, and then they were seen to differ by
    1e-6 of the largest entry. May be called inside jit, vmap and scan, and on sharded arrays.

    Args:
      model: a Flax module whose activations are `cnnjax.nn.Activation`; called as `model(images, train=...)`.
      variables: of the model, with "params".
      images: `(batch, height, width, channels)`, normalized.
      labels: what `loss` takes, `(batch,)` integers for the default.
      loss: of (logits, labels), one number for each example; the mean is differentiated.
      train: whether norms use the batch's statistics and dropout is active.
      key: for dropout, which a model with it needs here.
      optimizer: of optax; its first update is compared with the kernels (`update_to_kernel_log10`, else NaN).
      precision: of all products (`jax.default_matmul_precision`); None leaves the platform's default.

    Returns:
      A `Flow`; `.frame()` makes a pandas frame of it.

    Raises:
      ValueError: `variables` lack "params", the model has no probe point, or, where the values of `labels` can be seen and
        `loss` is the default, a label is out of range.
    """
    if "params" not in variables:
        raise ValueError(
            f"variables must hold the collection 'params', as model.init makes them; got {sorted(variables)}"
        )
    recorder = Recorder.of(model, variables, images, train=train)
    rest = {name: tree for name, tree in variables.items() if name != "params"}
    rngs = {} if key is None else {"dropout": key}

    def objective(params, slots):
        collections = {"params": params, SLOTS: slots, **rest}
        mutable = [RECORD, "batch_stats"]
        logits, state = model.apply(collections, images, train=train, mutable=mutable, rngs=rngs)
        if loss is F.cross_entropy and labels.ndim == 1 and not isinstance(labels, Tracer):
            F.check_labels(labels, logits.shape[-1])
        return jnp.mean(loss(logits, labels)), state[RECORD]

    with jax.default_matmul_precision(precision):
        differentiate = jax.grad(objective, argnums=(0, 1), has_aux=True)
        (gradients, slots), record = differentiate(variables["params"], recorder.new_slots())
    params, updates = variables["params"], None
    if optimizer is not None:
        updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    return recorder.flow(record, slots, params, gradients, updates)


def _stream(train: bool) -> dict[str, jax.Array]:
    return {"dropout": jax.random.key(0)} if train else {}


def _at(tree: Any, path: Path) -> Any:
    return functools.reduce(lambda node, name: node[name], path, tree)


def _kernel(tree: Any, path: Path | None) -> jax.Array | None:
    return None if tree is None or path is None else _at(tree, path)


def _scaled_norms(kernels: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    """`scaled_norm` of the kernels of a point, `(*shape, 2)`; NaN without any."""
    if kernels is None:
        return jnp.full((*shape, 2), jnp.nan, jnp.float32)
    flat = kernels.reshape(math.prod(shape), *kernels.shape[len(shape) :])
    return jax.vmap(F.scaled_norm)(flat).reshape(*shape, 2)


def _table(rows: jax.Array) -> jax.Array:
    """`COLUMNS` from a row of numbers for each layer: the record, the slots, and the scaled norms."""
    moments, rest, slots, norms = jnp.split(rows, (6, 9, 15), axis=1)
    before, after = (F.Moments.of(part) for part in jnp.split(moments, 2, axis=1))
    backward = [moment for part in jnp.split(slots, 2, axis=1) for moment in F.Moments.of(part)]
    kernel, gradient, update = F.read_norms(norms.reshape(-1, 3, 2)).T
    forward = [*before[:2], *rest.T, *after[:2]]
    return jnp.stack([*forward, *backward, kernel, gradient, gradient - kernel, update - kernel], axis=1)
