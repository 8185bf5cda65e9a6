"""Training accuracy over sigma_w2 and depth, and how deep theory says one can go (Schoenholz et al. 2017, figure 5)."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullLocator

from cnnjax.frame import Frame, Info
from cnnjax.probes import critical_line, mean_field
from cnnjax.probes.quadrature import response
from cnnjax.report import style, tables
from cnnjax.report.ensemble import Ensemble, gaussian_grid
from cnnjax.report.tiles import Paint, accuracy_text, colorbar, tile, untrainable

__all__ = ["by_depth", "draw_by_depth", "trainable_depth"]

LENGTHS = 6
"""Networks train up to about this many depth scales xi_c (Schoenholz et al. 2017, section 5)."""

# Values that differ by more than this factor are laid out on a log scale.
FACTOR = 10
POINTS = 72
# Inches: the body of the map, and the smallest tile that has room for a number.
BODY, LEFT, BOTTOM, TOP = (5.7, 2.9), 0.62, 0.45, 0.34
ROOM = (0.33, 0.16)


def by_depth(info: Info, runs: Frame) -> Frame:
    """A row per cell: sigma_w2, depth, what training reached, and `bound`, the depth 6 xi_c up to which theory trains it.

    `verdict` is that of the accuracy map. `bound` is NaN where the second moment has no fixed point.

    Raises:
      ValueError: the study is no grid of depth and sigma_w2 (`gaussian_grid`), trains nothing, or theory has no fixed point
        at any of its sigma_w2, or does not know its activation.
    """
    grid = gaussian_grid(info)
    if not info["steps"]:
        raise ValueError(f"{info['name']!r} trains nothing (steps=0): there is no training accuracy to map")
    response(grid.activation)
    table = tables.cells(info, runs)
    sigma_w2 = table[grid.axis].astype(str).map(grid.sigma_w2)
    bounds = dict(zip(grid.sigma_w2.values(), trainable_depth(grid, grid.sigma_w2.values()), strict=True))
    if np.isnan([*bounds.values()]).all():
        raise ValueError(
            f"{grid.activation} has no fixed point at sigma_b2 = {grid.sigma_b2:g} and any sigma_w2 of "
            f"{info['name']!r}: use cnnjax.probes.mean_field to see where it has one"
        )
    columns = ("learning_rate", "seeds", "diverged", "out_of_memory", "train_accuracy", "train_accuracy_sd")
    return pd.DataFrame(
        {
            "cell": table["cell"],
            "sigma_w2": sigma_w2,
            "depth": table["depth"].astype(str).astype(int),
            **{name: table[name] for name in columns},
            "verdict": table["verdict"],
            "bound": sigma_w2.map(bounds),
        }
    )


def trainable_depth(grid: Ensemble, sigma_w2: Iterable[float]) -> np.ndarray:
    """6 xi_c at each sigma_w2: infinite on the critical line, NaN where the second moment has no fixed point."""
    return np.array([_trainable_depth(grid, float(value)) for value in sigma_w2])


def _trainable_depth(grid: Ensemble, sigma_w2: float) -> float:
    try:
        return LENGTHS * mean_field(grid.activation, sigma_w2=sigma_w2, sigma_b2=grid.sigma_b2).xi_c
    except ValueError:
        return math.nan


def _edges(values: Sequence[float], *, logarithmic: bool) -> np.ndarray:
    """The borders between neighboring values, halfway; the outer ones as far out as their inner neighbors."""
    x = np.log(values) if logarithmic else np.asarray(values, float)
    middle = (x[1:] + x[:-1]) / 2
    ends = np.array([2 * x[0] - middle[0], *middle, 2 * x[-1] - middle[-1]])
    return np.exp(ends) if logarithmic else np.maximum(ends, x[0] / 4)


class _Side:
    """One side of the map: its values, the borders of their tiles, and the middles."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = sorted(set(values))
        self.logarithmic = self.values[-1] / self.values[0] > FACTOR
        self.edges = _edges(self.values, logarithmic=self.logarithmic)
        low, high = self.edges[:-1], self.edges[1:]
        self.middles = np.sqrt(low * high) if self.logarithmic else (low + high) / 2

    @property
    def narrowest(self) -> float:
        """The share of the side that its narrowest tile takes."""
        places = np.log(self.edges) if self.logarithmic else self.edges
        return float(np.diff(places).min() / (places[-1] - places[0]))

    def tile(self, value: float) -> tuple[float, float, float]:
        """Start, length and middle of the tile of a value."""
        i = self.values.index(value)
        return self.edges[i], self.edges[i + 1] - self.edges[i], self.middles[i]

    def ticks(self, room: int) -> list[float]:
        """At most `room` of the values, evenly picked, the first among them."""
        return self.values[:: math.ceil(len(self.values) / room)]


