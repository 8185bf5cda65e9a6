"""Gradient flow at initialization against what training reached."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cnnjax.frame import Column, Frame, Info
from cnnjax.report import panels, scale, style, tables
from cnnjax.report.layout import Layout

__all__ = ["draw_ratio_against_accuracy", "ratio_and_accuracy"]


def ratio_and_accuracy(info: Info, runs: Frame) -> Frame:
    """A row per finished run at its cell's selected learning rate: axes, seed, gradient ratio, flow, test accuracy."""
    table = tables.labeled(info, runs)
    finished = table[table["selected"] & (table["status"] == "finished") & table["test_accuracy"].notna()]
    names = [axis.name for axis in tables.axes(info, at_least=1)]
    return finished[["run", *names, "seed", "gradient_ratio_log10", "flow", "test_accuracy"]]


def _edge(ratio: Column) -> float:
    """Where zero, which has no logarithm, is drawn: left of all other ratios."""
    finite = ratio[np.isfinite(ratio)]
    return float(finite.min() - 0.07 * np.ptp(finite) - 0.5) if len(finite) else 0.0


def _points(axes: Axes, table: Frame, edge: float, rank: int, color: str) -> None:
    axes.plot(
        table["gradient_ratio_log10"].clip(lower=edge),
        table["test_accuracy"],
        ls="",
        marker=style.MARKERS[rank],
        ms=4,
        mew=0.4,
        mec="white",
        color=color,
        alpha=0.85,
    )


@style.styled
def draw_ratio_against_accuracy(info: Info, table: Frame, layout: Layout) -> Figure:
    """The figure of a table that `ratio_and_accuracy` returned."""
    bare = Layout(layout.color, None, (), {})
    top, bottom, height = panels.legend_height(bare) + 0.08, 0.42, 2.9
    figure = Figure(figsize=(style.WIDTH, height))
    axes = figure.add_axes((0.085, bottom / height, 0.9, (height - top - bottom) / height))
    axes.axhline(tables.chance(info) + tables.MARGIN, color=style.GRAY, lw=0.8, ls=(0, (4, 3)), zorder=1)
    axes.axvline(0, color=style.GRAY, lw=0.8, zorder=1)
    edge = _edge(table["gradient_ratio_log10"])
    if np.isneginf(table["gradient_ratio_log10"]).any():
        axes.axvspan(edge - 0.4, edge + 0.4, color="#efefef", lw=0, zorder=0)
        axes.text(edge, 1.0, "zero", ha="center", va="top", color=style.GRAY, rotation=90)
    for rank, color in enumerate(style.colors(layout.color)):
        axis = layout.color
        own = table[table[axis.name] == axis.labels[rank]] if axis else table
        _points(axes, own, edge, rank, color)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    axes.set(
        ylim=(-0.03, 1.04),
        ylabel="test accuracy",
        xlabel="mean squared gradient of the first layer over the last hidden one, at initialization",
    )
    panels.legend(figure, bare, lines=False)
    return figure


def _power(exponent: float) -> str:
    """As 10⁻², or 1.58 between the powers of ten."""
    return style.power(exponent) if float(exponent).is_integer() else scale.number(exponent)
