"""What a trained network gets right and wrong on a split: its confusions, its classes, and how sure it is."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from scipy import stats

from cnnjax.frame import Frame
from cnnjax.report import captions, style
from cnnjax.report.plates import Plate

__all__ = [
    "Sure",
    "bars",
    "class_figures",
    "confused_pairs",
    "names_of",
    "plate",
    "reliability_figures",
    "wilson",
]

LARGEST, WRITTEN = 100, 15
BARS, WORST = 40, 20
LETTERS = 22
# The share at which the colors of the confusion matrix begin.
LOWEST = 1e-3


def wilson(right: float, examples: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    interval = stats.binomtest(round(right), examples).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def names_of(data: Mapping[str, Any]) -> list[str]:
    """The names of the classes, or their numbers."""
    names, count = list(data.get("class_names") or ()), data["num_classes"]
    return [str(name) for name in names] if len(names) == count else [str(i) for i in range(count)]


def confused_pairs(found: Mapping[str, Any], names: Sequence[str]) -> Frame:
    """A row for each true and predicted class that were confused, the most frequent first: true, predicted, count, share.

    `share` is that of the true class's examples.
    """
    counts = np.asarray(found["confusion"], np.int64)
    sizes = counts.sum(axis=1)
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")
    true, predicted = np.unravel_index(order[: np.count_nonzero(wrong)], counts.shape)
    return pd.DataFrame(
        {
            "true": [names[i] for i in true],
            "predicted": [names[i] for i in predicted],
            "count": wrong[true, predicted],
            "share": wrong[true, predicted] / sizes[true],
        }
    )


def class_figures(found: Mapping[str, Any], split: str, names: Sequence[str]) -> Iterator[Plate]:
    """The figures of a split's evaluation, as `evaluation.json` has it."""
    counts = np.asarray(found["confusion"], np.int64)
    if 1 < len(counts) <= LARGEST:
        title = f"Confusions on the {split} split"
        table = pd.DataFrame(counts, columns=list(names)).assign(true=list(names))
        yield plate("confusion", title, _confusion_words(counts), _confusion(counts, names), table)
    classes = _classes(counts, names)
    if len(classes) > 1:
        title = f"Accuracy by class on the {split} split"
        words = _class_words(classes, len(counts))
        yield plate(
            "class_accuracy",
            title,
            words,
            bars(classes, "accuracy", found["accuracy"], label="accuracy"),
            classes,
        )
    yield from reliability_figures(found, split, IMAGES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sure:
    """The words of a figure of reliability: title, what is counted, what confidence is and should be, and caption."""

    title: str
    counted: str
    confidence: str
    true: str
    caption: str


IMAGES = Sure(
    title="How sure the network is, and how often it is right",
    counted="images",
    confidence="confidence (probability of the predicted class)",
    true="accuracy",
    caption="Left: a point is a bin of images of about the same confidence. On the dashed line confidence is right; below "
    "it the network is surer than it should be. Lines: 95 % intervals (Wilson 1927). Right: how many images are so sure.",
)


def reliability_figures(found: Mapping[str, Any], split: str, sure: Sure) -> Iterator[Plate]:
    """What probabilities are worth, where an evaluation says it."""
    bins = _bins(found.get("reliability") or {})
    if len(bins):
        words = _reliability_words(sure.caption, found.get("calibration_error"))
        yield plate(
            "reliability", f"{sure.title}, on the {split} split", words, _reliability(bins, sure), bins
        )


def plate(name: str, title: str, caption: str, figure: Figure, table: Frame) -> Plate:
    """A figure of the section on classes."""
    return Plate(name, "classes", title, caption, captions.alternative(title, None), figure, table)


def _short(name: str) -> str:
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"


def _share(value: float) -> str:
    """Percent in a tile: two digits, and nothing for none."""
    return "" if value == 0 else f"{100 * value:.0f}" if value >= 0.0995 else f"{100 * value:.1f}"


@style.styled
def _confusion(counts: np.ndarray, names: Sequence[str]) -> Figure:
    labels, count = [_short(name) for name in names], len(counts)
    size = min(5.2 / count, max(0.42, 1.3 / count))
    letters = float(np.clip(62 * size, 3.2, 6.5))
    room = 0.12 + 0.0078 * letters * max(map(len, labels))
    left, top = 0.30 + room, 0.10
    bottom = 0.25 + room
    height = top + size * count + bottom
    figure = Figure(figsize=(style.WIDTH, height))
    place = (left / style.WIDTH, bottom / height, size * count / style.WIDTH, size * count / height)
    axes = figure.add_axes(place)
    rates = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    norm, colors = LogNorm(LOWEST, 1.0), matplotlib.colormaps["Blues"].with_extremes(bad="white")
    edges = np.arange(count + 1) - 0.5
    shown = np.ma.masked_equal(np.where(rates > 0, np.maximum(rates, LOWEST), 0), 0)
    axes.pcolormesh(edges, edges, shown, norm=norm, cmap=colors, rasterized=count > WRITTEN, gid="confusion")
    axes.set(
        xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), xlabel="predicted class", ylabel="true class"
    )
    axes.grid(False)
    axes.set_xticks(range(count), labels, rotation=90, fontsize=letters, parse_math=False)
    axes.set_yticks(range(count), labels, fontsize=letters, parse_math=False)
    axes.tick_params(length=1.5 if count > WRITTEN else 2.5)
    if count <= WRITTEN:
        _write(axes, rates, norm, colors)
    bar_place = (place[0] + place[2] + 0.02, place[1], 0.012, place[3])
    _bar(figure, norm, colors, bar_place)
    return figure


