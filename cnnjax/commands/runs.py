"""`cnnjax runs`: the training runs below a folder, with their state and what they reached."""

import dataclasses
import datetime
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from rich.table import Table

# A table of a wider terminal has room for the columns; an output to a file has so many letters.
WIDTH = 160
STYLES = {
    "running": "green",
    "failed": "red",
    "killed": "red",
    "damaged": "red",
    "stopped": "yellow",
}
COLUMNS = (
    *("folder", "name", "model", "data", "state", "step", "steps", "epoch", "best", "best_step"),
    *("test", "seconds", "updated", "error"),
)


@dataclasses.dataclass(frozen=True)
class Runs:
    """List training runs: state, steps, best validation accuracy, test accuracy, time. They may be at work.

    Where images show several classes, mean average precision takes the place of accuracy.
    """

    folder: Annotated[Positional[Path], arg(metavar="DIR", help_behavior_hint="(default: runs)")] = Path(
        "runs"
    )
    """The folder below which runs are looked for."""
    sort: Literal["time", "best"] = "time"
    """What comes first: the run that was written last, or the one with the best validation accuracy."""
    json: Annotated[bool, arg(help_behavior_hint="")] = False
    """Print a list in JSON."""

    def __call__(self, command: str) -> int:
        """Prints the table, and below it what is wrong with runs that failed or cannot be read."""
        found = sorted((described(folder) for folder in run_folders(self.folder)), key=ORDERS[self.sort])
        if self.json:
            print(json.dumps(found, indent=1))
            return 0
        if not found:
            print(f"{self.folder} holds no training run: `cnnjax train` makes one there")
            return 0
        from cnnjax.commands.cells import console

        console(width=WIDTH).print(table(found, datetime.datetime.now(datetime.UTC)))
        for run in found:
            if run["error"]:
                print(f"{run['folder']}: {' '.join(run['error'].split())}")
        return 0


def run_folders(top: Path) -> Iterator[Path]:
    """The folders with a run, or what is left of one, at or below a folder; those of studies are left out.

    Raises:
      ValueError: there is no such folder.
    """
    from cnnjax.training.journal import RUN

    if not top.is_dir():
        raise ValueError(
            f"there is no folder {top}: name one that holds runs, as `cnnjax train` makes in runs/"
        )
    for folder, below, files in os.walk(top):
        below.sort()
        if RUN in files or "study.json" in files:
            below.clear()
        if RUN in files:
            yield Path(folder)


def described(folder: Path) -> dict[str, Any]:
    """What the table says of a run, as JSON; of one that cannot be read the state is "damaged" and `error` says why."""
    empty = dict.fromkeys(COLUMNS) | {"folder": str(folder)}
    try:
        return empty | _read(folder)
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        # Whatever a file of another shape may cause.
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        return empty | {"state": "damaged", "error": reason}


def _read(folder: Path) -> dict[str, Any]:
    from cnnjax.training import journal

    info, status = journal.read_info(folder), journal.read_status(folder)
    test = (journal.read_evaluation(folder) or {}).get("test") or {}
    step, each = status.step if status else 0, _whole(info.get("steps_per_epoch"))
    return {
        "name": str(info["name"]),
        "model": str(info["recipe"]["model"]),
        "data": str(info["data"]["name"]),
        "state": journal.state(folder, status),
        "step": step,
        "steps": _whole(info.get("steps")),
        "epoch": step / each if each else None,
        "best": _finite(status.best) if status else None,
        "best_step": status.best_step if status else None,
        "test": _finite(test.get(journal.HEADLINE[info["data"]["label_kind"]])),
        "seconds": _finite(status.seconds) if status else None,
        "updated": status.updated if status else info.get("started"),
        "error": status.error if status else None,
    }


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _when(run: Mapping[str, Any]) -> datetime.datetime:
    """When a run was last written; long ago where that is not known."""
    try:
        found = datetime.datetime.fromisoformat(run["updated"])
    except (TypeError, ValueError):
        return datetime.datetime.fromtimestamp(0, datetime.UTC)
    return found if found.tzinfo else found.astimezone()


# Sorted upward.
ORDERS = {
    "time": lambda run: -_when(run).timestamp(),
    "best": lambda run: math.inf if run["best"] is None else -run["best"],
}


def table(found: Sequence[Mapping[str, Any]], now: datetime.datetime) -> "Table":
    """What `described` says of runs, as a table of the terminal."""
    from rich.table import Table
    from rich.text import Text

    title = f"{len(found)} run{'s' if len(found) > 1 else ''}"
    drawn = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    # A terminal of 80 letters has room for so much; there names are broken, never a number.
    for name, width in (("folder", 7), ("model", 5), ("data", 6)):
        drawn.add_column(name, overflow="fold", min_width=width)
    drawn.add_column("state", no_wrap=True)
    for name in ("step", "epoch", "best\nval. %", "test\n%", "time"):
        drawn.add_column(name, justify="right", no_wrap=True)
    drawn.add_column("updated", justify="right", overflow="fold", min_width=5)
    for run in found:
        cells = (run["folder"], run["model"] or "–", run["data"] or "–", run["state"], *_numbers(run, now))
        # Text, because brackets would be read as markup.
        drawn.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in cells))
    return drawn


def _numbers(run: Mapping[str, Any], now: datetime.datetime) -> tuple[str, ...]:
    step = "–" if run["step"] is None else f"{run['step']:,}"
    return (
        step if run["steps"] is None else f"{step}/{run['steps']:,}",
        "–" if run["epoch"] is None else f"{run['epoch']:.1f}",
        _percent(run["best"]),
        _percent(run["test"]),
        "–" if run["seconds"] is None else _duration(run["seconds"]),
        "–" if run["updated"] is None else _ago((now - _when(run)).total_seconds()),
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _duration(seconds: float) -> str:
    """As 1:02:03."""
    return str(datetime.timedelta(seconds=round(seconds)))


def _ago(seconds: float) -> str:
    """As "5 min ago"."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "just now"
