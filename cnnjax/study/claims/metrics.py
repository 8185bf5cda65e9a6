"""Metrics: a number of each run, from the study's tables."""

import abc
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cnnjax.frame import Column, Frame
from cnnjax.functional.names import lookup

if TYPE_CHECKING:
    from cnnjax.study.claims.results import Results
    from cnnjax.study.config import Study

SPLITS = ("train", "validation", "test")
TRAINED_COLUMNS = tuple(f"{split}_{what}" for split in SPLITS for what in ("loss", "accuracy"))
START_COLUMNS = ("gradient_ratio_log10", "gradient_slope", "parameters")
CURVE_COLUMNS = ("loss", "accuracy", "validation_loss", "validation_accuracy")


class Metric(abc.ABC):
    """A number of each run. `metric(results, runs)` returns one for each of these rows of the table of runs."""

    trained: bool = True
    """Whether the number means nothing for a run that diverged."""

    @property
    @abc.abstractmethod
    def title(self) -> str:
        """What the number is called."""

    @abc.abstractmethod
    def __call__(self, results: "Results", runs: Frame) -> Any:
        """The numbers, `(runs,)`; NaN where there is none."""

    def check(self, study: "Study") -> None:
        """Raises ValueError where the tables of the study will not hold what the metric needs."""
        if study.steps == 0:
            raise ValueError(f"{self.title} takes training, and the study has none (steps=0)")


def metric_of(metric: Metric | str) -> Metric:
    """A metric, or that of a column of the table of runs.

    Raises:
      ValueError: no such column, with the nearest one.
      TypeError: neither a metric nor a name.
    """
    if isinstance(metric, str):
        return RunColumn(metric)
    if not isinstance(metric, Metric):
        raise TypeError(f"a metric is the name of a column, or one as Rate(...); got {metric!r}")
    return metric


def check_column(name: str, columns: Iterable[str], table: str) -> None:
    """Raises ValueError, with the nearest one, unless a table has that column of numbers."""
    lookup(dict.fromkeys(columns), name, f"column of numbers in the table of {table}")


@dataclass(frozen=True)
class RunColumn(Metric):
    """A column of the table of runs: losses, accuracies (fractions), or a number of the network at initialization, one of
    the study's own measures among them.
    """

    name: str

    @property
    def title(self) -> str:
        """The column's name."""
        return self.name

    @property
    def trained(self) -> bool:
        """Losses and accuracies are of training."""
        return self.name in TRAINED_COLUMNS

    def check(self, study: "Study") -> None:
        """Raises ValueError for a column that there will not be, or that training fills where nothing is trained."""
        check_column(self.name, (*TRAINED_COLUMNS, *START_COLUMNS, *study.measures), "runs")
        if self.trained:
            super().check(study)

    def __call__(self, results: "Results", runs: Frame) -> Column:
        """The column.

        Raises:
          ValueError: there is none of that name with numbers.
        """
        check_column(self.name, runs.select_dtypes("number").columns, "runs")
        return runs[self.name].astype("float64")


@dataclass(frozen=True)
class ErrorRate(Metric):
    """The share of wrong answers on a split at the end, in percent, as papers print it."""

    split: Literal["train", "validation", "test"] = "test"

    def __post_init__(self) -> None:
        lookup(dict.fromkeys(SPLITS), self.split, "split")

    @property
    def title(self) -> str:
        """The split's error rate."""
        return f"{self.split} error rate"

    def __call__(self, results: "Results", runs: Frame) -> Column:
        """100 (1 - accuracy)."""
        return 100 * (1 - runs[f"{self.split}_accuracy"].astype("float64"))


@dataclass(frozen=True)
class StepsTo(Metric):
    """Training steps until a curve reaches a level from below, as far as the recorded steps tell; infinity for never.

    Attributes:
      column: of the table of curves, as "validation_accuracy".
      level: to reach.
    """

    # A run that diverged before that level never reached it.
    trained = False

    column: str
    level: float

    def __post_init__(self) -> None:
        check_column(self.column, CURVE_COLUMNS, "curves")

    @property
    def title(self) -> str:
        """The level and the column."""
        return f"steps to {self.column} {self.level:g}"

    def __call__(self, results: "Results", runs: Frame) -> Column:
        """The first recorded step at that level; NaN without a curve."""
        if results.curves.empty:
            return np.full(len(runs), math.nan)
        known = set(results.curves["run"])
        reached = results.curves[results.curves[self.column] >= self.level].groupby("run")["step"].min()
        return runs["run"].map(lambda run: reached.get(run, math.inf) if run in known else math.nan)


@dataclass(frozen=True)
class Reduced(Metric):
    """A number made of a vector that one of the study's own measures gives, as the largest singular value.

    Attributes:
      measure: its name in the study.
      number: a function of the vector, `(entries,)`.
      called: what that is called.
    """

    trained = False

    measure: str
    number: Callable[[np.ndarray], float]
    called: str

    @property
    def title(self) -> str:
        """What it is called."""
        return self.called

    def check(self, study: "Study") -> None:
        """Raises ValueError where the study has no such measure."""
        lookup(study.measures, self.measure, "measure of the study")

    def __call__(self, results: "Results", runs: Frame) -> list[float]:
        """The number of each run; NaN where it was not measured.

        Raises:
          ValueError: the study has no such measure.
        """
        measures = results.measures
        lookup(dict.fromkeys(measures.get("measure", ())), self.measure, "measure of the study")
        own = measures[measures["measure"] == self.measure].sort_values("index")
        vectors = {run: rows["value"].to_numpy() for run, rows in own.groupby("run")}
        return [float(self.number(vectors[run])) if run in vectors else math.nan for run in runs["run"]]
