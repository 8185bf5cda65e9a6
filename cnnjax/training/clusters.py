"""Which processes belong together: from options, the environment, or the cluster that started them."""

import importlib.util
import os
import re
from typing import Any, NamedTuple

import jax

__all__ = ["Group", "find_group"]

COORDINATOR, PROCESSES, PROCESS = "CNNJAX_COORDINATOR", "CNNJAX_PROCESSES", "CNNJAX_PROCESS"


class Group(NamedTuple):
    """What `jax.distributed.initialize` takes; None is what a cluster knows itself."""

    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    cluster: str | None = None
    devices: list[int] | None = None

    def __str__(self) -> str:
        if self.cluster:
            return f"this process, started by {self.cluster},"
        return f"process {self.process} of {self.processes}, with the coordinator {self.coordinator},"


def find_group(coordinator: str | None, processes: int | None, process: int | None) -> Group | None:
    """The group of this process; None where it is alone, `processes` = 1 where it is told to be.

    Arguments and errors are those of `hosts.initialize`.
    """
    return _given(coordinator, processes, process) or _detected()


def _given(coordinator: str | None, processes: int | None, process: int | None) -> Group | None:
    """What arguments and environment say, checked; None where they say nothing."""
    found: dict[str, Any] = {
        COORDINATOR: os.environ.get(COORDINATOR) if coordinator is None else coordinator,
        PROCESSES: _whole(PROCESSES) if processes is None else processes,
        PROCESS: _whole(PROCESS) if process is None else process,
    }
    address, count, number = found.values()
    if address is None and count is None and number is None:
        return None
    if count == 1:
        return Group(processes=1)
    if address is None or count is None or number is None:
        missing = [name for name, value in found.items() if value is None]
        raise ValueError(
            "coordinator, processes and process go together, as options or as "
            f"{', '.join(found)} in the environment; missing: {', '.join(missing)}"
        )
    if not re.fullmatch(r".+:\d+", address):
        raise ValueError(f"the coordinator must be HOST:PORT, got {address!r}")
    if count < 1:
        raise ValueError(f"processes must be 1 or more, got {count}")
    if not 0 <= number < count:
        raise ValueError(f"process must lie in 0..{count - 1}, as there are {count} processes; got {number}")
    return Group(address, count, number)


def _whole(variable: str) -> int | None:
    text = os.environ.get(variable)
    if text is not None and not text.isdigit():
        raise ValueError(f"{variable} must be a whole number, got {text!r}")
    return None if text is None else int(text)


def _detected() -> Group | None:
    """The cluster that started this process, by the names that JAX gives them."""
    slurm = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")
    if _count("SLURM_NTASKS") > 1 and all(name in os.environ for name in slurm):
        alone = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0] == "1"
        gpus = _count("SLURM_GPUS_ON_NODE")
        # JAX gives every task of Slurm one device.
        return Group(cluster="slurm", devices=list(range(gpus)) if alone and gpus > 1 else None)
    if _count("OMPI_COMM_WORLD_SIZE") > 1 and "OMPI_MCA_orte_hnp_uri" in os.environ:
        return Group(cluster="ompi")
    # JAX sets this when it is imported on a machine with TPUs.
    if os.environ.get("TPU_ML_PLATFORM") == "JAX" and "tpu" in _platforms():
        if {"TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"} & os.environ.keys():
            return Group(cluster="gketpu")
        return None if "TPU_SKIP_MDS_QUERY" in os.environ else Group(cluster="gcetpu")
    if {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= os.environ.keys():
        if importlib.util.find_spec("kubernetes") is None:
            raise ImportError(
                f'in a Kubernetes job JAX needs the package kubernetes to find the other pods: install "jax[k8s]", set '
                f"{COORDINATOR}, {PROCESSES} and {PROCESS}, or set {PROCESSES}=1 to compute alone"
            )
        return Group(cluster="k8s")
    return None


def _count(variable: str) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdigit() else 0


def _platforms() -> str:
    return jax.config.values["jax_platforms"] or ""
