"""Laying a training step over devices: `jit` over a mesh, or `pmap`."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnnjax.nn import BatchNorm
from cnnjax.training.step import Batch, Moments, StepMetrics, Trainer, TrainState

DATA, MODEL = "data", "model"
# Narrower axes than this are not worth the exchange.
SMALLEST_SHARD = 64


def make_mesh(devices: Sequence[Any] | None = None, *, model: int = 1) -> Mesh:
    """A mesh with the axes "data" and "model".

    Args:
      devices: None takes all.
      model: how many devices share wide layers; the others share the batch.

    Raises:
      ValueError: the devices cannot be divided so.
    """
    devices = jax.devices() if devices is None else devices
    if model < 1 or len(devices) % model:
        raise ValueError(
            f"{len(devices)} devices cannot be divided into groups of {model} for the model axis"
        )
    grid = np.asarray(devices).reshape(-1, model)
    return Mesh(grid, (DATA, MODEL), axis_types=(AxisType.Auto, AxisType.Auto))


def check_batch(batch_size: int, devices: int) -> None:
    """Raises ValueError unless every device gets as many examples."""
    if batch_size % devices:
        nearest = max(round(batch_size / devices), 1) * devices
        raise ValueError(
            f"a batch of {batch_size} cannot be divided among {devices} devices: use {nearest}, or fewer devices"
        )


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Where each array of a state lies: the last axis of wide ones is split over the model axis, all else is everywhere."""
    parts = mesh.shape[MODEL]

    def place(leaf: Any) -> NamedSharding:
        wide = leaf.ndim and leaf.shape[-1] % parts == 0 and leaf.shape[-1] >= SMALLEST_SHARD * parts
        axes = [None] * (leaf.ndim - 1) + [MODEL] if parts > 1 and wide else []
        return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree.map(place, state)


Step = Callable[[TrainState, Batch, jax.Array, Moments], tuple[TrainState, StepMetrics]]
"""A state, a batch, the run's key and the moments -> the next state and the metrics of the step."""


def jit_step(trainer: Trainer, state: Any, mesh: Mesh) -> Step:
    """The step compiled over a mesh: the batch is split over its data axis, and everything is as on one device.

    Batch norm sees the whole batch. The state is donated; for one that does not lie by `state_shardings` yet it is compiled
    once more.

    Args:
      trainer: whose step it is.
      state: of which only shapes matter.
      mesh: from `make_mesh`.
    """
    places = state_shardings(state, mesh)
    split, everywhere = NamedSharding(mesh, PartitionSpec(DATA)), NamedSharding(mesh, PartitionSpec())

    def step(
        state: TrainState, batch: Batch, key: jax.Array, moments: Moments
    ) -> tuple[TrainState, StepMetrics]:
        check_batch(len(batch.labels), mesh.shape[DATA])
        return trainer.step(state, batch, key, moments)

    return jax.jit(
        step,
        in_shardings=(places, split, everywhere, everywhere),
        out_shardings=(places, everywhere),
        donate_argnums=0,
    )


def pmap_step(trainer: Trainer, *, devices: Sequence[Any] | None = None, synchronized: bool = True) -> Step:
    """The step with a copy of the state on every device, each with its part of the batch; gradients are averaged.

    Augmentation draws for the whole batch, as on one device; dropout draws on each device for itself. The state, made by
    `replicated`, is donated.

    Args:
      trainer: whose step it is.
      devices: None takes all.
      synchronized: whether batch norm sees the whole batch, as under `jit_step`. If not, each device normalizes by its own
        part (Goyal et al. 2017, section 2.3), and the running statistics are the mean of theirs.

    Raises:
      ValueError: `synchronized` with a norm that is neither given by name nor `nn.BatchNorm`.
    """
    devices = jax.devices() if devices is None else list(devices)
    made = dataclasses.replace(trainer, model=_synchronized(trainer.model)) if synchronized else trainer
    mean = functools.partial(jax.lax.pmean, axis_name=DATA)

    @functools.partial(jax.jit, out_shardings=_by_device(devices))
    def prepare(numbers: jax.Array, batch: Batch, key: jax.Array, moments: Moments) -> Any:
        images, labels, for_dropout = trainer.seen(numbers[0], batch, key, moments)
        keys = jax.random.split(for_dropout, len(devices))
        parts = (images, labels, batch.labels)
        return *(x.reshape(len(devices), -1, *x.shape[1:]) for x in parts), keys

    @functools.partial(jax.pmap, axis_name=DATA, devices=devices, donate_argnums=0, out_axes=(0, None))
    def update(
        state: TrainState, images: jax.Array, labels: jax.Array, true: jax.Array, key: jax.Array
    ) -> Any:
        return made.update(state, images, labels, true, key, mean=mean)

    def step(
        state: TrainState, batch: Batch, key: jax.Array, moments: Moments
    ) -> tuple[TrainState, StepMetrics]:
        check_batch(len(batch.labels), len(devices))
        return update(state, *prepare(state.step, batch, key, moments))

    return step


def replicated(state: TrainState, devices: Sequence[Any] | None = None) -> TrainState:
    """A copy of the state for each device, on a leading axis, as `pmap_step` takes it."""
    devices = jax.devices() if devices is None else devices
    place = _by_device(devices)
    return jax.tree.map(lambda x: jax.device_put(np.broadcast_to(x, (len(devices), *x.shape)), place), state)


def _by_device(devices: Sequence[Any]) -> NamedSharding:
    """Arrays whose first axis is that of the devices."""
    mesh = Mesh(np.asarray(devices), (DATA,), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec(DATA))


def _synchronized(model: Any) -> Any:
    """The model with a batch norm that sees all devices."""
    if model.norm != "batch":
        if model.norm is None or isinstance(model.norm, str):
            return model
        raise ValueError(
            "synchronized=True needs a norm given by name: pass norm=functools.partial(nn.BatchNorm, axis_name='data') "
            f"and synchronized=False; got {model.norm!r}"
        )
    norm = functools.partial(
        BatchNorm, momentum=model.norm_momentum, epsilon=model.norm_epsilon, axis_name=DATA
    )
    return model.clone(norm=norm)
