"""Histograms of singular values, and what they are in linear networks (Pennington et al. 2017, figure 2)."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from cnnjax.frame import Frame, Info
from cnnjax.probes import product_cumulative
from cnnjax.report import style, tables
from cnnjax.report.ensemble import options_of

__all__ = ["MEASURE", "PANELS", "draw_spectra", "spectra", "vectors"]

MEASURE = "singular_values"
"""The vector among a study's measures: singular values of the Jacobian from the first to the last hidden layer."""

PANELS = 12
COLUMNS = 4
# An odd number, so that a value that all share lies within a bin.
BINS = 31
# Decades that a histogram spans at least.
SPAN = 0.1
# What float32 resolves of a spectrum, relative to its largest value: errors of a few 1e-7 pile up below.
RESOLUTION = 1e-6

Law = Callable[[np.ndarray], np.ndarray]


def spectra(info: Info, runs: Frame, measures: Frame) -> Frame:
    """A row per cell and bin: `low`, `high` and `count`, and the `density` by decade, `measured` over all seeds.

    `predicted` is the mean density of the bin in linear networks without norm or skip from Gaussian or orthogonal kernels,
    as many as lie between the first and the last hidden layer; NaN for other networks, or where there are not as many
    singular values as units. `lost` is the share of values below 1e-6 of a network's largest, which float32 does not
    resolve: they are in no bin. `spread` is the largest over the median value, median over seeds; 1e6 is a lower bound.

    Args:
      info, runs: of the study.
      measures: its table of measures, with the vector `singular_values`.

    Raises:
      ValueError: the measures hold no such vector.
    """
    values = vectors(measures)
    if values.empty:
        known = ", ".join(sorted(set(measures["measure"]))) or "none"
        raise ValueError(
            f"expected a finite vector called {MEASURE!r} among the measures of {info['name']!r}; it has {known}. "
            "Measure the singular values with probes.jacobian_spectrum"
        )
    shown = tables.chosen(tables.labeled(info, runs))
    names = tables.keys(info)
    rows = values.merge(shown[["run", "seed", *names]], on="run")
    frames = []
    for key, own in rows.groupby(names, observed=True):
        labels = dict(zip(names, map(str, key), strict=True))
        matrix = own.pivot(index="seed", columns="index", values="value").to_numpy(float)
        law = _linear_law(options_of(info, labels if names != ["cell"] else {}), matrix.shape[1])
        frames.append(_histogram(matrix, law).assign(**labels)[[*names, *_COLUMNS]])
    return pd.concat(frames, ignore_index=True)


def vectors(measures: Frame) -> Frame:
    """The rows of the singular values of networks whose are all finite; none where they are no vector."""
    values = measures[measures["measure"] == MEASURE]
    finite = np.isfinite(values["value"].astype(float)).groupby(values["run"]).transform("all")
    return values[finite] if (values["index"] > 0).any() else values.iloc[:0]


_COLUMNS = ("low", "high", "count", "density", "predicted", "lost", "spread", "n")


def _linear_law(options: Mapping[str, Any], count: int) -> Law | None:
    """The cumulative distribution of the singular values of a linear network; None where it is not known."""
    plain = options["model"] == "mlp" and not options["skip"] and options["norm"] is None
    if not plain or options["activation"] != "identity" or count != options["width"]:
        return None
    kernels, gain = int(options["depth"]) - 2, float(options["gain"])
    if kernels >= 1 and options["initializer"] == "gaussian":
        return lambda s: product_cumulative(s, depth=kernels, sigma_w=gain)
    if kernels >= 1 and options["initializer"] == "orthogonal":
        return lambda s: (s > gain**kernels).astype(float)
    return None


