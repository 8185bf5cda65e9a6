"""Which part kills the gradient: what `probes.attribute_gradient` found, as a chart."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cnnjax.frame import Frame
from cnnjax.probes.attribution import ALL
from cnnjax.probes.parts import KINDS
from cnnjax.report import style
from cnnjax.report.scale import number

__all__ = ["draw_attribution"]

WORDS = {
    "activation": "activations",
    "kernel": "kernels",
    "norm": "norms",
    "statistics": "norms' statistics",
    "skip": "skips",
}
COLUMNS = ("kind", "layer", "gradient_log10_second_moment", "change")
# Layer names beside the chart; more would not be legible.
NAMES = 36


def _check(table: Frame) -> None:
    if absent := [name for name in COLUMNS if name not in table]:
        raise ValueError(
            f"expected the table of probes.attribute_gradient, with {', '.join(COLUMNS)}; it lacks {', '.join(absent)}"
        )
    if not (table["kind"] != "none").any():
        raise ValueError("the table holds the untouched network alone: no part of these kinds was found")


def _reach(changes: np.ndarray) -> float:
    """How far the scale goes on either side of 0: infinite changes are drawn at its end."""
    finite = changes[np.isfinite(changes)]
    return 1.15 * max(float(np.abs(finite).max(initial=0.0)), 0.5)


def _text(change: float) -> str:
    if math.isinf(change):
        return "∞" if change > 0 else "−∞"
    return "0" if abs(change) < 0.005 else f"{change:+.2g}".replace("-", "−")


def _bars(axes: Axes, rows: Frame, colors: Mapping[str, str], height: float) -> None:
    """A bar for each kind of part, all of them replaced at once."""
    reach = _reach(rows["change"].to_numpy(float))
    for y, row in enumerate(rows.to_dict("records")):
        change = float(np.clip(row["change"], -reach, reach))
        axes.barh(y, change, height=height, color=colors[row["kind"]], gid=f"all-{row['kind']}")
        away = 3 if change >= 0 else -3
        axes.annotate(
            _text(row["change"]),
            (change, y),
            (away, 0),
            textcoords="offset points",
            va="center",
            ha="left" if away > 0 else "right",
            fontsize=6.5,
        )
    names = [f"{WORDS[row['kind']]}:\n{row['replacement']}" for row in rows.to_dict("records")]
    axes.set_yticks(range(len(rows)), names)
    axes.set(ylim=(len(rows) - 0.4, -0.6), title="all of a kind at once")
    _set_scale(axes, 1.2 * reach)


def _set_scale(axes: Axes, reach: float) -> None:
    axes.axvline(0, color=style.GRAY, lw=0.8, zorder=1)
    axes.set_xlim(-reach, reach)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:+.3g}".replace("-", "−") if value else "0")
    )


def _dots(axes: Axes, rows: Frame, colors: Mapping[str, str]) -> None:
    """A dot for each layer's part of each kind, the first layer on top."""
    layers = list(dict.fromkeys(rows["layer"]))
    place = {layer: y for y, layer in enumerate(layers)}
    reach = _reach(rows["change"].to_numpy(float))
    for rank, (kind, own) in enumerate(rows.groupby("kind", sort=False)):
        axes.plot(
            own["change"].clip(-reach, reach),
            own["layer"].map(place),
            ls="",
            marker=style.MARKERS[rank],
            ms=4 if len(layers) <= NAMES else 2.5,
            mew=0.4,
            mec="white",
            color=colors[str(kind)],
            label=WORDS[str(kind)],
            gid=f"layers-{kind}",
        )
    every = math.ceil(len(layers) / NAMES)
    axes.set_yticks(range(0, len(layers), every), layers[::every])
    axes.set(ylim=(len(layers) - 0.4, -0.6), title="one layer at a time")
    _set_scale(axes, 1.05 * reach)


def _start(table: Frame) -> str:
    """What the gradient is where nothing is replaced."""
    untouched = table.loc[table["kind"] == "none", "gradient_log10_second_moment"]
    if untouched.empty:
        return ""
    value = float(untouched.iloc[0])
    return f"; untouched it is {number(value) if math.isfinite(value) else 'zero'}"


@style.styled
def draw_attribution(table: Frame) -> Figure:
    """The chart of a table that `probes.attribute_gradient` returned.

    Left: the change of the first layer's gradient when the backward passes of all parts of a kind are replaced; right, where
    the table has it: of a single layer's. In orders of magnitude of its second moment; to the right: the part shrinks the
    gradient. What is infinite lies at the end of the scale.

    Raises:
      ValueError: another table, or one without any part.
    """
    _check(table)
    parts = table[table["kind"] != "none"]
    whole, single = parts[parts["layer"] == ALL], parts[parts["layer"] != ALL]
    colors: dict[str, str] = dict(zip(KINDS, style.CATEGORIES, strict=False))
    tall = 0.6 + max(0.34 * len(whole), 0.115 * min(single["layer"].nunique(), NAMES), 0.9)
    figure = Figure(figsize=(style.WIDTH, tall), layout="constrained")
    axes = figure.subplots(1, 2 if len(single) else 1, squeeze=False)[0]
    _bars(axes[0], whole, colors, min(0.62, 0.24 * len(whole) / tall))
    if len(single):
        _dots(axes[1], single, colors)
    figure.supxlabel(
        f"orders of magnitude by which the first layer's mean squared gradient grows{_start(table)}",
        fontsize=7.5,
    )
    return figure
