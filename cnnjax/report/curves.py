"""Loss and accuracy while the networks train."""

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from cnnjax.frame import Frame, Info
from cnnjax.report import panels, tables
from cnnjax.report.layout import Layout, choose
from cnnjax.report.scale import View

__all__ = ["CURVES", "Curve", "by_step", "draw_by_step"]

POINTS = 8000


@dataclass(frozen=True)
class Curve:
    """A column of the table of curves and its words."""

    column: str
    title: str
    label: str
    meaning: str
    logarithmic: bool


CURVES = {
    "loss": Curve(
        "loss",
        "Training loss",
        "training loss",
        "The mean loss over the training batches since the previous point (log scale). Dashed: the loss of guessing.",
        True,
    ),
    "accuracy": Curve(
        "validation_accuracy",
        "Validation accuracy",
        "validation accuracy",
        "The accuracy on the validation split. Dashed: the accuracy of guessing.",
        False,
    ),
}


def _thinned(curves: Frame, points: int) -> Frame:
    """At most about `points` steps of each run, evenly spread, the last among them."""
    index = curves.groupby("run").cumcount()
    size = curves.groupby("run")["step"].transform("size")
    stride = np.ceil(size / points).astype(int)
    return curves[(size - 1 - index) % stride == 0]


def by_step(
    info: Info,
    runs: Frame,
    curves: Frame,
    *,
    column: str,
    layout: Layout | None = None,
) -> Frame:
    """Median, minimum and maximum over seeds of a column of `curves`, by cell and step, at the selected learning rates.

    Losses that are not finite count as missing; `diverged` says where a line stops for that reason.
    """
    layout = layout or choose(info, runs)
    shown = layout.select(tables.chosen(tables.labeled(info, runs)))
    names = tables.keys(info)
    rows = curves.loc[curves["run"].isin(shown["run"]), ["run", "step", column]].sort_values(["run", "step"])
    lines = max(1, shown.groupby(names, observed=True).ngroups)
    rows = _thinned(rows, int(np.clip(POINTS / (3 * lines), 12, 160))).merge(shown[["run", *names]], on="run")
    rows = rows.assign(value=rows[column].where(np.isfinite(rows[column])))
    stats = rows.groupby([*names, "step"], observed=True)["value"].agg(["median", "min", "max", "count"])
    table = stats.rename(columns={"min": "low", "max": "high", "count": "n"}).reset_index()
    table = table.assign(x=table["step"].astype(float))
    return table.merge(_diverged(shown, table, names), on=names, how="left")


def _diverged(shown: Frame, table: Frame, names: list[str]) -> Frame:
    """Whether a cell's line stops before the others because its runs diverged."""
    lost = (shown["status"] == "diverged").groupby([shown[name] for name in names], observed=True).any()
    known = table[table["median"].notna()]
    ends = known.groupby(names, observed=True)["step"].max().reindex(lost.index, fill_value=-1)
    return (lost & (ends < table["step"].max())).rename("diverged").reset_index()


def draw_by_step(info: Info, table: Frame, layout: Layout, curve: Curve) -> Figure:
    """The figure of a table that `by_step` returned."""
    if not curve.logarithmic:
        view = View("training step", curve.label, "share", 0.0, 1.0, tables.chance(info))
        return panels.draw(table, layout, view)
    guess = math.log10(math.log(info["num_classes"]))
    values = table[["median", "low", "high"]].to_numpy(float)
    with np.errstate(divide="ignore"):
        table = table.assign(**dict(zip(("median", "low", "high"), np.log10(values).T, strict=True)))
    # A loss on its way to divergence would flatten all others: the panel ends ten times above guessing.
    return panels.draw(table, layout, View("training step", curve.label, "decades", None, guess + 1, guess))
