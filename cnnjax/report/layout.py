"""Which axis of a grid becomes color, column and row, and which part of a large grid is shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from cnnjax.frame import Column, Frame, Info
from cnnjax.report import tables
from cnnjax.report.tables import Axis

__all__ = ["Layout", "Panel", "choose", "slices"]

MAX_COLORS = 10
MAX_COLUMNS = 6
MAX_ROWS = 6
WRAP = 5
# Zero has no logarithm: for ordering axes and slices by their effect, ratios beyond this count as this.
DECADES = 50.0


@dataclass(frozen=True)
class Panel:
    """One small multiple: its place, what it shows, and the titles above and beside it."""

    row: int
    column: int
    where: Mapping[str, str]
    title: str
    side: str


@dataclass(frozen=True)
class Layout:
    """The part that each axis plays. `fixed` holds the axes of which a single value is shown."""

    color: Axis | None
    columns: Axis | None
    rows: tuple[Axis, ...]
    fixed: Mapping[str, str]
    wrap: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all axes of the grid."""
        drawn = (self.color, self.columns, *self.rows)
        return (*(axis.name for axis in drawn if axis), *self.fixed)

    @property
    def shown(self) -> str:
        """The slice of the grid in words, as `depth 30`; empty when all of it is drawn."""
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in self.fixed.items())

    def select(self, table: Frame) -> Frame:
        """The rows of a labeled table that the figure shows."""
        for name, value in self.fixed.items():
            table = table[table[name] == value]
        return table

    def panels(self) -> list[Panel]:
        """The small multiples in reading order."""
        columns = self.columns.labels if self.columns else ("",)
        sides = list(product(*(axis.labels for axis in self.rows)))
        found = []
        for (j, value), (i, side) in product(enumerate(columns), enumerate(sides)):
            where = {axis.name: text for axis, text in zip(self.rows, side, strict=True)}
            if self.columns:
                where[self.columns.name] = value
            place = divmod(j, WRAP) if self.wrap else (i, j)
            title = self.columns.text(value) if self.columns and (self.wrap or i == 0) else ""
            text = "\n".join(axis.text(v) for axis, v in zip(self.rows, side, strict=True))
            last = j == len(columns) - 1
            found.append(Panel(*place, where, title, text if last and not self.wrap else ""))
        return sorted(found, key=lambda panel: (panel.row, panel.column))


def _decades(runs: Frame) -> Column:
    return runs["gradient_ratio_log10"].clip(-DECADES, DECADES)


def _effect(axis: Axis, runs: Frame) -> float:
    """The variance of the gradient ratio between the values of an axis."""
    means = _decades(runs).groupby(runs[axis.name], observed=True).mean()
    return float(np.nan_to_num(means.var(ddof=0)))


def _color(grid: tuple[Axis, ...], runs: Frame) -> Axis | None:
    """A long ordered axis, or else the longest categorical one; the larger effect decides a tie."""
    fitting = [axis for axis in grid if len(axis.labels) <= MAX_COLORS]
    long = [axis for axis in fitting if axis.numeric and len(axis.labels) > 4]
    kinds = (long, [axis for axis in fitting if not axis.numeric], fitting)
    candidates = next((kind for kind in kinds if kind), [])
    return max(candidates, key=lambda axis: (len(axis.labels), _effect(axis, runs)), default=None)


def _telling(axis: Axis, runs: Frame) -> str:
    """The value of an axis at which the gradient ratios of the other axes spread most; the last of equals."""
    spread = {
        value: float(np.nan_to_num(_decades(runs[runs[axis.name] == value]).std())) for value in axis.labels
    }
    return max(reversed(axis.labels), key=lambda value: round(spread[value], 1))


def choose(info: Info, runs: Frame, *, max_panels: int = 24) -> Layout:
    """The layout of a grid: color for one axis, columns for the next, rows for what still fits, one value of the rest.

    `max_panels` bounds the small multiples, except that a column axis of more than six values is wrapped and shown whole.
    """
    runs = tables.labeled(info, runs)
    grid = tables.axes(info)
    color = _color(grid, runs)
    rest = sorted(
        (axis for axis in grid if axis is not color), key=lambda axis: (axis.numeric, -len(axis.labels))
    )
    wide = [axis for axis in rest if len(axis.labels) > MAX_COLUMNS]
    columns = (wide or rest or [None])[0]
    rows, count = [], 1
    width = len(columns.labels) if columns else 1
    for axis in (axis for axis in rest if axis is not columns and not wide):
        size = count * len(axis.labels)
        if size <= MAX_ROWS and size * width <= max_panels:
            rows, count = [*rows, axis], size
    fixed = {axis.name: _telling(axis, runs) for axis in rest if axis is not columns and axis not in rows}
    return Layout(color, columns, tuple(rows), fixed, bool(wide))


def slices(info: Info, layout: Layout) -> list[Layout]:
    """The layout for every value of the fixed axes: its own first, then the others in the order of the grid."""
    grid = {axis.name: axis.labels for axis in tables.axes(info)}
    combinations = product(*(grid[name] for name in layout.fixed))
    others = [dict(zip(layout.fixed, values, strict=True)) for values in combinations]
    ordered = [dict(layout.fixed), *(other for other in others if other != layout.fixed)]
    return [Layout(layout.color, layout.columns, layout.rows, fixed, layout.wrap) for fixed in ordered]
