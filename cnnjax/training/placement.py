"""Which devices a run is laid over, and how."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cnnjax.functional.names import lookup
from cnnjax.training.parallel import DATA, check_batch, make_mesh


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """How a run is laid over devices. None of it changes what is computed, but for `batch_norm="device"`.

    Attributes:
      by: "jit" over a mesh, or "pmap" with a copy of everything on each device.
      devices: how many; None takes all there are.
      model_axis: how many devices share wide layers and their part of the optimizer's memory ("jit" only).
      batch_norm: "global" normalizes by the batch of all devices, "device" by each device's own part ("pmap" only).
    """

    by: Literal["jit", "pmap"] = "jit"
    devices: int | None = None
    model_axis: int = 1
    batch_norm: Literal["global", "device"] = "global"

    def __post_init__(self):
        lookup(dict.fromkeys(("jit", "pmap")), self.by, "placement")
        lookup(dict.fromkeys(("global", "device")), self.batch_norm, "kind of batch norm")
        if self.by == "pmap" and self.model_axis != 1:
            raise ValueError(
                f"pmap keeps whole layers on every device: a model axis of {self.model_axis} needs by='jit'"
            )
        if self.by == "jit" and self.batch_norm == "device":
            raise ValueError(
                "jit computes as one device would: batch norm of each device by itself needs by='pmap'"
            )

    def chosen(self) -> Sequence[Any]:
        """The devices.

        Raises:
          ValueError: there are fewer, or several processes are to use pmap or a part of the devices.
        """
        there = jax.devices()
        count = len(there) if self.devices is None else self.devices
        if not 1 <= count <= len(there):
            raise ValueError(f"devices must lie between 1 and the {len(there)} there are; got {count}")
        if jax.process_count() > 1 and (self.by == "pmap" or count < len(there)):
            raise ValueError(
                f"a run of {jax.process_count()} processes takes all {len(there)} devices and goes by jit; got "
                f"{count} devices by {self.by}"
            )
        return there[:count]

    def mesh(self, batch_size: int) -> Mesh:
        """The devices as a mesh.

        Raises:
          ValueError: they cannot be divided so, or the batch cannot be divided among them.
        """
        mesh = make_mesh(self.chosen(), model=self.model_axis)
        check_batch(batch_size, mesh.shape[DATA])
        return mesh


def everywhere(mesh: Mesh) -> NamedSharding:
    """A copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The first axis over the data axis of the mesh."""
    return NamedSharding(mesh, PartitionSpec(DATA))
