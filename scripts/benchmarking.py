"""What the benchmarks share: each side in a process of its own, asked in turn; medians; one table.

A benchmark is a script with workloads, by side and case, and a function that compares them:

    def measure(bench): bench.compare("3x3", "ours", "lax", at_least=1.5)
    if __name__ == "__main__": main(__doc__, {"ours": {"3x3": make}, "lax": {"3x3": make_other}}, measure)

`make()` prepares a workload and returns a function that runs it once and does not return before it is done. The script
itself, called with `--side NAME`, is the process of that side. This file needs the standard library only, so that a side
may run under another interpreter.
"""

import argparse
import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Run = Callable[[], Any]
Workloads = Mapping[str, Callable[[], Run]]

PACKAGES = ("jax", "jaxlib", "flax", "numpy", "torch")
HEADER = ("case", "ours", "other", "ratio", "required", "verdict")
# A run shorter than this is repeated until the time has passed; one measurement is the median of the repetitions.
SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table. Times in ms unless the case names another unit; `ratio` is what `required` speaks of."""

    case: str
    ours: float
    other: float | None
    ratio: float | None
    required: str
    met: bool | None


@dataclasses.dataclass(frozen=True)
class Reply:
    """One measurement: milliseconds of a run, what it returned if that was a number, and the process so far."""

    milliseconds: float
    value: float | None
    peak_gib: float
    device: str


class Side:
    """A process that serves workloads; started at the first question."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, case: str) -> Reply:
        """Measures a case once."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(case + "\n")
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of a side ended while it measured {case!r}; its message is above")
        return Reply(**json.loads(line))

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


class Bench:
    """Compares sides and collects the rows.

    Args:
      command: starts the process of a side, without the side's name.
      commands: of sides that are started otherwise.
      rounds: how often each side is asked, in turn.
      only: a part of the names of the cases to measure.
    """

    def __init__(
        self, command: Sequence[str], commands: Mapping[str, Sequence[str]], *, rounds: int, only: str
    ) -> None:
        self._command, self._commands, self._rounds, self._only = command, commands, rounds, only
        self._sides: dict[str, Side] = {}
        self.rows: list[Row] = []
        self.devices: list[str] = []

    def wants(self, case: str) -> bool:
        """Whether `--only` lets a case through."""
        return self._only in case

    def ask(self, side: str, case: str) -> Reply:
        """One measurement by the process of a side."""
        if side not in self._sides:
            self._sides[side] = Side(self._commands.get(side, [*self._command, side]))
        reply = self._sides[side].ask(case)
        if reply.device not in self.devices:
            self.devices.append(reply.device)
        return reply

    def compare(
        self,
        case: str,
        ours: str,
        other: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        rounds: int | None = None,
        name: str | None = None,
        per: int = 1,
    ) -> None:
        """Asks two sides in turn and adds a row.

        Args:
          case: what both sides run.
          ours, other: the sides.
          at_least: bounds other / ours.
          at_most: bounds ours / other.
          rounds: fewer or more than usual.
          name: of the row, where it is not the case's.
          per: how many equal parts a run has; the row holds the time of one.
        """
        if not self.wants(name or case):
            return
        times = [
            [self.ask(side, case).milliseconds / per for side in (ours, other)]
            for _ in range(rounds or self._rounds)
        ]
        a, b = map(statistics.median, zip(*times, strict=True))
        if at_most is not None:
            required, met = f"ours <= {at_most:g} other", a / b <= at_most
        else:
            required, met = f"{at_least:g} times faster" if at_least else "", b / a >= (at_least or 0)
        self.add(Row(name or case, a, b, a / b if at_most else b / a, required, met if required else None))

    def compare_all(
        self, cases: Sequence[str], ours: str, other: str, *, at_most: float, passes: int = 3
    ) -> None:
        """Adds a row for each of many short cases; ours / other is the median over several pairs of fresh processes.

        The same program may be half as fast in another process, where its arrays lie otherwise in memory.
        """
        times: dict[str, list[list[float]]] = {case: [] for case in cases if self.wants(case)}
        for _ in range(passes):
            for case, found in times.items():
                rounds = [
                    [self.ask(side, case).milliseconds for side in (ours, other)]
                    for _ in range(max(self._rounds // passes, 1))
                ]
                found.append([statistics.median(column) for column in zip(*rounds, strict=True)])
            self.close(ours, other)
        for case, found in times.items():
            a, b = map(statistics.median, zip(*found, strict=True))
            ratio = statistics.median(x / y for x, y in found)
            self.add(Row(case, a, b, ratio, f"ours <= {at_most:g} other", ratio <= at_most))

    def add(self, row: Row) -> None:
        """Adds a row and shows it, because a benchmark takes a while."""
        self.rows.append(row)
        print("  ".join(_cells(row)), file=sys.stderr, flush=True)

    def close(self, *sides: str) -> None:
        """Ends the processes of some sides, or of all."""
        for side in set(sides or self._sides) & set(self._sides):
            self._sides.pop(side).close()


def serve(workloads: Workloads, device: Callable[[], str]) -> None:
    """The process of a side: for every case named on its input, a `Reply` on its output."""
    output = os.fdopen(os.dup(1), "w")
    # Whatever a library prints must not get among the replies.
    os.dup2(2, 1)
    current, run = "", None
    for line in sys.stdin:
        if run is None or line != current:
            current, run = line, None
            run = workloads[line.strip()]()
            run()
        reply = Reply(*_measure(run), _peak_gib(), device())
        print(json.dumps(dataclasses.asdict(reply)), file=output, flush=True)


def jax_device() -> str:
    """The devices that JAX uses, in words."""
    import jax

    return f"{jax.device_count()} {jax.devices()[0].device_kind}"


def main(
    description: str | None,
    workloads: Mapping[str, Workloads],
    measure: Callable[[Bench], None],
    *,
    commands: Mapping[str, Sequence[str]] | None = None,
    arguments: Sequence[str] | None = None,
) -> None:
    """Reads the options of a benchmark, runs it, and prints its table; or serves one side of it."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="how often each side is asked, in turn")
    parser.add_argument("--only", default="", help="a part of the names of the cases to measure")
    parser.add_argument("--json", type=Path, help="write the table here, too")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.side:
        serve(workloads[options.side], jax_device)
        return
    bench = Bench(
        [sys.executable, sys.argv[0], "--side"], commands or {}, rounds=options.rounds, only=options.only
    )
    before = _processor_seconds()
    try:
        measure(bench)
    finally:
        bench.close()
    circumstances = [*_versions(), f"on {', '.join(bench.devices)} ({_processor()})", _busy(before)]
    print(_table(bench.rows))
    print("; ".join(circumstances))
    if options.json:
        rows = [dataclasses.asdict(row) for row in bench.rows]
        options.json.write_text(json.dumps({"rows": rows, "circumstances": circumstances}, indent=2) + "\n")


