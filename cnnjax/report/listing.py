"""Tables of the page: what a cell says, and by what it is sorted."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import pandas as pd

from cnnjax.frame import Column, Frame, Info
from cnnjax.report import tables

__all__ = ["Listing", "agreement_listing", "cell_listing", "margin_listing", "run_listing"]

# A page with more rows than this is slow; the CSV file holds all of them.
LONGEST = 2000


@dataclass(frozen=True)
class Head:
    """A column: the key by which a link can sort it, its title, and whether it is set as numbers."""

    key: str
    title: str
    numeric: bool

    @property
    def classes(self) -> str:
        """How the style sheet sets it: `n` for numbers, `long` for a title that needs room."""
        return ("n" if self.numeric else "") + (" long" if len(self.title) > 16 else "")


@dataclass(frozen=True)
class Listing:
    """A table ready to be set: every entry is a text and the value it is sorted by (empty: missing, always last)."""

    name: str
    title: str
    columns: list[Head]
    rows: list[list[tuple[str, str]]]
    left_out: int = 0


def _signed(text: str) -> str:
    return text.replace("-", "−")


def _share(value: float) -> str:
    return f"{100 * value:.1f}"


def _fine(value: float) -> str:
    return _signed(f"{value:.3g}")


def _whole(value: float) -> str:
    return f"{int(value):,}"


# How a column of a study is written; any other is written as a label.
FORMATS: dict[str, Callable[[Any], str]] = {
    "train_loss": _fine,
    "train_accuracy": _share,
    "validation_loss": _fine,
    "validation_accuracy": _share,
    "test_loss": _fine,
    "test_accuracy": _share,
    "best_test_accuracy": _share,
    "gradient_ratio_log10": tables.decades,
    "gradient_slope": _fine,
    "parameters": _whole,
    "diverged_step": _whole,
}
TITLES = {
    "train_accuracy": "train accuracy (%)",
    "validation_accuracy": "validation accuracy (%)",
    "test_accuracy": "test accuracy (%)",
    "best_test_accuracy": "best cell (%)",
    "gradient_ratio_log10": "gradient, first / last (log10)",
    "gradient_slope": "gradient slope (log10 per layer)",
    "diverged": "diverged seeds",
    "seeds": "finished seeds",
}


RUN_KEYS = tuple(
    "seed learning_rate selected status test_accuracy flow gradient_ratio_log10 gradient_slope train_accuracy "
    "validation_accuracy train_loss validation_loss test_loss parameters diverged_step diverged_layer".split()
)
CELL_KEYS = tuple(
    "test_accuracy verdict learning_rate seeds diverged train_accuracy validation_accuracy".split()
)


def _entry(key: str, value: Any) -> tuple[str, str]:
    if tables.missing(value):
        return "–", ""
    text = FORMATS.get(key, tables.label)(value)
    if not isinstance(value, Real):
        return text, str(value)
    return text, f"{max(float(value), -1e308):.17g}"


def _heads(info: Info, table: Frame, keys: list[str]) -> list[Head]:
    numbers = {axis.name for axis in tables.axes(info, at_least=1) if axis.numeric}
    numbers |= {key for key in keys if pd.api.types.is_numeric_dtype(table[key])} - {"selected"}
    return [Head(key, TITLES.get(key, key.replace("_", " ")), key in numbers) for key in keys]


def _rows(table: Frame, keys: list[str]) -> list[list[tuple[str, str]]]:
    records = table[keys].astype(object).itertuples(index=False, name=None)
    return [[_entry(key, value) for key, value in zip(keys, record, strict=True)] for record in records]


def _listing(info: Info, name: str, title: str, table: Frame, keys: list[str]) -> Listing:
    kept = table.head(LONGEST)
    return Listing(name, title, _heads(info, table, keys), _rows(kept, keys), len(table) - len(kept))


def _axis_names(info: Info) -> list[str]:
    return [axis.name for axis in tables.axes(info, at_least=1)]


def margin_listing(info: Info, margins: Frame) -> Listing:
    """What `tables.margins` counts: a row per value of each axis."""
    if margins.empty:
        return _listing(info, "values", "What goes with each value", margins, [])
    broken = ["not finite"] if margins["not finite"].any() else []
    keys = ["axis", "value", "cells", "stable", "vanishing", "exploding", *broken, "gradient_ratio_log10"]
    if info["steps"]:
        judged = [] if (margins["judged"] == margins["cells"]).all() else ["judged"]
        keys += [*judged, "trainable", "test_accuracy", "best_test_accuracy"]
    return _listing(info, "values", "What goes with each value", margins, keys)


def agreement_listing(info: Info, counts: Frame) -> Listing:
    """What `tables.agreement` counts; without rows when nothing was judged."""
    table = counts.reset_index() if counts.to_numpy().sum() else counts.reset_index().head(0)
    return _listing(info, "agreement", "Flow against outcome", table, ["flow", "trainable", "untrainable"])


def _range(cell: Column, key: str) -> str:
    """The spread of a cell's number over its seeds, where there is any."""
    if key == "gradient_ratio_log10":
        low, high = (tables.decades(cell[f"{key}_{end}"]) for end in ("min", "max"))
        return f" [{low}, {high}]" if low != high else ""
    spread = cell.get(f"{key}_sd", math.nan)
    return "" if math.isnan(spread) else f" ± {_share(spread)}"


def cell_listing(info: Info, cells: Frame) -> Listing:
    """A row per cell: median and range of the gradient ratio, mean ± standard deviation of the accuracies."""
    trained = CELL_KEYS if info["steps"] else ()
    keys = ["cell", *_axis_names(info), "flow", "gradient_ratio_log10", *trained]
    listing = _listing(info, "cells", "Cells", cells, keys)
    for row, (_, cell) in zip(listing.rows, cells.iterrows(), strict=False):
        row[:] = [
            (text + (_range(cell, key) if order else ""), order)
            for key, (text, order) in zip(keys, row, strict=True)
        ]
    return listing


def run_listing(info: Info, runs: Frame) -> Listing:
    """A row per run; columns that hold nothing are left out."""
    table = tables.labeled(info, runs)
    keys = [key for key in ("run", *_axis_names(info), *RUN_KEYS) if table[key].notna().any()]
    return _listing(info, "runs", "Runs", table, keys)
