"""The study of scripts/demo as a user runs it: from the start of Python to the written page.

    python scripts/bench_demo.py [--json FILE]

At most 4 minutes and 3 GB on two cores, for 160 runs or more.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarking import Bench, Row, jax_device, main

from cnnjax.study import Store

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def measure(bench: Bench) -> None:
    """Runs the demo once in a process of its own."""
    bench.devices.append(jax_device())
    seconds, runs, gigabytes = whole("demo")
    bench.add(Row("runs", runs, None, None, "160 or more", runs >= 160))
    bench.add(Row("seconds, page included", seconds, None, None, "<= 240", seconds <= 240))
    bench.add(Row("peak memory, GB", gigabytes, None, None, "<= 3", gigabytes <= 3))


def whole(experiment: str) -> tuple[float, int, float]:
    """Seconds, runs and the peak of memory in GB of an experiment, from the start of Python to the written page."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, EXPERIMENTS / f"{experiment}.py", "--out", folder, "--quiet"]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=sys.stderr)
        seconds = time.perf_counter() - start
        store = Store(folder)
        return seconds, len(store.table("runs")), store.info["peak_memory_gib"] * 2**30 / 1e9


if __name__ == "__main__":
    main(__doc__, {}, measure)
