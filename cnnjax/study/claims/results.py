"""The tables of a study as rules see them: the selected runs of some cells, and a number of each."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

from cnnjax.frame import Column, Frame, Info
from cnnjax.functional.names import lookup
from cnnjax.study.claims.metrics import Metric, metric_of
from cnnjax.study.claims.verdict import NotTested
from cnnjax.study.labels import axis_labels, label

if TYPE_CHECKING:
    from cnnjax.study.config import Study

Cells: TypeAlias = Mapping[str, Any] | Callable[[Mapping[str, Any]], bool]
"""Which cells of a grid: values of axes (a list: any of them; {} takes all cells), or a function of a cell's labels."""
ALL_CELLS: Cells = MappingProxyType({})


@dataclass(frozen=True)
class Results:
    """A study's tables.

    Attributes:
      info: what study.json says.
      runs, curves, layers, measures, theory: as `Store.table` gives them; without rows where there is none.
    """

    info: Info
    runs: Frame
    curves: Frame = dataclasses.field(default_factory=pd.DataFrame)
    layers: Frame = dataclasses.field(default_factory=pd.DataFrame)
    measures: Frame = dataclasses.field(default_factory=pd.DataFrame)
    theory: Frame = dataclasses.field(default_factory=pd.DataFrame)

    def selected(self, cells: Cells = ALL_CELLS) -> Frame:
        """The runs of some cells at their selected learning rate, a row for each cell and seed.

        Raises:
          ValueError: an axis or a value that the study does not have (with the nearest one), or no cell is matched.
          NotTested: a run of these cells is missing, unfinished, or did not fit into memory.
        """
        axes = self.info["axes"]
        matching(axes, cells)
        first = self.runs.drop_duplicates("cell")
        rows = first[[*axes]].astype(object).to_dict("records")
        numbers = [cell for cell, row in zip(first["cell"], rows, strict=True) if _matches(row, cells)]
        own = self.runs[self.runs["cell"].isin(numbers)]
        unfinished = int((own["status"] == "unfinished").sum())
        if own.empty or unfinished:
            raise NotTested(
                f"unfinished: {unfinished} of {len(own)} runs" if unfinished else "there are no runs"
            )
        chosen = own[own["selected"].astype(bool)]
        expected = len(numbers) * len(self.info["seeds"])
        if len(chosen.drop_duplicates(["cell", "seed"])) != expected or len(chosen) != expected:
            raise NotTested(f"unfinished: {len(chosen)} runs are selected where {expected} should be")
        if memory := int((chosen["status"] == "out of memory").sum()):
            raise NotTested(f"out of memory: {memory} of {len(chosen)} runs")
        return chosen

    def numbers(
        self,
        metric: Metric | str,
        cells: Cells = ALL_CELLS,
        *,
        diverged: float | None = None,
    ) -> Column:
        """A metric of the selected runs of some cells, with the seeds as index: several rows a seed for several cells.

        Args:
          metric: a column of the table of runs, or a metric.
          cells: which.
          diverged: what the metric of a diverged run counts as, if it is one of training; None: it cannot be tested then.

        Raises:
          ValueError: as for `selected`, or an unknown column or step.
          NotTested: as for `selected`; a run diverged; or a number is NaN.
        """
        metric = metric_of(metric)
        chosen = self.selected(cells)
        values = pd.Series(metric(self, chosen), chosen.index, dtype="float64")
        if metric.trained:
            values = _with_diverged(values, chosen, diverged)
        if broken := chosen["run"][values.isna()].tolist():
            raise NotTested(
                f"{metric.title} is not a number in {len(broken)} of {len(chosen)} runs (run {broken[0]} first)"
            )
        return values.set_axis(chosen["seed"].to_numpy())


def check_cells(study: "Study", cells: Cells) -> None:
    """Raises ValueError unless some cell of the study's grid is matched."""
    matching(axis_labels(study.grid), cells)


def lost_cells(before: "Study", after: "Study", cells: Cells) -> list[dict[str, Any]]:
    """The matched cells of a study's grid that another version of it lacks; a further axis takes none away."""
    old = axis_labels(before.grid)
    kept = [{axis: labels.get(axis) for axis in old} for labels in matching(axis_labels(after.grid), cells)]
    return [labels for labels in matching(old, cells) if labels not in kept]


def matching(axes: Mapping[str, Sequence[Any]], cells: Cells) -> list[dict[str, Any]]:
    """The labels of the cells of a grid that are matched.

    Raises:
      ValueError: an axis or a value that does not exist, with the nearest one, or no cell is matched.
      TypeError: `cells` is neither a mapping nor a function.
    """
    if isinstance(cells, Mapping):
        for axis, wanted in cells.items():
            values = lookup(axes, axis, "axis of the grid")
            for value in _listed(wanted):
                if label(value) not in values:
                    lookup({str(v): v for v in values}, str(label(value)), f"value of the axis {axis}")
    elif not callable(cells):
        raise TypeError(f"cells must be values of axes, as {{'depth': 30}}, or a function; got {cells!r}")
    product = (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
    found = [labels for labels in product if _matches(labels, cells)]
    if not found:
        raise ValueError(f"no cell of the grid is matched by {getattr(cells, '__name__', cells)}")
    return found


def _matches(labels: Mapping[str, Any], cells: Cells) -> bool:
    if isinstance(cells, Mapping):
        return all(labels[axis] in [label(v) for v in _listed(wanted)] for axis, wanted in cells.items())
    try:
        return bool(cells(labels))
    except KeyError as error:
        lookup(labels, error.args[0], "axis of the grid")
        raise


def _listed(wanted: Any) -> Iterable[Any]:
    return wanted if isinstance(wanted, list | tuple | set | frozenset | range) else [wanted]


def _with_diverged(values: Column, chosen: Frame, diverged: float | None) -> Column:
    lost = chosen["status"] == "diverged"
    if lost.any() and diverged is None:
        run = chosen["run"][lost].iloc[0]
        raise NotTested(
            f"diverged: {int(lost.sum())} of {len(chosen)} runs (run {run} first), and the claim does not say what they "
            "count as"
        )
    return values.mask(lost, diverged) if lost.any() else values
