"""What happened in every layer: profiles over depth with a band over seeds."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cnnjax.frame import Frame, Info
from cnnjax.report import panels, tables
from cnnjax.report.layout import Layout, choose
from cnnjax.report.scale import RELATIVE, View

__all__ = ["QUANTITIES", "Quantity", "by_layer", "draw_by_layer", "relative"]

# Depths that differ by more than this factor share an axis of relative depth.
FACTOR = 5
# Points of a figure that keep its SVG file near 200 kB.
POINTS = 8000


@dataclass(frozen=True)
class Quantity:
    """A column of the table of layers: its words, how it is drawn, and whether mean-field theory predicts it."""

    column: str
    title: str
    label: str
    meaning: str
    scale: str
    predicted: bool = False
    low: float | None = None
    high: float | None = None
    reference: float | None = None


QUANTITIES = {
    "gradient": Quantity(
        "gradient_log10_second_moment",
        "Gradient by layer",
        "mean squared gradient\nwrt pre-activation",
        "The mean square of the loss gradient with respect to each layer's pre-activations (log scale); layer 0 is "
        "the first, next to the input.",
        "decades",
        predicted=True,
    ),
    "activation": Quantity(
        "output_log10_second_moment",
        "Activation scale by layer",
        "mean squared activation",
        "The mean square of each layer's output (log scale).",
        "decades",
    ),
    "saturated": Quantity(
        "saturated",
        "Saturation by layer",
        "saturated units",
        "The share of each layer's units at which the derivative of the activation is below a tenth of its maximum; dead "
        "units count too.",
        "share",
        low=0.0,
    ),
    "dead": Quantity(
        "dead",
        "Dead units by layer",
        "dead units",
        "The share of each layer's units at which the derivative of the activation is exactly zero.",
        "share",
        low=0.0,
    ),
    "correlation": Quantity(
        "correlation",
        "Correlation between two inputs by layer",
        "correlation of pre-activations",
        "The mean cosine between the pre-activations of two different inputs: at 1 the layer no longer tells them apart.",
        "plain",
        high=1.0,
    ),
}


def at_step(layers: Frame, step: str) -> Frame:
    """The rows of each run's first or last recorded step."""
    if step not in ("first", "last"):
        raise ValueError(f"step: expected 'first' or 'last', got {step!r}")
    wanted = layers.groupby("run")["step"].transform("min" if step == "first" else "max")
    return layers[layers["step"] == wanted]


def _thinned(layers: Frame, points: int) -> Frame:
    """At most `points` layers of each run, evenly spread, the first and the last among them."""
    last = layers["last"].clip(lower=1)
    bucket = layers["layer"] * (points - 1) // last
    before = (layers["layer"] - 1) * (points - 1) // last
    return layers[(bucket != before) | (layers["layer"] == 0)]


def _spread(layout: Layout, shown: Frame) -> float:
    """How much longer the deepest net is than the shallowest among panels that share a horizontal axis."""
    facets = [] if layout.wrap else [axis.name for axis in layout.rows]
    groups = [group for _, group in shown.groupby(facets, observed=True)] if facets else [shown]
    return max((group["last"].max() + 1) / (group["last"].min() + 1) for group in groups)


def by_layer(
    info: Info,
    runs: Frame,
    layers: Frame,
    *,
    column: str,
    step: str = "first",
    layout: Layout | None = None,
) -> Frame:
    """Median, minimum and maximum over seeds of a column of `layers`, by cell and layer.

    `step` is `first` (initialization) or `last` (the end of training; runs that are not done are left out, and so are those
    that diverged, whose numbers mean nothing: ReLU's derivative makes a gradient of zero out of NaN). Deep nets are
    thinned to what a figure can show. `x` is the layer, or layer / last layer when the depths of a row of panels differ more
    than fivefold.
    """
    layout = layout or choose(info, runs)
    shown = layout.select(tables.chosen(tables.labeled(info, runs)))
    if step == "last":
        shown = shown[shown["status"] == "finished"]
    names = tables.keys(info)
    rows = at_step(layers.loc[layers["run"].isin(shown["run"]), ["run", "step", "layer", column]], step)
    rows = rows.assign(last=rows.groupby("run")["layer"].transform("max"))
    if not len(rows):
        return pd.DataFrame(columns=[*names, "layer", "x", "median", "low", "high", "n"])
    lines = shown.groupby(names, observed=True).ngroups
    rows = _thinned(rows, int(np.clip(POINTS / (3 * lines), 12, 160))).merge(shown[["run", *names]], on="run")
    far = _spread(layout, rows) > FACTOR
    rows = rows.assign(x=rows["layer"] / rows["last"].clip(lower=1) if far else rows["layer"].astype(float))
    stats = rows.groupby([*names, "layer", "x"], observed=True)[column].agg(["median", "min", "max", "count"])
    return stats.rename(columns={"min": "low", "max": "high", "count": "n"}).reset_index()


def with_theory(info: Info, runs: Frame, table: Frame, theory: Frame, *, column: str) -> Frame:
    """A table that `by_layer` returned, with the columns `theory` and `reason`.

    The prediction is put on the median at the last layer of each of its segments. Where theory does not reach it is NaN, and
    the reason says why.
    """
    names = tables.keys(info)
    cells = tables.labeled(info, runs).drop_duplicates("cell").set_index("cell")[names]
    lines = theory[["cell", "layer", "segment", "reason", column]].rename(columns={column: "theory"})
    lines = lines.join(cells, on="cell").drop(columns="cell" if "cell" not in names else [])
    merged = table.merge(lines, on=[*names, "layer"], how="left")
    # Without rows the columns have no type.
    merged = merged.astype(dict.fromkeys(("theory", "segment", "median"), "float64"))
    connected = merged["segment"].ge(0) & np.isfinite(merged["theory"]) & np.isfinite(merged["median"])
    merged["offset"] = (merged["median"] - merged["theory"]).where(connected)
    offsets = merged.groupby([*names, "segment"], observed=True)["offset"].transform("last")
    merged["theory"] = (merged["theory"] + offsets).where(merged["segment"].ge(0))
    return merged.drop(columns=["segment", "offset"])


def relative(table: Frame) -> bool:
    """Whether `x` is a relative depth instead of a layer."""
    return bool(len(table)) and not table["x"].eq(table["layer"]).all()


def draw_by_layer(table: Frame, layout: Layout, quantity: Quantity) -> Figure:
    """The figure of a table that `by_layer` returned."""
    label = RELATIVE if relative(table) else "layer, from the input to the output"
    view = View(label, quantity.label, quantity.scale, quantity.low, quantity.high, quantity.reference)
    return panels.draw(table, layout, view)
