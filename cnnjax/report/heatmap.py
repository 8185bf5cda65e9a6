"""The whole grid at once: a number per cell, with what could not be trained marked."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby, product

from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from cnnjax.frame import Frame, Info
from cnnjax.report import style, tables
from cnnjax.report.tables import Axis
from cnnjax.report.tiles import Paint, accuracy_text, colorbar, tile, untrainable

__all__ = ["accuracy_map", "gradient_map", "roomy", "split"]

WIDEST = 12
# Decades on either side of no change at which the color of the gradient map ends.
DECADES = 12


def split(grid: tuple[Axis, ...]) -> tuple[list[Axis], list[Axis]]:
    """The axes down the side and across the top, such that both sides have about the same length."""
    ordered = sorted(grid, key=lambda axis: -len(axis.labels))
    down, across = ordered[:1], []
    for axis in ordered[1:]:
        wide = math.prod(len(a.labels) for a in across)
        tall = math.prod(len(a.labels) for a in down)
        fits = wide * len(axis.labels) <= WIDEST
        side = across if fits and wide * len(axis.labels) <= max(tall * 2, WIDEST // 2) else down
        side.append(axis)
    return down, across


def _text(key: tuple[str, ...], axes: list[Axis]) -> str:
    return ", ".join(axis.text(value) for axis, value in zip(axes, key, strict=True))


def _inner(keys: list[tuple[str, ...]], across: list[Axis]) -> list[str]:
    """The labels of the innermost axis; numbers stand alone, because its title stands beside them."""
    return [(key[-1] if across[-1].numeric else across[-1].text(key[-1])) if key else "" for key in keys]


def _head(axes: Axes, keys: list[tuple[str, ...]], across: list[Axis], *, tilt: bool, room: float) -> None:
    """Labels over the columns: the innermost axis at each one, the outer axes over their group."""
    axes.set_xticks(
        range(len(keys)),
        _inner(keys, across),
        rotation=35 if tilt else 0,
        ha="left" if tilt else "center",
    )
    axes.tick_params(top=False, bottom=False, left=False, labeltop=True, labelbottom=False, pad=2)
    if across and across[-1].numeric:
        axes.annotate(
            across[-1].title,
            (0, 1),
            (-4, 4),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
        )
    for text, group in groupby(enumerate(keys), key=lambda item: _text(item[1][:-1], across[:-1])):
        columns = [i for i, _ in group]
        if text:
            axes.annotate(
                text,
                ((columns[0] + columns[-1]) / 2, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 72 * room + 4),
                textcoords="offset points",
                ha="center",
                weight="bold",
            )
            if columns[0]:
                axes.axvline(columns[0] - 0.5, color="white", lw=4)


def _side(axes: Axes, keys: list[tuple[str, ...]], down: list[Axis]) -> None:
    axes.set_yticks(range(len(keys)), [_text(key, down) for key in keys])
    for i in range(1, len(keys)):
        if len(down) > 1 and keys[i][:-1] != keys[i - 1][:-1]:
            axes.axhline(i - 0.5, color="white", lw=4)


def _letters(texts: Iterable[str]) -> int:
    return max((len(text) for text in texts), default=0)


@dataclass(frozen=True)
class _Sheet:
    """The map in inches: the rows and columns, and the room for their labels."""

    down: list[Axis]
    across: list[Axis]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        return list(product(*(axis.labels for axis in self.down)))

    @property
    def columns(self) -> list[tuple[str, ...]]:
        return list(product(*(axis.labels for axis in self.across)))

    @property
    def left(self) -> float:
        return 0.15 + 0.058 * _letters(_text(key, self.down) for key in self.rows)

    @property
    def width(self) -> float:
        return min(style.WIDTH - self.left - 0.8, 1.5 * len(self.columns))

    @property
    def tilt(self) -> bool:
        """Whether the labels of the columns are too long to stand side by side."""
        return 0.062 * self._inner > self.width / len(self.columns)

    @property
    def _inner(self) -> int:
        return _letters(_inner(self.columns, self.across))

    @property
    def room(self) -> float:
        """The height of the column labels."""
        return 0.12 + (0.058 * self._inner * math.sin(math.radians(35)) if self.tilt else 0.06)

    @property
    def top(self) -> float:
        return 0.08 + self.room + (0.22 if len(self.across) > 1 else 0.0)

    @property
    def body(self) -> float:
        return 0.26 * len(self.rows)

    @property
    def height(self) -> float:
        return self.top + self.body + 0.12


def _tiles(axes: Axes, sheet: _Sheet, table: Frame, paint: Paint) -> None:
    names = [axis.name for axis in (*sheet.down, *sheet.across)]
    places = {
        (*row, *column): (x, y) for y, row in enumerate(sheet.rows) for x, column in enumerate(sheet.columns)
    }
    for _, cell in table.iterrows():
        x, y = places[tuple(cell[name] for name in names)]
        tile(axes, (x - 0.5, y - 0.5, 1, 1), (x, y), cell, paint)


@style.styled
def _draw(grid: tuple[Axis, ...], table: Frame, paint: Paint) -> Figure:
    sheet = _Sheet(*split(grid))
    figure = Figure(figsize=(style.WIDTH, sheet.height))
    bottom, height = 0.12 / sheet.height, sheet.body / sheet.height
    axes = figure.add_axes((sheet.left / style.WIDTH, bottom, sheet.width / style.WIDTH, height))
    axes.set(xlim=(-0.5, len(sheet.columns) - 0.5), ylim=(len(sheet.rows) - 0.5, -0.5))
    axes.grid(False)
    axes.spines[:].set_visible(False)
    _tiles(axes, sheet, table, paint)
    _head(axes, sheet.columns, sheet.across, tilt=sheet.tilt, room=sheet.room)
    _side(axes, sheet.rows, sheet.down)
    colorbar(figure, paint, (sheet.left + sheet.width + 0.12) / style.WIDTH, bottom, height)
    return figure


def roomy(info: Info) -> bool:
    """Whether a cell of the map is wide enough for the spread beside the mean."""
    sheet = _Sheet(*split(tables.axes(info)))
    return sheet.width / len(sheet.columns) > 0.6


def accuracy_map(info: Info, runs: Frame) -> Figure:
    """Mean test accuracy of every cell at its selected learning rate, in percent; untrainable cells are hatched."""
    table = tables.cells(info, runs)
    texts = {int(cell["cell"]): accuracy_text(cell, spread=roomy(info)) for _, cell in table.iterrows()}
    norm = Normalize(0.0, 1.0)
    paint = Paint("test_accuracy", texts, norm, "cividis", "test accuracy", untrainable(table))
    return _draw(tables.axes(info), table, paint)


def gradient_map(info: Info, runs: Frame) -> Figure:
    """log10 of the first layer's mean squared gradient over the last hidden layer's at initialization, for every cell."""
    table = tables.cells(info, runs)
    texts = {int(cell["cell"]): tables.decades(cell["gradient_ratio_log10"]) for _, cell in table.iterrows()}
    norm = Normalize(-DECADES, DECADES, clip=True)
    label = "orders of magnitude"
    paint = Paint("gradient_ratio_log10", texts, norm, "RdBu", label, frozenset())
    return _draw(tables.axes(info), table, paint)