def _set_sides(axes: Axes, across: _Side, up: _Side) -> None:
    scales = ["log" if side.logarithmic else "linear" for side in (across, up)]
    axes.set(xscale=scales[0], yscale=scales[1], xlim=across.edges[[0, -1]], ylim=up.edges[[0, -1]])
    axes.set(xlabel=r"$\sigma_w^2$, fan-in times the variance of the kernels", ylabel="depth, layers")
    for axis, side, room in ((axes.xaxis, across, 12), (axes.yaxis, up, 14)):
        axis.set_minor_locator(NullLocator())
        axis.set_ticks(side.ticks(room), [tables.label(float(value)) for value in side.ticks(room)])


def _line(axes: Axes, grid: Ensemble, across: _Side, up: _Side) -> Line2D:
    """6 xi_c over sigma_w2, out of the map where it is infinite."""
    x = np.unique([*across.values, *_abscissas(grid, *across.edges[[0, -1]])])
    bound = np.minimum(trainable_depth(grid, x), 100 * up.edges[-1])
    halo = [withStroke(linewidth=3.2, foreground="white")]
    options = {"color": style.INK, "lw": 1.5, "ls": (0, (4, 1.6)), "path_effects": halo}
    return axes.plot(x, bound, gid="bound", zorder=4, **options)[0]


def _abscissas(grid: Ensemble, low: float, high: float) -> np.ndarray:
    """Values of sigma_w2 from `low` to `high`, closer together on both sides of the critical one."""
    even = np.linspace(low, high, POINTS)
    try:
        critical = critical_line(grid.activation, grid.sigma_b2)
    except ValueError:
        return even
    near = critical * np.geomspace(1e-4, 0.1, 12)
    peak = np.array([critical, *(critical - near), *(critical + near)])
    return np.concatenate([even, peak[(peak > low) & (peak < high)]])


def _tiles(axes: Axes, table: Frame, across: _Side, up: _Side) -> Paint:
    """A tile per cell, with its number where all have room for it."""
    roomy = across.narrowest * BODY[0] > ROOM[0] and up.narrowest * BODY[1] > ROOM[1]
    cells = [cell for _, cell in table.iterrows()]
    shown = [accuracy_text(cell, split="train", spread=False) if roomy else "" for cell in cells]
    texts = {int(cell["cell"]): text for cell, text in zip(cells, shown, strict=True)}
    norm = Normalize(0.0, 1.0)
    paint = Paint("train_accuracy", texts, norm, "cividis", "training accuracy", untrainable(table))
    for cell in cells:
        (x, width, middle), (y, tall, center) = across.tile(cell["sigma_w2"]), up.tile(cell["depth"])
        tile(axes, (x, y, width, tall), (middle, center), cell, paint)
    return paint


def _heading(figure: Figure, grid: Ensemble, line: Line2D, left: float, right: float) -> None:
    """The activation and the biases at the left, the line at the right."""
    height = figure.get_figheight()
    words = rf"{grid.activation}, $\sigma_b^2$ = {grid.sigma_b2:.4g}"
    figure.text(left, 1 - 0.06 / height, words, weight="bold", va="top")
    figure.legend(
        [line],
        [rf"{LENGTHS} $\xi_c$, mean-field theory"],
        loc="upper right",
        bbox_to_anchor=(right, 1 - 0.04 / height),
        borderpad=0,
        borderaxespad=0,
        handlelength=2.6,
    )


@style.styled
def draw_by_depth(info: Info, table: Frame) -> Figure:
    """The figure of a table that `by_depth` returned: a tile per cell, and 6 xi_c as a dashed line.

    Untrainable cells are hatched, as in the accuracy map.
    """
    grid = gaussian_grid(info)
    across, up = _Side(table["sigma_w2"]), _Side(table["depth"])
    height = TOP + BODY[1] + BOTTOM
    left, bottom, wide, tall = LEFT / style.WIDTH, BOTTOM / height, BODY[0] / style.WIDTH, BODY[1] / height
    figure = Figure(figsize=(style.WIDTH, height))
    axes = figure.add_axes((left, bottom, wide, tall))
    axes.grid(False)
    axes.spines[:].set_visible(False)
    _set_sides(axes, across, up)
    paint = _tiles(axes, table, across, up)
    _heading(figure, grid, _line(axes, grid, across, up), left, left + wide)
    colorbar(figure, paint, left + wide + 0.12 / style.WIDTH, bottom, tall)
    return figure
