"""A number per cell: how a tile of a map is painted, labeled, and marked where nothing was learned."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cnnjax.frame import Column, Frame
from cnnjax.report import style

__all__ = ["Paint", "accuracy_text", "colorbar", "tile", "untrainable"]


@dataclass(frozen=True)
class Paint:
    """How a cell is painted: the value that colors it, its text, its colors, and whether it is marked."""

    column: str
    texts: Mapping[int, str]
    norm: Normalize
    cmap: str
    label: str
    marked: frozenset[int]


def untrainable(table: Frame) -> frozenset[int]:
    """The numbers of the cells whose verdict that is; `table` is what `tables.cells` returns."""
    return frozenset(int(number) for number in table.loc[table["verdict"] == "untrainable", "cell"])


def accuracy_text(cell: Column, *, split: str = "test", spread: bool) -> str:
    """A cell's mean accuracy in percent, or why there is none; `spread` adds the standard deviation over seeds."""
    mean, deviation = 100 * cell[f"{split}_accuracy"], 100 * cell[f"{split}_accuracy_sd"]
    if not math.isnan(mean):
        text = f"{mean:.1f}" + (f" ± {deviation:.1f}" if spread and not math.isnan(deviation) else "")
        return text + ("†" if cell["diverged"] else "")
    if cell["verdict"] == "untrainable":
        return "diverged" if spread else "div."
    return "memory" if cell["out_of_memory"] else "open"


def tile(
    axes: Axes,
    box: tuple[float, float, float, float],
    middle: tuple[float, float],
    cell: Column,
    paint: Paint,
) -> None:
    """Paint a cell; `box` is left, bottom, width and height, `middle` the place of its text, in data coordinates."""
    value, number = cell[paint.column], int(cell["cell"])
    (x, y, width, height), empty = box, math.isnan(value)
    color = (0.9, 0.9, 0.9, 1.0) if empty else matplotlib.colormaps[paint.cmap](paint.norm(value))
    ink = style.contrast(color)
    ground = Rectangle((x, y), width, height, facecolor=color, edgecolor="white", lw=1, gid=f"cell-{number}")
    axes.add_patch(ground)
    if number in paint.marked:
        hatch = Rectangle((x, y), width, height, fill=False, hatch="////", edgecolor=ink, lw=0, alpha=0.7)
        hatch.set_gid(f"untrainable-{number}")
        axes.add_patch(hatch)
    if text := paint.texts[number]:
        # Numbers stay legible on a hatch and under a line.
        plate = {"facecolor": color, "edgecolor": "none", "pad": 1.2}
        axes.text(*middle, text, ha="center", va="center", color=ink, fontsize=6.5, bbox=plate, zorder=5)


def colorbar(figure: Figure, paint: Paint, left: float, bottom: float, height: float) -> None:
    """The scale of the colors, at a place in fractions of the figure."""
    place = figure.add_axes((left, bottom, 0.012, height))
    bar = figure.colorbar(ScalarMappable(paint.norm, paint.cmap), cax=place)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.set_label(paint.label, fontsize=7)
    bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=paint.norm.vmax != 1.0))
    if paint.norm.vmax == 1.0:
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
