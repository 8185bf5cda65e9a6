"""What a stored number needs to be believed: versions, device, precision, commit."""

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
PACKAGES = ("cnnjax", "jax", "jaxlib", "flax", "optax", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {"python": platform.python_version(), **found}


def device(devices: Sequence[Any]) -> dict[str, Any]:
    """Platform, kind and number of the JAX devices in use, and the processor's architecture."""
    first = devices[0]
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "count": len(devices),
        "machine": platform.machine(),
    }


def precision() -> str:
    """The precision of products: what JAX is set to, or the platform's default."""
    chosen = jax.config.values["jax_default_matmul_precision"]
    return chosen or ("float32" if jax.default_backend() == "cpu" else "platform default (below float32)")


def commit() -> str | None:
    """The commit of the source tree that this package runs from, with "+changes" if it is edited; None outside of one.

    A package that is installed inside of somebody's project does not belong to that project's tree.
    """
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", str(Path(__file__)))
        changes = git("status", "--porcelain", "--untracked-files=no", "--", str(folder))
        return git("rev-parse", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.SubprocessError):
        return None


def host_memory() -> int:
    """Bytes of memory that this process may take: the machine's, or its container's limit."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(CONTAINER_LIMIT.read_text()))
    except (OSError, ValueError):
        return machine


def peak_memory_gib() -> float:
    """The largest resident memory of this process so far, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, KiB on Linux.
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
