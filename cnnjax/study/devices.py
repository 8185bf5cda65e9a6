"""Laying the run axis over devices: a map or a vmap on each, and the devices side by side."""

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnnjax.compiling import jit

RunAxis = Literal["auto", "map", "vmap"]


def one_host_device_per_core() -> None:
    """On a machine without accelerator, makes every core a device of its own; call it before JAX starts.

    Two devices with half of the runs each are faster than one device with two threads, because most operations of a
    small network are too small to share. Does nothing when the number of devices was set before.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", cores)


def over_runs(function: Callable[..., Any], *, run_axis: RunAxis = "auto") -> Callable[..., Any]:
    """`function(one, shared)` of one run as a function of many, each leaf of `one` with a leading axis of runs.

    Args:
      function: of two pytrees: what differs between the runs, and what they share.
      run_axis: how the runs of one device are computed: "map" (one after the other: on CPU, where vmapped kernels
        would become grouped convolutions, which are slow), "vmap" (all at once: on GPU and TPU), "auto" chooses by the
        platform.
    """
    if chosen_axis(run_axis) == "map":
        return lambda many, shared: jax.lax.map(lambda one: function(one, shared), many)
    return lambda many, shared: jax.vmap(lambda one: function(one, shared))(many)


def chosen_axis(run_axis: RunAxis) -> RunAxis:
    """What "auto" stands for on this platform; "map" and "vmap" for themselves."""
    on_cpu = jax.default_backend() == "cpu"
    return run_axis if run_axis != "auto" else "map" if on_cpu else "vmap"


class Programs:
    """Compiled programs by their text: what many cells of a study have in common, such as the draw of their kernels."""

    def __init__(self) -> None:
        self._compiled: dict[Any, Callable[..., Any]] = {}
        self._lock = threading.Lock()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """`jit(function)(*arguments)`, compiled only if no function before had the same program and the same pytrees."""
        lowered = jit(function).lower(*arguments)
        # The text leaves out arguments that nothing uses.
        key = str(lowered.in_avals), lowered.in_tree, lowered.out_tree, lowered.as_text()
        with self._lock:
            if key not in self._compiled:
                self._compiled[key] = lowered.compile()
        return self._compiled[key](*arguments)


class RunDevices:
    """The devices of a study as a mesh with one axis, "runs".

    Runs never talk to each other, so the number of runs that are computed together grows with the number of devices.
    """

    def __init__(self, devices: Sequence[Any] | None = None, *, run_axis: RunAxis = "auto") -> None:
        devices = jax.devices() if devices is None else devices
        self.mesh = Mesh(np.asarray(devices), ("runs",), axis_types=(AxisType.Auto,))
        self.run_axis: RunAxis = chosen_axis(run_axis)
        self.programs = Programs()

    @property
    def count(self) -> int:
        """Number of devices."""
        return self.mesh.size

    def padded(self, runs: int) -> int:
        """The number of runs with the padding that fills every device equally."""
        return -(-runs // self.count) * self.count

    def split(self, tree: Any) -> Any:
        """Puts arrays `(runs, ...)` on the devices, each device its share of the runs."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec("runs")))

    def everywhere(self, tree: Any) -> Any:
        """Puts a copy of every array on every device."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def compile(
        self, function: Callable[..., Any], many: Any, shared: Any, *, donate: bool = False
    ) -> Callable:
        """`over_runs(function)` compiled for arguments of these shapes, split over the devices."""
        runs, same = PartitionSpec("runs"), PartitionSpec()
        mapped = over_runs(function, run_axis=self.run_axis)
        # Nothing crosses the mesh, so there is no replication for shard_map to check.
        spread = jax.shard_map(mapped, mesh=self.mesh, in_specs=(runs, same), out_specs=runs, check_vma=False)
        return jit(spread).lower(many, shared).compile()
