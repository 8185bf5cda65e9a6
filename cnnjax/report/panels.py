"""Small multiples of lines with a band over seeds: how every figure over layers or steps is drawn."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cnnjax.frame import Frame
from cnnjax.report import style
from cnnjax.report.layout import Layout, Panel
from cnnjax.report.scale import Range, View, limits_of, set_ticks

__all__ = ["draw", "legend", "legend_height"]

LEFT, RIGHT, BOTTOM = 0.70, 0.08, 0.40
SIDE = 0.30
TITLE = 0.20
LEGEND_ROW = 0.17


@dataclass(frozen=True)
class _Frame:
    """The grid of panels in inches."""

    panels: list[Panel]
    top: float
    side: float
    own_ticks: bool

    @property
    def shape(self) -> tuple[int, int]:
        return 1 + max(p.row for p in self.panels), 1 + max(p.column for p in self.panels)

    @property
    def gaps(self) -> tuple[float, float]:
        titled = any(panel.title and panel.row for panel in self.panels)
        return 0.12, 0.12 + (TITLE if titled else 0) + (0.16 if self.own_ticks else 0)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of a panel."""
        rows, columns = self.shape
        width = (style.WIDTH - LEFT - RIGHT - self.side - (columns - 1) * self.gaps[0]) / columns
        tallest = {1: 2.3, 2: 1.5, 3: 1.15}.get(rows, 0.95)
        return width, min(tallest, max(0.85, 0.8 * width))

    @property
    def height(self) -> float:
        rows, _ = self.shape
        return self.top + rows * self.size[1] + (rows - 1) * self.gaps[1] + BOTTOM

    def place(self, panel: Panel) -> tuple[float, float, float, float]:
        """Left, bottom, width and height as fractions of the figure."""
        (width, height), (across, down) = self.size, self.gaps
        left = LEFT + panel.column * (width + across)
        bottom = self.height - self.top - height - panel.row * (height + down)
        return left / style.WIDTH, bottom / self.height, width / style.WIDTH, height / self.height


def _legend_rows(layout: Layout) -> list[list[int]]:
    """The values of the color axis in lines of text that fit the width; a letter is about 0.06 inches."""
    rows: list[list[int]] = [[]]
    used = 0.0
    for i, text in enumerate(layout.color.labels if layout.color else ()):
        need = 0.45 + 0.062 * len(text)
        if rows[-1] and used + need > style.WIDTH - LEFT - RIGHT:
            rows, used = [*rows, []], 0.0
        rows[-1].append(i)
        used += need
    return rows if layout.color else []


def _heading(layout: Layout) -> tuple[str, str]:
    return (layout.color.title if layout.color else ""), (f"shown: {layout.shown}" if layout.fixed else "")


def legend_height(layout: Layout) -> float:
    """The inches that the legend needs above the panels."""
    return (0.20 if any(_heading(layout)) else 0.06) + LEGEND_ROW * len(_legend_rows(layout))


def legend(figure: Figure, layout: Layout, *, lines: bool = True) -> None:
    """Write the color axis over the panels, and at the right which slice of the grid is shown."""
    height = figure.get_figheight()
    title, fixed = _heading(layout)
    figure.text(LEFT / style.WIDTH, 1 - 0.06 / height, title, weight="bold", va="top")
    figure.text(1 - RIGHT / style.WIDTH, 1 - 0.06 / height, fixed, color=style.GRAY, va="top", ha="right")
    colors = style.colors(layout.color)
    for line, row in enumerate(_legend_rows(layout)):
        handles = [
            Line2D([], [], color=colors[i], marker=style.MARKERS[i], markersize=4, lw=1.4 if lines else 0)
            for i in row
        ]
        labels = [layout.color.labels[i] for i in row] if layout.color else []
        top = 1 - (0.19 + LEGEND_ROW * line) / height
        figure.legend(
            handles,
            labels,
            loc="upper left",
            bbox_to_anchor=(LEFT / style.WIDTH, top),
            ncols=len(row),
            borderpad=0,
            borderaxespad=0,
            handlelength=1.8 if lines else 0.8,
            columnspacing=1.4,
            handletextpad=0.5,
        )


def _zeros(axes: Axes, x: np.ndarray, y: float, color: str) -> None:
    """Triangles where the value is exactly zero."""
    few = x[:: max(1, math.ceil(len(x) / 8))]
    axes.plot(few, np.full(len(few), y), ls="", marker="v", ms=2.6, mew=0, color=color, gid="exact-zero")


