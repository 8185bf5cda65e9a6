"""What a training run shows while it goes on, how it is stopped, and what is said at its end."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from cnnjax.commands.interrupt import saving
from cnnjax.report import run_page
from cnnjax.report.run_metrics import percent, shares
from cnnjax.training import hosts, journal
from cnnjax.training.loop import Broken
from cnnjax.training.watcher import Watcher


@contextlib.contextmanager
def watched(folder: Path, name: str, *, quiet: bool = False) -> Iterator[Watcher]:
    """A watcher that shows a live line, and ends the run behind a checkpoint at Ctrl-C or SIGTERM.

    Args:
      folder: of the run.
      name: of the run.
      quiet: show nothing.

    Raises:
      SystemExit: the run was stopped so, with the status of a process that the signal ended.
    """
    console = Console(stderr=True, quiet=quiet or not hosts.is_first(), highlight=False)
    with saving("saving a checkpoint, then stopping (Ctrl-C once more stops at once)") as asked:
        with _Line(console, name) as line, hosts.failing_together():
            try:
                yield Watcher(record=line.record, beat=line.beat, note=line.note, stop=lambda: bool(asked()))
            except Broken:
                line.note(f"what led to it: {run_page.write(folder).resolve()}")
                raise
    if signal := asked():
        print(f"stopped; `cnnjax resume {folder}` goes on from here", file=sys.stderr)
        raise SystemExit(128 + signal)


def finish(folder: Path) -> int:
    """Writes the page of a run, and says how it ended and where the page is; gives the exit status."""
    if not hosts.is_first():
        return 0
    page = run_page.write(folder)
    for split, found in (journal.read_evaluation(folder) or {}).items():
        if isinstance(found, Mapping):
            numbers = ", ".join(f"{name} {percent(value)}" for name, value in shares(found))
            print(f"{split}: {numbers}, loss {found['loss']:.4f} ({found['examples']:,} images)")
    for note in journal.read_info(folder)["data"]["notes"]:
        print(f"note: {note}")
    print(f"report: {page.resolve()}")
    return 0


class _Line:
    """The live line of a terminal: step, loss, accuracy, images per second, input wait, gradient norm, time left.

    Evaluations stand above it; where there is no terminal, every record is a line.
    """

    def __init__(self, console: Console, name: str) -> None:
        self._console, self._name = console, name
        whole = Column(no_wrap=True)
        columns = (
            TextColumn("{task.description}", table_column=Column(no_wrap=True, ratio=1)),
            BarColumn(bar_width=10),
            MofNCompleteColumn(table_column=whole),
            TextColumn("{task.fields[numbers]}", table_column=whole),
            TextColumn("left", table_column=whole),
            TimeRemainingColumn(compact=True, table_column=whole),
        )
        quiet = console.quiet or not console.is_terminal
        self._bar = Progress(*columns, expand=True, console=console, disable=quiet, speed_estimate_period=120)
        self._task = self._bar.add_task(f"{name}: starting", total=None, numbers="")

    def __enter__(self) -> "_Line":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def beat(self, step: int, steps: int, means: Mapping[str, float]) -> None:
        """Moves the line."""
        self._bar.update(
            self._task, description=self._name, completed=step, total=steps, numbers=_numbers(means)
        )

    def record(self, record: Mapping[str, Any]) -> None:
        """Prints a record above the line: an evaluation in a terminal, every record elsewhere."""
        evaluated = "validation_accuracy" in record
        if evaluated or not self._console.is_terminal:
            parts = [f"step {record['step']:,}", f"epoch {record['epoch']:.1f}", _numbers(record)]
            if evaluated:
                parts += [
                    f"validation {record['validation_accuracy']:.2%}",
                    f"loss {record['validation_loss']:.4f}",
                ]
            if (ranked := record.get("validation_mean_average_precision")) is not None:
                parts.append(f"mean average precision {ranked:.2%}")
            self._console.print(", ".join(part for part in parts if part), soft_wrap=True)

    def note(self, text: str) -> None:
        """Prints a sentence above the line."""
        self._console.print(text, soft_wrap=True, markup=False)


_WORDS = {
    "loss": "loss {:.4f}",
    "accuracy": "accuracy {:.1%}",
    "images_per_second": "{:,.0f} images/s",
    "input_wait": "input wait {:.0%}",
    "gradient_norm": "gradient {:.2g}",
}


def _numbers(means: Mapping[str, Any]) -> str:
    return ", ".join(text.format(means[name]) for name, text in _WORDS.items() if name in means)
