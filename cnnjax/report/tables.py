"""What the figures and the words are made of: the tables of a study, reduced to one row per cell of its grid."""

import math
import re
from dataclasses import dataclass
from numbers import Real

import numpy as np
import pandas as pd

from cnnjax.frame import Column, Frame, Info

__all__ = [
    "MARGIN",
    "Axis",
    "agreement",
    "axes",
    "cells",
    "chance",
    "chosen",
    "decades",
    "keys",
    "label",
    "labeled",
    "margins",
    "missing",
]

# A cell counts as trainable when its mean test accuracy reaches chance plus this many hundredths.
MARGIN = 0.10

FLOWS = ("stable", "vanishing", "exploding", "not finite")


@dataclass(frozen=True)
class Axis:
    """One axis of the grid: its name, the labels of its values in order, and whether they are numbers."""

    name: str
    labels: tuple[str, ...]
    numeric: bool

    @property
    def title(self) -> str:
        """The name in words, as `batch size` for `batch_size`."""
        return self.name.replace("_", " ")

    def text(self, value: str) -> str:
        """A value that is understood by itself: `depth 30`, but `relu`."""
        return f"{self.title} {value}" if self.numeric or value in ("none", "yes", "no") else value


def missing(value: object) -> bool:
    """Whether a value is None, NaN or NA."""
    return value is None or value is pd.NA or bool(value != value)


def label(value: object) -> str:
    """The text of an axis value; None and NaN are `none`, whole numbers lose their `.0`."""
    if missing(value):
        return "none"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Real):
        number = float(value)
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else f"{number:g}"
    return str(value)


def _is_number(value: object) -> bool:
    """Whether a value is a number, or a variant is called by one."""
    if isinstance(value, str):
        return re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", value) is not None
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def axes(info: Info, *, at_least: int = 2) -> tuple[Axis, ...]:
    """The axes of the grid that have `at_least` that many values, in the order of the study."""
    return tuple(
        Axis(name, tuple(label(value) for value in values), all(_is_number(value) for value in values))
        for name, values in info["axes"].items()
        if len(values) >= at_least
    )


def keys(info: Info) -> list[str]:
    """The columns that tell one cell from another: the axes, or the number of the cell where there are none."""
    return [axis.name for axis in axes(info, at_least=1)] or ["cell"]


def labeled(info: Info, runs: Frame) -> Frame:
    """The table of runs with each axis as an ordered category of labels.

    Raises:
      ValueError: a run has a value that its axis does not list.
    """
    categories = {}
    for axis in axes(info, at_least=1):
        texts = runs[axis.name].map(label, na_action=None)
        strange = sorted(set(texts) - set(axis.labels))
        if strange:
            raise ValueError(
                f"the runs have {axis.name} = {', '.join(strange)}, but the study's axis lists {', '.join(axis.labels)}: "
                f"runs and study.json are not from the same study"
            )
        categories[axis.name] = pd.Categorical(texts, axis.labels, ordered=True)
    selected = runs["selected"].to_numpy(dtype=bool, na_value=False)
    return runs.assign(selected=selected, **categories)


def chosen(runs: Frame) -> Frame:
    """One run for each cell and seed: at the selected learning rate, or, where none is selected yet, the first."""
    has_selected = runs.groupby("cell")["selected"].transform("any")
    candidates = runs[runs["selected"] | ~has_selected]
    return candidates.drop_duplicates(["cell", "seed"])


def chance(info: Info) -> float:
    """The accuracy of guessing among the classes."""
    return 1 / info["num_classes"]


def decades(value: float) -> str:
    """Orders of magnitude as text: a sign, one decimal, `zero` for the logarithm of zero."""
    if math.isnan(value):
        return "–"
    if value == -math.inf:
        return "zero"
    return "0.0" if abs(value) < 0.05 else f"{value:+.1f}".replace("-", "−")


def _flow(flows: Column) -> str:
    """What most seeds show; a tie is not called stable."""
    counts = flows.dropna().astype(object).value_counts()
    leading = [flow for flow in FLOWS if counts.get(flow, 0) == counts.max()]
    return leading[-1] if leading else ""


def _verdicts(info: Info, table: Frame, accuracies: Column) -> Column:
    """`trainable` or `untrainable` by cell, or nothing where the runs don't tell (yet)."""
    lost = (table["status"] == "diverged").groupby(table["cell"]).all().reindex(accuracies.index)
    reached = np.where(accuracies >= chance(info) + MARGIN, "trainable", "untrainable")
    unknown = np.where(lost, "untrainable", "")
    verdicts = np.where(accuracies.notna(), reached, unknown) if info["steps"] else ""
    return pd.Series(verdicts, accuracies.index, dtype=object)


def cells(info: Info, runs: Frame) -> Frame:
    """A row per cell: over its seeds, the gradient flow at initialization (median, minimum, maximum) and the accuracies
    (mean, sample standard deviation) of the runs that finished at the selected learning rate.

    `verdict` is `untrainable` when the mean test accuracy is below chance + `MARGIN`, or when every run diverged.
    """
    table = labeled(info, runs)
    shown = chosen(table)
    names = [axis.name for axis in axes(info, at_least=1)]
    frame = shown.drop_duplicates("cell").set_index("cell").sort_index()[names]
    finished = shown[(shown["status"] == "finished") & shown["selected"]].groupby("cell")
    by_cell = shown.groupby("cell")
    ratio = by_cell["gradient_ratio_log10"]
    statuses = pd.crosstab(shown["cell"], shown["status"])
    counts = {name: statuses.get(name, 0) for name in ("diverged", "out of memory", "unfinished")}
    frame = frame.assign(
        learning_rate=finished["learning_rate"].first(),
        seeds=finished.size().reindex(frame.index, fill_value=0),
        **{name.replace(" ", "_"): count for name, count in counts.items()},
        flow=by_cell["flow"].agg(_flow),
        gradient_ratio_log10=ratio.median(),
        gradient_ratio_log10_min=ratio.min(),
        gradient_ratio_log10_max=ratio.max(),
        gradient_slope=by_cell["gradient_slope"].median(),
    )
    for name in ("train_accuracy", "validation_accuracy", "test_accuracy"):
        frame = frame.assign(**{name: finished[name].mean(), f"{name}_sd": finished[name].std()})
    return frame.assign(verdict=_verdicts(info, table, frame["test_accuracy"])).reset_index()


def margins(info: Info, table: Frame) -> Frame:
    """A row per value of each axis: how many of its cells are stable, vanishing, exploding, and trainable.

    `table` is what `cells` returns.
    """
    return pd.DataFrame(
        [
            {
                "axis": axis.title,
                "value": value,
                "cells": int((group["flow"] != "").sum()),
                **{flow: int((group["flow"] == flow).sum()) for flow in FLOWS},
                "gradient_ratio_log10": group["gradient_ratio_log10"].median(),
                "judged": int((group["verdict"] != "").sum()),
                "trainable": int((group["verdict"] == "trainable").sum()),
                "test_accuracy": group["test_accuracy"].mean(),
                "best_test_accuracy": group["test_accuracy"].max(),
            }
            for axis in axes(info)
            for value in axis.labels
            for group in [table[table[axis.name] == value]]
        ]
    )


def agreement(table: Frame) -> Frame:
    """Cells counted by gradient flow at initialization (rows) and verdict after training (columns)."""
    known = table[(table["flow"] != "") & (table["verdict"] != "")]
    counts = pd.crosstab(known["flow"], known["verdict"])
    return counts.reindex(index=list(FLOWS), columns=["trainable", "untrainable"], fill_value=0)