def _histogram(matrix: np.ndarray, law: Law | None) -> Frame:
    """The histogram of spectra `(seeds, values)`, in bins of equal width in log s."""
    largest = matrix.max(axis=1, keepdims=True)
    kept = matrix[matrix > RESOLUTION * largest]
    edges = _edges(kept)
    counts, _ = np.histogram(kept, edges)
    decades = np.diff(np.log10(edges))
    resolved = np.maximum(matrix, RESOLUTION * largest)
    with np.errstate(invalid="ignore"):
        spread = np.median(largest[:, 0] / np.median(resolved, axis=1))
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "count": counts,
            "density": counts / (decades * matrix.size),
            "predicted": math.nan if law is None else np.diff(law(edges)) / decades,
            "lost": 1 - kept.size / matrix.size,
            "spread": spread,
            "n": len(matrix),
        }
    )


def _edges(values: np.ndarray) -> np.ndarray:
    logs = np.log10(values) if values.size else np.zeros(1)
    middle, half = (logs.max() + logs.min()) / 2, (logs.max() - logs.min()) / 2
    half = max(1.02 * half, SPAN / 2)
    return 10 ** np.linspace(middle - half, middle + half, BINS + 1)


def _set_ticks(axes: Axes, low: float, high: float) -> None:
    axes.set(xscale="log", xlim=(low, high))
    axes.xaxis.set_minor_locator(NullLocator())
    if high / low > 30:
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.power(math.log10(value))))
    else:
        ticks = MaxNLocator(nbins=4).tick_values(low, high)
        shown = [float(tick) for tick in ticks if low < tick < high]
        axes.set_xticks(shown, [tables.label(tick) for tick in shown])
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3))


def _ratio(spread: float, lost: float) -> str:
    """A bound where the median is not resolved."""
    if math.isnan(spread):
        return "–"
    return f"{spread:.3g}" if spread < 1e3 else ("≥ " if lost > 0.5 else "") + style.power(math.log10(spread))


def _panel(axes: Axes, own: Frame, title: str) -> None:
    edges = [*own["low"], own["high"].iloc[-1]]
    axes.stairs(own["density"], edges, fill=True, color=style.SINGLE, alpha=0.55, lw=0, gid="measured")
    if own["predicted"].notna().any():
        axes.stairs(own["predicted"], edges, color=style.INK, lw=1.0, ls=(0, (3, 1.6)), gid="predicted")
    _set_ticks(axes, edges[0], edges[-1])
    axes.set_title(title, fontsize=7.5)
    lost, spread = own["lost"].iloc[0], own["spread"].iloc[0]
    notes = [
        rf"$s_{{\max}}$ / median {_ratio(spread, lost)}",
        *([f"{100 * lost:.0f} % unresolved"] if lost else []),
    ]
    axes.text(0.03, 0.97, "\n".join(notes), transform=axes.transAxes, va="top", fontsize=6, color=style.GRAY)
    highest = np.nanmax(own[["density", "predicted"]].to_numpy(float))
    axes.set_ylim(0, 1.32 * highest if highest else 1.0)


@style.styled
def draw_spectra(info: Info, table: Frame) -> Figure:
    """The figure of a table that `spectra` returned: a panel per cell, the first `PANELS` of them.

    Bars: measured; dashed: predicted for a linear network. Every panel has scales of its own.
    """
    names = tables.keys(info)
    cells = [own for _, own in table.groupby(names, observed=True, sort=False)][:PANELS]
    columns = min(COLUMNS, len(cells))
    count = math.ceil(len(cells) / columns)
    figure = Figure(figsize=(style.WIDTH, 0.3 + 1.55 * count), layout="constrained")
    grid = figure.subplots(count, columns, squeeze=False)
    axes_of = {axis.name: axis for axis in tables.axes(info, at_least=1)}
    for axes, own in zip(grid.ravel(), cells, strict=False):
        first = own.iloc[0]
        _panel(axes, own, ", ".join(axes_of[name].text(first[name]) for name in names if name in axes_of))
    for axes in grid.ravel()[len(cells) :]:
        axes.set_visible(False)
    figure.supxlabel("singular value", fontsize=7.5)
    figure.supylabel("density per decade", fontsize=7.5)
    return figure
