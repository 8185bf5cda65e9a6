"""What a study shows while it runs: runs, steps, time left; plain lines where there is no terminal."""

from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column

from cnnjax.study.plan import Program, Run


class Progress:
    """A context manager around a study's run.

    Args:
      runs: how many there are.
      steps: of each run.
      quiet: show nothing.
      stop: asked at every start of a program and every advance; True raises KeyboardInterrupt.
    """

    def __init__(
        self, runs: int, steps: int, *, quiet: bool = False, stop: Callable[[], bool] = lambda: False
    ) -> None:
        self._stop = stop
        self._console = Console(stderr=True, quiet=quiet)
        # In a narrow terminal the name of the program gives way, never a number.
        whole = Column(no_wrap=True)
        columns = (
            TextColumn("{task.description}", table_column=Column(no_wrap=True, ratio=1)),
            BarColumn(bar_width=12),
            MofNCompleteColumn(table_column=whole),
            TextColumn("steps, {task.fields[done]}/{task.fields[runs]} runs", table_column=whole),
            TextColumn("left", table_column=whole),
            TimeRemainingColumn(compact=True, table_column=whole),
        )
        self._bar = Bar(
            *columns, expand=True, console=self._console, disable=quiet, speed_estimate_period=120
        )
        self._task = self._bar.add_task("starting", total=runs * steps, done=0, runs=runs)
        self._steps = steps

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def program(self, program: Program, runs: Sequence[Run]) -> None:
        """Says which program starts.

        Raises:
          KeyboardInterrupt: it is to stop.
        """
        self._check()
        self._bar.update(self._task, description=program.title[:60])
        if not self._console.is_terminal:
            task = self._bar.tasks[0]
            done = f"{task.fields['done']}/{task.fields['runs']} runs done"
            self._console.print(
                f"{done}; now {len(runs)} of {program.title}", highlight=False, soft_wrap=True
            )

    @property
    def steps(self) -> float:
        """Steps so far, summed over the runs."""
        return self._bar.tasks[0].completed

    def back_to(self, steps: float) -> None:
        """Takes steps back that have to be computed again."""
        self._bar.update(self._task, completed=steps)

    def advance(self, steps: int) -> None:
        """Counts steps, summed over the runs.

        Raises:
          KeyboardInterrupt: it is to stop.
        """
        self._bar.advance(self._task, steps)
        self._check()

    def finished(self, runs: int) -> None:
        """Counts runs that have ended, and their steps."""
        done = self._bar.tasks[0].fields["done"] + runs
        completed = max(self._bar.tasks[0].completed, done * self._steps)
        self._bar.update(self._task, done=done, completed=completed)

    def _check(self) -> None:
        if self._stop():
            raise KeyboardInterrupt
