"""Rules that papers need: a metric, or a comparison of one between two sets of cells, lies in a range.

Which numbers have to lie there is said by `by`: those of "every seed"; the whole "interval" of the mean over seeds; or the
"mean" alone. By interval there are three outcomes: inside (agree), outside (disagree), and across an end of the range, which
is not tested: more seeds would be needed, and the note says how many.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np

from cnnjax.frame import Column
from cnnjax.functional.names import lookup
from cnnjax.study import statistics
from cnnjax.study.claims.metrics import Metric
from cnnjax.study.claims.results import Cells, Results, check_cells
from cnnjax.study.claims.verdict import Measurement, NotTested
from cnnjax.study.statistics import Estimate

if TYPE_CHECKING:
    from cnnjax.study.config import Study

By: TypeAlias = Literal["every seed", "interval", "mean"]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; these ends are left out where it is open."""

    low: float = -math.inf
    high: float = math.inf
    open: bool = False

    def __post_init__(self) -> None:
        if not self.low <= self.high or (self.low == -math.inf and self.high == math.inf):
            raise ValueError(
                f"a rule takes a lower or an upper end, or both in order; got {self.low} to {self.high}"
            )

    def __str__(self) -> str:
        """As "≥ 0.9", or "between -1 and 1"."""
        less, more = ("<", ">") if self.open else ("≤", "≥")
        if self.low == -math.inf:
            return f"{less} {self.high:.4g}"
        return (
            f"{more} {self.low:.4g}"
            if self.high == math.inf
            else f"between {self.low:.4g} and {self.high:.4g}"
        )

    def holds(self, value: float) -> bool:
        """Whether a number lies inside; NaN does not."""
        if self.open:
            return self.low < value < self.high
        return self.low <= value <= self.high

    def decides(self, low: float, high: float) -> bool | None:
        """Whether an interval lies inside (True), outside (False), or across an end (None)."""
        if self.holds(low) and self.holds(high):
            return True
        below, above = (
            (high <= self.low, low >= self.high) if self.open else (high < self.low, low > self.high)
        )
        return False if below or above else None

    def nearest_end(self, value: float) -> float:
        """The end that is nearer to a number."""
        return min((self.low, self.high), key=lambda end: abs(end - value))


class Quantity(Protocol):
    """What a rule measures: numbers with their seeds as index, several a seed where it has several cells."""

    @property
    def places(self) -> tuple[Cells, ...]:
        """The cells that it is about."""
        ...

    def check(self, study: "Study") -> None:
        """Raises ValueError where the study has no such cells, or its tables will not hold the metric."""
        ...

    def __call__(self, results: Results) -> Column:
        """The numbers."""
        ...


@dataclass(frozen=True)
class Level:
    """A metric of some cells."""

    metric: Metric
    cells: Cells
    diverged: float | None

    def __str__(self) -> str:
        """The metric's title."""
        return self.metric.title

    @property
    def places(self) -> tuple[Cells, ...]:
        """The cells that it is about."""
        return (self.cells,)

    def check(self, study: "Study") -> None:
        """Raises ValueError where the study has no such cells, or its tables will not hold the metric."""
        check_cells(study, self.cells)
        self.metric.check(study)

    def __call__(self, results: Results) -> Column:
        """A number for each seed and cell."""
        return results.numbers(self.metric, self.cells, diverged=self.diverged)


@dataclass(frozen=True)
class Paired:
    """A metric of some cells against others', seed by seed; of several cells the mean."""

    first: Level
    second: Level
    how: Literal["difference", "ratio"]

    def __str__(self) -> str:
        """As "difference of test_accuracy"."""
        return f"{self.how} of {self.first}"

    @property
    def places(self) -> tuple[Cells, ...]:
        """The cells that it is about."""
        return self.first.places + self.second.places

    def check(self, study: "Study") -> None:
        """Raises ValueError where the study has no such cells, or its tables will not hold the metric."""
        self.first.check(study)
        self.second.check(study)

    def __call__(self, results: Results) -> Column:
        """A number for each seed."""
        first, second = (_by_seed(level(results)) for level in (self.first, self.second))
        paired = first - second if self.how == "difference" else first / second
        if paired.isna().any():
            raise NotTested(f"the {self.how} is not a number for seed {paired.index[paired.isna()][0]}")
        return paired


