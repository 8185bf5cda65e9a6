"""What happened in every layer while a network trained: maps of layers by steps, and how much gradient arrives."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cnnjax.frame import Frame
from cnnjax.probes.summary import EXPLODING, VANISHING
from cnnjax.report import captions, style
from cnnjax.report.plates import Plate
from cnnjax.report.scale import Range, View, set_ticks

__all__ = ["gradient_ratios", "layer_maps"]

RIGHT, TOP, BOTTOM, GAP, RATIO = 0.85, 0.10, 0.40, 0.14, 1.1
NAMED, ROWS, COLUMNS = 40, 200, 300
LETTERS = 34
ZERO = "#9a9a9a"


@dataclass(frozen=True)
class _Quantity:
    """A column of the looks into the layers and its words; `logarithmic` is in decades, otherwise a share."""

    name: str
    column: str
    title: str
    label: str
    meaning: str
    logarithmic: bool


QUANTITIES = (
    _Quantity(
        "gradient_by_layer",
        "gradient_log10_second_moment",
        "Gradient by layer and step",
        "mean squared gradient",
        "The mean square of the loss gradient with respect to each layer's pre-activations.",
        True,
    ),
    _Quantity(
        "activation_by_layer",
        "log10_second_moment",
        "Scale of the pre-activations by layer and step",
        "mean square",
        "The mean square of each layer's pre-activations.",
        True,
    ),
    _Quantity(
        "saturated_by_layer",
        "saturated",
        "Saturation by layer and step",
        "saturated units",
        "The share of each layer's units at which the derivative of the activation is below a tenth of its maximum; dead "
        "units count too.",
        False,
    ),
    _Quantity(
        "dead_by_layer",
        "dead",
        "Dead units by layer and step",
        "dead units",
        "The share of each layer's units at which the derivative of the activation is exactly zero.",
        False,
    ),
)


def gradient_ratios(layers: Frame) -> Frame:
    """A row for each look: step, class, and ratio_log10 as `probes.gradient_ratio` has it.

    The last layer is the head, whose gradient comes straight from the loss: it does not count.
    """
    rows = []
    for step, look in layers.groupby("step"):
        moments = look.sort_values("layer")["gradient_log10_second_moment"].to_numpy(float)
        hidden = moments[:-1] if len(moments) > 1 else moments
        ratio = -math.inf if hidden[-1] == -math.inf else float(hidden[0] - hidden[-1])
        rows.append({"step": step, "class": look["class"].iloc[0], "ratio_log10": ratio})
    return pd.DataFrame(rows, columns=["step", "class", "ratio_log10"])


def layer_maps(layers: Frame) -> Iterator[Plate]:
    """A map for each quantity of which something is known; all but the gradient's are folded."""
    ratios = gradient_ratios(layers)
    for quantity in QUANTITIES:
        values = layers[quantity.column].to_numpy(float)
        seen = ~np.isnan(values) if quantity.logarithmic else values > 0
        if not seen.any():
            continue
        first = quantity is QUANTITIES[0]
        yield Plate(
            quantity.name,
            "layers",
            quantity.title,
            _words(layers, quantity, ratios if first else None),
            captions.alternative(quantity.title, None),
            _draw(layers, quantity, ratios if first else None),
            layers[["step", "layer", "path", quantity.column, *(["class"] if first else [])]],
            not first,
        )


def _thinned(values: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the values, evenly spread, both ends among them."""
    return values[np.unique(np.linspace(0, len(values) - 1, most).round().astype(int))]


def _matrix(layers: Frame, column: str) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Values by layer and step, the layers' names, the steps; thinned to what a figure can show."""
    table = layers.pivot(index="layer", columns="step", values=column)
    table = table.loc[_thinned(table.index.to_numpy(), ROWS), _thinned(table.columns.to_numpy(), COLUMNS)]
    names = layers.drop_duplicates("layer").set_index("layer")["path"]
    return table.to_numpy(float), [str(names[i]) for i in table.index], table.columns.to_numpy(float)


def _edges(steps: np.ndarray) -> np.ndarray:
    """Where the columns of a map begin and end: halfway between two looks."""
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    middles = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[2 * steps[0] - middles[0]], middles, [2 * steps[-1] - middles[-1]]])


def _short(name: str) -> str:
    return name if len(name) <= LETTERS else f"…{name[1 - LETTERS :]}"


