"""One initializer against another at two depths: the training curves of He et al. 2015 (figures 2 and 3)."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from cnnjax.frame import Frame, Info
from cnnjax.report import panels, tables
from cnnjax.report.curves import by_step
from cnnjax.report.layout import Layout
from cnnjax.report.scale import View
from cnnjax.report.tables import Axis

__all__ = ["by_initializer", "draw_by_initializer", "pair"]


def pair(info: Info, depths: Sequence[int] | None = None) -> Layout:
    """A panel for each of `depths`, by default the two deepest, with a line for each initializer.

    Raises:
      ValueError: the study is not over initializer and depth and nothing else, or lacks a depth.
    """
    grid = {axis.name: axis for axis in tables.axes(info, at_least=1)}
    others = [axis.name for axis in tables.axes(info) if axis.name not in ("initializer", "depth")]
    if not {"initializer", "depth"} <= set(grid) or others:
        raise ValueError(
            f"expected a study over the axes initializer and depth alone; {info['name']!r} has "
            f"{', '.join(axis.name for axis in tables.axes(info)) or 'none'}"
        )
    known = sorted(grid["depth"].labels, key=int)
    chosen = tuple(str(depth) for depth in depths) if depths else tuple(known[-2:])
    if absent := [depth for depth in chosen if depth not in known]:
        raise ValueError(f"{info['name']!r} has no depth {', '.join(absent)}; it has {', '.join(known)}")
    fixed = {axis.name: axis.labels[0] for axis in grid.values() if axis.name not in ("initializer", "depth")}
    return Layout(grid["initializer"], Axis("depth", chosen, True), (), fixed)


def by_initializer(info: Info, runs: Frame, curves: Frame, layout: Layout) -> Frame:
    """Training error by cell and step: median, minimum and maximum over seeds at the selected learning rates."""
    table = by_step(info, runs, curves, column="accuracy", layout=layout)
    errors = {"median": "median", "low": "high", "high": "low"}
    table = table.assign(**{name: 1 - table[source] for name, source in errors.items()})
    return table[table["depth"].astype(str).isin(layout.columns.labels if layout.columns else ())]


def draw_by_initializer(info: Info, table: Frame, layout: Layout) -> Figure:
    """The figure of a table that `by_initializer` returned; dashed: the error of guessing."""
    view = View("training step", "training error", "share", 0.0, 1.0, 1 - tables.chance(info))
    return panels.draw(table, layout, view)
