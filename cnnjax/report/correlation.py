"""How alike two inputs are from layer to layer: the correlation map and its fixed point (Poole et al. 2016, figure 2)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cnnjax.frame import Frame, Info
from cnnjax.probes import mean_field, trajectory
from cnnjax.probes.quadrature import Elementwise, response
from cnnjax.report import style, tables
from cnnjax.report.ensemble import gaussian_grid
from cnnjax.report.layers import at_step
from cnnjax.report.tables import Axis

__all__ = ["correlation_maps", "draw_correlation_maps", "fixed_points", "measured_pairs"]

POINTS = 81
COLUMNS = ("q_star", "c_star", "chi_1", "xi_c", "phase")
# A study's deep networks have many layers at the fixed point, which would lie on one another.
LAYERS = 12


def fixed_points(activation: Elementwise, *, sigma_w2: Sequence[float], sigma_b2: float) -> Frame:
    """A row for each sigma_w2: q_star, c_star, chi_1, xi_c and the phase, as `probes.mean_field` gives them.

    Raises:
      ValueError: as `probes.mean_field`; or the second moment falls to 0, where no correlation is defined.
    """
    name, rows = response(activation).name, []
    for value in sigma_w2:
        found = mean_field(activation, sigma_w2=value, sigma_b2=sigma_b2)
        if found.q_star == 0:
            raise ValueError(
                f"the second moment falls to 0 with {name}, sigma_w2 = {value:g} and sigma_b2 = {sigma_b2:g}: two "
                "inputs have no correlation in the end. Use a larger sigma_w2, or a positive sigma_b2"
            )
        rows.append({"sigma_w2": value, **{column: getattr(found, column) for column in COLUMNS}})
    return pd.DataFrame(rows)


def correlation_maps(
    activation: Elementwise, points: Frame, *, sigma_b2: float, measured: Frame | None = None
) -> Frame:
    """The correlation of the next layer over that of this one, from 0 to 1, at the fixed point of the second moment.

    Args:
      activation: as in `probes.mean_field`.
      points: what `fixed_points` returns.
      sigma_b2: variance of the biases.
      measured: what `measured_pairs` returns; a correlation below 0 extends the range.

    Returns:
      Rows of sigma_w2, c, next.
    """
    lowest = 0.0 if measured is None else min(0.0, measured["c"].min())
    c = np.linspace(lowest, 1, POINTS)
    frames = []
    for row in points.to_dict("records"):
        variances = {"sigma_w2": row["sigma_w2"], "sigma_b2": sigma_b2}
        steps = [trajectory(activation, depth=2, q=row["q_star"], c=float(x), **variances) for x in c]
        mapped = [step.correlation[1] for step in steps]
        frames.append(pd.DataFrame({"sigma_w2": row["sigma_w2"], "c": c, "next": mapped}))
    return pd.concat(frames, ignore_index=True)


def measured_pairs(info: Info, runs: Frame, layers: Frame) -> Frame:
    """The correlations of consecutive hidden layers at initialization, in the deepest networks of a study, over seeds.

    Takes the first layers, where the correlation still moves. There the second moment moves, too, and the map is that of
    its fixed point. The head is left out, for it is narrow.

    Returns:
      Rows of sigma_w2, layer, c, next, n: means over n seeds.

    Raises:
      ValueError: the study is no grid of depth and sigma_w2 (`gaussian_grid`).
    """
    grid = gaussian_grid(info)
    shown = tables.chosen(tables.labeled(info, runs))
    depths = shown["depth"].astype(str).astype(int)
    shown = shown[depths == depths.max()]
    shown = shown.assign(sigma_w2=shown[grid.axis].astype(str).map(grid.sigma_w2))
    rows = at_step(layers.loc[layers["run"].isin(shown["run"]) & (layers["path"] != "head")], "first")
    rows = rows.sort_values(["run", "layer"])
    rows = rows.assign(c=rows["correlation"], next=rows.groupby("run")["correlation"].shift(-1))
    rows = rows[(rows["layer"] < LAYERS) & rows["next"].notna()]
    groups = rows.merge(shown[["run", "sigma_w2"]], on="run").groupby(["sigma_w2", "layer"])
    return groups.agg(c=("c", "mean"), next=("next", "mean"), n=("run", "size")).reset_index()


def _row(axes: Axes, curve: Frame, point: dict, pairs: Frame | None, color: str, marker: str) -> None:
    value = point["sigma_w2"]
    star = rf"{point['phase']}, $c^*$ = {point['c_star']:.3g}"
    axes.plot(
        curve["c"],
        curve["next"],
        color=color,
        label=rf"$\sigma_w^2$ = {value:g}: {star}",
        gid=f"map-{value:g}",
    )
    if pairs is not None:
        axes.plot(
            pairs["c"],
            pairs["next"],
            ls="",
            marker=marker,
            ms=3,
            mew=0,
            alpha=0.55,
            color=color,
            gid=f"measured-{value:g}",
        )
    axes.plot(
        [point["c_star"]],
        [point["c_star"]],
        ls="",
        marker="o",
        ms=7,
        mfc="none",
        mec=color,
        mew=1.4,
        zorder=5,
        clip_on=False,
        gid=f"fixed-{value:g}",
    )


def _marks(measured: Frame | None) -> list[Line2D]:
    """What rings and small markers are, for the legend."""
    options: dict[str, Any] = {"ls": "", "color": style.GRAY}
    ring = Line2D([], [], marker="o", ms=7, mfc="none", mew=1.4, label=r"fixed point $c^*$", **options)
    dots = Line2D([], [], marker="s", ms=3, label="measured, layer by layer", **options)
    return [ring] if measured is None else [ring, dots]


@style.styled
def draw_correlation_maps(
    activation: Elementwise, points: Frame, curves: Frame, measured: Frame | None = None
) -> Figure:
    """The figure of tables that `fixed_points`, `correlation_maps` and `measured_pairs` returned.

    Circles: the fixed points; gray: the diagonal; small markers: what was measured.
    """
    figure = Figure(figsize=(style.WIDTH * 0.68, 3.0), layout="constrained")
    axes = figure.subplots()
    low = float(curves["c"].min())
    axes.plot([low, 1], [low, 1], color=style.GRAY, lw=0.9, ls=(0, (4, 3)), gid="diagonal")
    ordered = points.sort_values("sigma_w2").to_dict("records")
    axis = Axis("sigma_w2", tuple(tables.label(row["sigma_w2"]) for row in ordered), True)
    for i, (point, color) in enumerate(zip(ordered, style.colors(axis), strict=True)):
        own = [
            frame if frame is None else frame[frame["sigma_w2"] == point["sigma_w2"]]
            for frame in (curves, measured)
        ]
        _row(axes, own[0], point, own[1], color, style.MARKERS[i % len(style.MARKERS)])
    axes.set_aspect("equal")
    axes.set(xlim=(low - 0.02, 1.02), ylim=(low - 0.02, 1.02))
    axes.set(xlabel=r"correlation $c_l$ of two inputs", ylabel=r"in the next layer, $c_{l+1}$")
    axes.set_title(f"{response(activation).name}: correlation map", loc="left", weight="bold")
    figure.legend(
        handles=[*axes.get_legend_handles_labels()[0], *_marks(measured)], loc="outside right center"
    )
    return figure
