"""`cnnjax doctor`: whether this machine computes what it should, and what it has to offer."""

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Check devices, versions, precision, convolutions, memory and data, and say what is wrong."""

    def __call__(self, command: str) -> int:
        """Prints what was found; 1 if something is wrong."""
        from cnnjax.commands.cells import console

        out = console()
        problems: list[str] = []
        for topic, examine in EXAMINATIONS.items():
            for line in examine(problems):
                out.print(f"{topic:<13}", line, markup=False, soft_wrap=True)
                topic = ""
        out.print(
            "; ".join(problems) or "all well", style="bold red" if problems else "bold green", soft_wrap=True
        )
        return 1 if problems else 0


def _devices(problems: list[str]) -> Iterator[str]:
    import jax

    from cnnjax import machine
    from cnnjax.commands.run import prepare_devices

    prepare_devices()
    found = machine.device(jax.devices())
    yield f"{found['count']} x {found['kind']} ({found['platform']}), {os.cpu_count()} cores, {found['machine']}"
    if found["platform"] == "cpu" and Path("/dev/nvidiactl").exists() and not os.environ.get("JAX_PLATFORMS"):
        problems.append("there is an NVIDIA GPU that JAX does not use: pip install 'cnnjax[cuda]'")


def _versions(problems: list[str]) -> Iterator[str]:
    from cnnjax import machine

    yield ", ".join(f"{name} {version}" for name, version in machine.versions().items())


def _precision(problems: list[str]) -> Iterator[str]:
    from cnnjax import machine

    yield f"of products: {machine.precision()}"


def _convolutions(problems: list[str]) -> Iterator[str]:
    from cnnjax.commands.selftest import CASES, QUANTITIES, TOLERANCE, check

    findings = list(check())
    for finding in findings:
        if not finding.right:
            problems.append(
                f"convolution ({finding.case}, {finding.place}): {finding.quantity} is off by {finding.error:.1e}"
            )
    worst = max(finding.error for finding in findings)
    wrong = sum(not finding.right for finding in findings)
    verdict = f"{wrong} of {len(findings)} wrong" if wrong else "right"
    yield f"{', '.join(case.name for case in CASES)}; plain and in a loop; {', '.join(QUANTITIES)}:"
    yield f"{verdict}, largest error against NumPy {worst:.1e} of the largest entry (allowed: {TOLERANCE:.0e})"


def _memory(problems: list[str]) -> Iterator[str]:
    import jax

    yield f"{_gib(_free_host_memory())} GiB free on the host, {_gib(shutil.disk_usage('.').free)} GiB on this disk"
    for device in jax.local_devices():
        if (free := _free_device_memory(device)) is not None:
            yield f"{_gib(free)} GiB free on {device}"


def _data(problems: list[str]) -> Iterator[str]:
    from cnnjax import data
    from cnnjax.data.cache import cache_dir
    from cnnjax.data.folders import data_root

    digits = data.load("digits")
    yield f"digits: {len(digits.train)} + {len(digits.validation)} + {len(digits.test)} images; cache {cache_dir()}"
    root = data_root(None)
    source = "TFDS_DATA_DIR" if os.environ.get("TFDS_DATA_DIR") else "TFDS_DATA_DIR is not set"
    yield f"{root} ({source}): {', '.join(prepared(root)) or 'no prepared sets'}"
    if os.environ.get("TFDS_DATA_DIR") and not root.is_dir():
        problems.append(f"TFDS_DATA_DIR names {root}, which is no folder")


def prepared(root: Path) -> list[str]:
    """The sets in a folder of TFDS, as `data.load` names them."""
    infos = [*root.glob("*/*/dataset_info.json"), *root.glob("*/*/*/dataset_info.json")]
    return sorted({str(info.parent.parent.relative_to(root)) for info in infos})


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"


def _free_host_memory() -> int:
    """Bytes that programs can still take; where the system does not say (macOS), all that there are."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable"))
        return 1024 * int(available.split()[1])
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _free_device_memory(device: Any) -> int | None:
    statistics = device.memory_stats()
    if not statistics or "bytes_limit" not in statistics:
        return None
    return statistics["bytes_limit"] - statistics["bytes_in_use"]


EXAMINATIONS = {
    "devices": _devices,
    "versions": _versions,
    "precision": _precision,
    "convolutions": _convolutions,
    "memory": _memory,
    "data": _data,
}