def _write(axes: Axes, rates: np.ndarray, norm: LogNorm, colors: Any) -> None:
    for (row, column), rate in np.ndenumerate(rates):
        ink = style.contrast(colors(norm(max(rate, LOWEST))))
        axes.text(column, row, _share(rate), ha="center", va="center", color=ink, fontsize=6)


def _bar(figure: Figure, norm: LogNorm, colors: Any, place: tuple[float, float, float, float]) -> None:
    bar = figure.colorbar(ScalarMappable(norm, colors), cax=figure.add_axes(place))
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    bar.ax.minorticks_off()
    bar.set_label("share of the true class", fontsize=7)


def _confusion_words(counts: np.ndarray) -> str:
    written = " The numbers are percent of the true class." if len(counts) <= WRITTEN else ""
    return (
        "Rows: the true class; columns: what the network said. A dark diagonal is right; every tile off it is a confusion. "
        f"The colors are on a log scale from 0.1 % on, so that rare confusions show; white: none.{written} The table holds "
        "the counts."
    )


def _classes(counts: np.ndarray, names: Sequence[str]) -> Frame:
    """A row for each class that has examples, the best first: class, examples, accuracy, low, high (Wilson, 95 %)."""
    rows = [
        {"class": name, "examples": int(row.sum()), "right": int(row[i])}
        for i, (name, row) in enumerate(zip(names, counts, strict=True))
        if row.sum()
    ]
    table = pd.DataFrame(rows, columns=["class", "examples", "right"])
    table = table.assign(accuracy=table["right"] / table["examples"])
    intervals = [wilson(right, n) for right, n in zip(table["right"], table["examples"], strict=True)]
    table = table.assign(low=[low for low, _ in intervals], high=[high for _, high in intervals])
    return table.sort_values("accuracy", ascending=False, kind="stable").reset_index(drop=True)