@dataclass(frozen=True)
class Rule:
    """A quantity lies in a range, by what the head of this module says."""

    quantity: Quantity
    range: Range
    by: By
    confidence: float = 0.95

    def __post_init__(self) -> None:
        lookup(dict.fromkeys(("every seed", "interval", "mean")), self.by, "way to decide (by)")

    @property
    def criterion(self) -> str:
        """What has to hold, as "train_accuracy ≥ 0.9 in every run"."""
        deciders = {
            "every seed": "in every run",
            "interval": f"({100 * self.confidence:.4g} % interval)",
            "mean": "(mean)",
        }
        return f"{self.quantity} {self.range} {deciders[self.by]}"

    @property
    def places(self) -> tuple[Cells, ...]:
        """The cells that it is about."""
        return self.quantity.places

    def check(self, study: "Study") -> None:
        """Raises ValueError where the study has no such cells, or its tables will not hold the metric."""
        self.quantity.check(study)

    def __call__(self, results: Results) -> Measurement:
        """The mean over seeds, its interval, and whether it is where it should be.

        Raises:
          NotTested: the tables do not tell.
        """
        numbers = self.quantity(results)
        by_seed = _by_seed(numbers).to_numpy()
        if self.by == "every seed":
            return self._every(numbers.to_numpy(), _estimate(by_seed, self.confidence))
        if not np.isfinite(by_seed).all():
            raise NotTested("infinite for some seeds, which have no mean: decide by='every seed'")
        found = statistics.mean(by_seed, confidence=self.confidence)
        if self.by == "mean":
            return Measurement(found, self.range.holds(found.value))
        if found.low is None or found.high is None:
            raise NotTested(f"too few seeds: {found}")
        agrees = self.range.decides(found.low, found.high)
        return Measurement(found, agrees, "" if agrees is not None else self._undecided(found, by_seed))

    def _every(self, numbers: np.ndarray, found: Estimate) -> Measurement:
        inside = [self.range.holds(number) for number in numbers]
        lowest, highest = f"lowest {numbers.min():.4g}", f"highest {numbers.max():.4g}"
        ends = [
            lowest if self.range.low > -math.inf else "",
            highest if self.range.high < math.inf else "",
        ]
        return Measurement(found, all(inside), ", ".join(end for end in ends if end))

    def _undecided(self, found: Estimate, by_seed: np.ndarray) -> str:
        end = self.range.nearest_end(found.value)
        start = f"undecided: the interval reaches across {end:g}"
        try:
            needed = statistics.seeds_needed(found.value - end, deviation=float(by_seed.std(ddof=1)))
        except ValueError:
            return start
        return f"{start}; about {needed} seeds would tell if mean and spread stay"


@dataclass(frozen=True)
class Ordering:
    """A metric falls from each set of cells to the next: see `ordering`."""

    steps: tuple[Paired, ...]
    confidence: float

    @property
    def criterion(self) -> str:
        """What has to hold."""
        return f"every {self.steps[0]} > 0 ({100 * self.confidence:.4g} % intervals, taken together)"

    @property
    def places(self) -> tuple[Cells, ...]:
        """The cells that it is about."""
        return tuple(cells for step in self.steps for cells in step.places)

    def check(self, study: "Study") -> None:
        """Raises ValueError where the study has no such cells, or its tables will not hold the metric."""
        for step in self.steps:
            step.check(study)

    def __call__(self, results: Results) -> Measurement:
        """The smallest of the differences, and whether all are above 0.

        Raises:
          NotTested: the tables do not tell.
        """
        # Bonferroni: all intervals hold together with the confidence that was asked for.
        each = 1 - (1 - self.confidence) / len(self.steps)
        above = Range(0.0, open=True)
        found = [Rule(step, above, "interval", each)(results) for step in self.steps]
        number, least = min(enumerate(found), key=lambda item: item[1].estimate.value)
        answers = {step.agrees for step in found}
        agrees = False if False in answers else None if None in answers else True
        note = f"smallest step, from the {_nth(number + 1)} to the {_nth(number + 2)}"
        return Measurement(least.estimate, agrees, f"undecided: {note}" if agrees is None else note)


def _by_seed(numbers: Column) -> Column:
    """The mean over the cells of each seed."""
    return numbers.groupby(level=0).mean()


def _estimate(by_seed: np.ndarray, confidence: float) -> Estimate:
    """The mean over seeds, or the median where some are infinite."""
    which = statistics.mean if np.isfinite(by_seed).all() else statistics.median
    return which(by_seed, confidence=confidence)


def _nth(number: int) -> str:
    return {1: "1st", 2: "2nd", 3: "3rd"}.get(number, f"{number}th")