def _line(axes: Axes, line: Frame, rank: int, color: str, limits: Range, zero: float) -> None:
    x, median = line["x"].to_numpy(float), line["median"].to_numpy(float)
    low, high = line["low"].to_numpy(float), line["high"].to_numpy(float)
    if line["n"].max() > 1:
        # A band that reaches zero ends at the strip of zeros.
        low, high = np.maximum(low, limits.floor), np.maximum(high, limits.floor)
        axes.fill_between(x, low, high, where=high > limits.floor, color=color, alpha=0.18, lw=0)
    finite = np.isfinite(median)
    every = max(1, math.ceil(len(x) / 6))
    axes.plot(
        x,
        np.where(finite, median, np.nan),
        color=color,
        marker=style.MARKERS[rank],
        markersize=3,
        markeredgewidth=0,
        markevery=(min(rank * every // 5, max(len(x) - 1, 0)) if every > 1 else 0, every),
        zorder=3 + 0.01 * rank,
    )
    if "theory" in line:
        theory = line["theory"].to_numpy(float)
        axes.plot(x, theory, color=style.INK, lw=0.8, ls=(0, (3, 2)), zorder=5, gid="theory")
    if np.isneginf(median).any():
        _zeros(axes, x[np.isneginf(median)], zero, color)
    if finite.any() and "diverged" in line and line["diverged"].any():
        end = (x[finite][-1:], median[finite][-1:])
        axes.plot(*end, marker="x", ms=5, mew=1.2, color=color, zorder=4, gid="diverged")


def _panel(
    axes: Axes, panel: Panel, lines: Mapping[tuple[str, ...], Frame], layout: Layout, limits: Range
) -> None:
    shown = {**layout.fixed, **panel.where}
    colors = style.colors(layout.color)
    for rank, color in enumerate(colors):
        if layout.color:
            shown[layout.color.name] = layout.color.labels[rank]
        line = lines.get(tuple(shown[name] for name in layout.names))
        if line is not None:
            _line(axes, line.sort_values("x"), rank, color, limits, limits.in_strip(rank, len(colors)))
    if panel.title:
        axes.set_title(panel.title, fontsize=7.5)
    if panel.side:
        axes.text(
            1.03, 0.5, panel.side, transform=axes.transAxes, rotation=-90, va="center", ha="left", fontsize=7
        )


def _row_limits(panel: Panel, table: Frame, layout: Layout) -> tuple[float, float]:
    """The range of x of a row of panels: nets of another depth have a row of their own."""
    for name in () if layout.wrap else [axis.name for axis in layout.rows]:
        table = table[table[name] == panel.where[name]]
    last = float(table["x"].max()) if len(table) else 1.0
    first = float(table["x"].min()) if len(table) else 0.0
    pad = 0.03 * max(last - first, 1e-9)
    return first - pad, last + pad


def _lines(table: Frame, layout: Layout) -> dict[tuple[str, ...], Frame]:
    """The rows of each line, by its place on all axes of the grid."""
    if not layout.names:
        return {(): table}
    groups = table.groupby(list(layout.names), observed=True)
    return {tuple(str(part) for part in key): group for key, group in groups}  # pyright: ignore


@style.styled
def draw(table: Frame, layout: Layout, view: View) -> Figure:
    """Draw lines of `median` over `x` with a band from `low` to `high`, one panel per combination of the facet axes.

    `table` has a column for each axis of the grid, and x, median, low, high, n. A value of -inf (the logarithm of
    zero) is a triangle in a strip below the scale; NaN is a gap; where a column `diverged` is true the line ends in a cross.
    A column `theory` is drawn dashed.
    """
    panels = layout.panels()
    spans = [_row_limits(panel, table, layout) for panel in panels]
    side = (
        SIDE + 0.1 * max(panel.side.count("\n") for panel in panels) if any(p.side for p in panels) else 0.0
    )
    titled = TITLE if any(panel.title for panel in panels) else 0.06
    frame = _Frame(panels, legend_height(layout) + titled, side, len(set(spans)) > 1)
    figure = Figure(figsize=(style.WIDTH, frame.height))
    limits = limits_of(table, view)
    lines = _lines(table, layout)
    places = {(panel.row, panel.column) for panel in panels}
    for panel, span in zip(panels, spans, strict=True):
        axes = figure.add_axes(frame.place(panel))
        if view.reference is not None:
            axes.axhline(view.reference, color=style.GRAY, lw=0.8, ls=(0, (4, 3)), zorder=1)
        set_ticks(axes, view, limits)
        _panel(axes, panel, lines, layout, limits)
        axes.set_xlim(*span)
        lowest = (panel.row + 1, panel.column) not in places
        axes.tick_params(labelleft=panel.column == 0, labelbottom=lowest or frame.own_ticks)
    middle = (LEFT + (style.WIDTH - LEFT - RIGHT - side) / 2) / style.WIDTH
    figure.text(middle, 0.07 / frame.height, view.x_label, ha="center", va="bottom", fontsize=7.5)
    center = (BOTTOM + (frame.height - frame.top - BOTTOM) / 2) / frame.height
    figure.text(0.06 / style.WIDTH, center, view.y_label, rotation=90, ha="left", va="center", fontsize=7.5)
    legend(figure, layout)
    return figure