@style.styled
def bars(classes: Frame, column: str, mean: float, *, label: str) -> Figure:
    """A bar for each class, which has a name under "class", with what `low` and `high` say; of many the last."""
    shown = classes if len(classes) <= BARS else classes.tail(WORST)
    labels = [_short(name) for name in shown["class"]]
    left, right, top, bottom, row = 0.25 + 0.058 * max(map(len, labels)), 0.45, 0.10, 0.40, 0.16
    height = top + row * len(shown) + bottom
    figure = Figure(figsize=(style.WIDTH, height))
    axes = figure.add_axes(
        (
            left / style.WIDTH,
            bottom / height,
            1 - (left + right) / style.WIDTH,
            row * len(shown) / height,
        )
    )
    places, values = np.arange(len(shown)), shown[column].to_numpy(float)
    axes.barh(places, values, height=0.72, color="#9db8d2", gid="bars")
    if {"low", "high"} <= set(shown):
        whiskers = np.abs(shown[["low", "high"]].to_numpy(float).T - values)
        axes.errorbar(values, places, xerr=whiskers, ls="", color=style.INK, elinewidth=0.8, capsize=0)
    axes.axvline(mean, color=style.GRAY, lw=0.8, ls=(0, (4, 3)))
    for place, value in zip(places, values, strict=True):
        axes.text(1.01, float(place), f"{100 * value:.1f}", va="center", fontsize=6)
    axes.set(xlim=(0, 1), ylim=(len(shown) - 0.5, -0.5), xlabel=label)
    axes.set_yticks(places, labels, parse_math=False)
    axes.grid(False, axis="y")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
    return figure


def _class_words(classes: Frame, count: int) -> str:
    empty = count - len(classes)
    parts = [
        f"The {WORST} worst of {len(classes):,} classes." if len(classes) > BARS else "",
        "Lines: 95 % intervals (Wilson 1927). Dashed: all examples together.",
        f"Classes without examples that are left out: {empty}." if empty else "",
    ]
    return " ".join(part for part in parts if part)


def _bins(found: Mapping[str, Any]) -> Frame:
    """A row for each bin of confidence that has examples: confidence, accuracy, low, high, count, share."""
    columns = {name: found.get(name) or [] for name in ("confidence", "accuracy", "count")}
    table = pd.DataFrame(columns).astype("float64")
    table = table[table["count"] > 0].reset_index(drop=True)
    intervals = [
        wilson(accuracy * count, int(count))
        for accuracy, count in zip(table["accuracy"], table["count"], strict=True)
    ]
    return table.assign(
        low=[low for low, _ in intervals],
        high=[high for _, high in intervals],
        share=table["count"] / table["count"].sum(),
    )


@style.styled
def _reliability(bins: Frame, sure: Sure) -> Figure:
    height, side, left, gap = 3.2, 2.65, 0.75, 0.95
    figure = Figure(figsize=(style.WIDTH, height))
    places = [
        (x / style.WIDTH, 0.45 / height, side / style.WIDTH, side / height) for x in (left, left + side + gap)
    ]
    curve, histogram = (figure.add_axes(place) for place in places)
    confidence, accuracy = bins["confidence"].to_numpy(float), bins["accuracy"].to_numpy(float)
    whiskers = np.abs(bins[["low", "high"]].to_numpy(float).T - accuracy)
    curve.plot([0, 1], [0, 1], color=style.GRAY, lw=0.8, ls=(0, (4, 3)), zorder=1)
    curve.errorbar(
        confidence, accuracy, yerr=whiskers, color=style.SINGLE, marker="o", ms=3.5, mew=0, elinewidth=0.8
    )
    curve.set(ylabel=sure.true, ylim=(-0.02, 1.02))
    histogram.bar(confidence, bins["share"], width=0.045, color="#9db8d2", gid="histogram")
    histogram.set(ylabel=f"share of the {sure.counted}", ylim=(0, 1.08 * float(bins["share"].max())))
    for axes in (curve, histogram):
        axes.set(xlim=(-0.02, 1.02), xlabel=sure.confidence)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
    return figure


def _reliability_words(words: str, error: float | None) -> str:
    if error is None or not math.isfinite(error):
        return words
    return f"{words} Expected calibration error (Guo et al. 2017): {100 * error:.1f} points."