def _measure(run: Run) -> tuple[float, float | None]:
    times, value = [], None
    while sum(times) < SECONDS:
        start = time.perf_counter()
        value = run()
        times.append(time.perf_counter() - start)
    number = float(value) if isinstance(value, int | float) else None
    return statistics.median(times) * 1e3, number


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def _table(rows: Sequence[Row]) -> str:
    lines = [HEADER, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    padded = [" | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(f"| {line} |" for line in padded)


def _cells(row: Row) -> tuple[str, ...]:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:,.0f}" if value >= 999.5 else f"{value:.3g}"

    verdict = {None: "", True: "met", False: "NOT MET"}[row.met]
    return (row.case, number(row.ours), number(row.other), number(row.ratio), row.required, verdict)


def _versions() -> list[str]:
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    return [", ".join(found), datetime.date.today().isoformat()]


def _processor() -> str:
    with contextlib.suppress(OSError, IndexError):
        text = Path("/proc/cpuinfo").read_text()
        return text.split("model name")[1].split("\n")[0].strip(" \t:") + f", {os.cpu_count()} cores"
    return f"{platform.machine()}, {os.cpu_count()} cores"


def _processor_seconds() -> tuple[float, float] | None:
    """Processor time so far of all processes and of ours, or None where the system does not tell."""
    with contextlib.suppress(OSError, ValueError):
        user, nice, system, *_ = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        own = sum(usage.ru_utime + usage.ru_stime for usage in usages)
        return (user + nice + system) / os.sysconf("SC_CLK_TCK"), own
    return None


def _busy(before: tuple[float, float] | None) -> str:
    """How much other processes were at work meanwhile: they make every number here worse."""
    load = f"load average {os.getloadavg()[1]:.1f}"
    after = _processor_seconds()
    if before is None or after is None:
        return load
    everyone, own = after[0] - before[0], after[1] - before[1]
    share = max(everyone - own, 0) / max(everyone, 1e-9)
    return f"{load}, {share:.0%} of the busy processor time was other processes'"