def _colors(values: np.ndarray, quantity: _Quantity) -> tuple[Normalize, Any]:
    """The scale and its colors; gray for exactly zero on a log scale, white for what is not finite."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if not quantity.logarithmic:
        low = 0.0
    colors = matplotlib.colormaps["viridis" if quantity.logarithmic else "cividis"].with_extremes(
        under=ZERO, bad="white"
    )
    return Normalize(low, max(high, low + (0.1 if quantity.logarithmic else 0.01))), colors


@style.styled
def _draw(layers: Frame, quantity: _Quantity, ratios: Frame | None) -> Figure:
    values, names, steps = _matrix(layers, quantity.column)
    count = int(layers["layer"].max()) + 1
    named = count <= NAMED
    left = 0.20 + 0.056 * max(len(_short(name)) for name in names) if named else 0.70
    left = max(left, 0.70)
    body = float(np.clip(0.14 * len(names), 1.2, 4.5))
    below = RATIO + GAP if ratios is not None else 0.0
    height = TOP + body + below + BOTTOM
    figure = Figure(figsize=(style.WIDTH, height))
    width = 1 - (left + RIGHT) / style.WIDTH
    axes = figure.add_axes((left / style.WIDTH, (BOTTOM + below) / height, width, body / height))
    _map(axes, values, steps, quantity, count)
    if named:
        axes.set_yticks(range(count), [_short(name) for name in names], parse_math=False)
    else:
        axes.set_ylabel("layer, from the input")
    _bar(figure, axes, values, quantity)
    lowest = axes
    if ratios is not None:
        lowest = figure.add_axes((left / style.WIDTH, BOTTOM / height, width, RATIO / height))
        _ratio(lowest, ratios, axes.get_xlim())
        axes.tick_params(labelbottom=False)
    lowest.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    lowest.set_xlabel("training step")
    return figure


def _map(axes: Axes, values: np.ndarray, steps: np.ndarray, quantity: _Quantity, count: int) -> None:
    norm, colors = _colors(values, quantity)
    # Below the scale, which is where its color for zero lies.
    shown = np.where(np.isneginf(values), -1e9, np.where(np.isfinite(values), values, np.nan))
    rows = np.linspace(-0.5, count - 0.5, len(values) + 1)
    mesh = np.ma.masked_invalid(shown)
    axes.pcolormesh(_edges(steps), rows, mesh, norm=norm, cmap=colors, rasterized=True, gid=quantity.name)
    axes.set_ylim(count - 0.5, -0.5)
    axes.grid(False)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.xaxis.set_major_locator(_steps(steps))


def _steps(steps: np.ndarray) -> MaxNLocator:
    return MaxNLocator(nbins=1 if len(steps) == 1 else 7, integer=True)


def _bar(figure: Figure, axes: Axes, values: np.ndarray, quantity: _Quantity) -> None:
    norm, colors = _colors(values, quantity)
    box = axes.get_position()
    place = figure.add_axes((box.x1 + 0.014, box.y0, 0.012, box.height))
    bar = figure.colorbar(ScalarMappable(norm, colors), cax=place)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.set_label(quantity.label, fontsize=7)
    if quantity.logarithmic:
        limits = Range(*(float(x) for x in (norm.vmin, norm.vmin, norm.vmax)))  # pyright: ignore[reportArgumentType]
        set_ticks(bar.ax, View("", "", "decades"), limits)
        bar.ax.set_xticks([])
    else:
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))


def _ratio(axes: Axes, ratios: Frame, span: tuple[float, float]) -> None:
    """The first layer's gradient over the last hidden one's, and the band in which that counts as stable."""
    steps, values = ratios["step"].to_numpy(float), ratios["ratio_log10"].to_numpy(float)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (-1.0, 1.0)
    pad = 0.08 * max(high - low, 2.0)
    low, high = min(low, 0.0) - pad, max(high, 0.0) + pad
    strip = 0.2 * (high - low) if np.isneginf(values).any() else 0.0
    limits = Range(low - strip, low, high)
    axes.set_xlim(*span)
    axes.axhspan(VANISHING, EXPLODING, color="#eef3f8", lw=0, zorder=0, gid="stable")
    axes.axhline(0, color=style.GRAY, lw=0.8, ls=(0, (4, 3)), zorder=1)
    shown = np.where(np.isfinite(values), values, np.nan)
    axes.plot(
        steps, shown, color=style.SINGLE, marker="o" if len(steps) <= 60 else "", ms=2.8, mew=0, gid="ratio"
    )
    zeros = steps[np.isneginf(values)]
    axes.plot(
        zeros, np.full(len(zeros), limits.in_strip(0, 1)), ls="", marker="v", ms=3, mew=0, color=style.SINGLE
    )
    set_ticks(axes, View("", "", "decades"), limits)
    axes.xaxis.set_major_locator(_steps(steps))
    axes.set_ylabel("first layer\nover last hidden")


def _words(layers: Frame, quantity: _Quantity, ratios: Frame | None) -> str:
    values = layers[quantity.column].to_numpy(float)
    count, looks = int(layers["layer"].max()) + 1, layers["step"].nunique()
    parts = [
        quantity.meaning,
        "A column is a look into all layers at once; the first layer, next to the input, is on top.",
        "The colors are on a log scale." if quantity.logarithmic else "",
        "Gray: exactly zero (underflow)." if quantity.logarithmic and np.isneginf(values).any() else "",
        "White: not finite." if (np.isnan(values) | np.isposinf(values)).any() else "",
        f"{ROWS} of {count:,} layers are drawn." if count > ROWS else "",
        f"{COLUMNS} of {looks:,} looks are drawn." if looks > COLUMNS else "",
    ]
    if ratios is not None:
        parts.append(
            "Below: the first layer's over that of the last hidden layer; below the shaded band (a hundredth of the size) "
            "it vanishes, above it explodes."
        )
        parts.append("Triangles: exactly zero." if np.isneginf(ratios["ratio_log10"]).any() else "")
    return " ".join(part for part in parts if part)
