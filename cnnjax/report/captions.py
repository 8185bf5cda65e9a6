"""The words under the figures: what is drawn, how it is spread over the panels, and what is missing."""

import numpy as np

from cnnjax.frame import Frame, Info
from cnnjax.report import tables
from cnnjax.report.heatmap import roomy, split
from cnnjax.report.layers import relative
from cnnjax.report.layout import Layout
from cnnjax.report.spectra import PANELS
from cnnjax.report.trainability import LENGTHS

__all__ = [
    "accuracy_map",
    "alternative",
    "by_layer",
    "by_step",
    "gradient_map",
    "scatter",
    "singular_values",
    "trainability",
]


def _names(axes: tuple[tables.Axis, ...] | list[tables.Axis]) -> str:
    return " and ".join(axis.title for axis in axes)


def _facets(layout: Layout) -> str:
    """Which axis is where."""
    parts = [f"Color and marker: {layout.color.title}." if layout.color else ""]
    if layout.columns:
        parts.append(f"{'Panels' if layout.wrap else 'Columns'}: {layout.columns.title}.")
    if layout.rows:
        parts.append(f"Rows: {_names(layout.rows)}.")
    if layout.fixed:
        parts.append(f"This figure shows {layout.shown}; the tables hold the other values.")
    return " ".join(part for part in parts if part)


def _band(table: Frame) -> str:
    """What line and band are; how many seeds there are."""
    counts = table["n"][table["n"] > 0]
    most, least = (int(counts.max()), int(counts.min())) if len(counts) else (0, 0)
    if most <= 1:
        return "Each line is a single seed, so there is no band."
    seeds = f"{most} seeds" if most == least else f"{least} to {most} seeds"
    return f"Lines: median over {seeds}; bands: minimum to maximum."


def _missing(table: Frame) -> str:
    """What triangles, bands that go down to zero, gaps and missing lines stand for, where there are any."""
    values = table["median"].to_numpy(float)
    parts = []
    if np.isneginf(values).any():
        parts.append("Triangles in the gray strip: exactly zero (underflow), which a log scale cannot show.")
    elif np.isneginf(table["low"].to_numpy(float)).any():
        parts.append(
            "A band down to the gray strip: of some seed exactly zero, which a log scale cannot show."
        )
    if np.isnan(values).any():
        parts.append("Gaps: no finite value (the run diverged, or nothing is defined there).")
    return " ".join(parts)


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def by_layer(table: Frame, layout: Layout, meaning: str) -> str:
    """The caption of a figure over layers."""
    place = "Depths differ widely, so layers are placed by relative depth." if relative(table) else ""
    return _join(meaning, _facets(layout), _band(table), place, _missing(table), _theory(table))


def _theory(table: Frame) -> str:
    """What the dashed lines are, and where theory does not reach."""
    if "theory" not in table:
        return ""
    reasons = sorted({reason for reason in table["reason"].dropna() if reason})
    absent = f"Theory does not cover: {', '.join(reasons)}." if reasons else ""
    if table["theory"].notna().any():
        return _join(
            "Dashed: mean-field theory of infinitely wide networks, put on the median at the last layer that it connects.",
            absent,
        )
    return absent


def by_step(table: Frame, layout: Layout, meaning: str) -> str:
    """The caption of a figure over training steps."""
    diverged = table[table["diverged"]]
    names = list(table.columns[: table.columns.get_loc("step")])
    drawn = diverged.groupby(names, observed=True)["median"].apply(lambda values: values.notna().any())
    cross = "A cross ends the line of a cell whose runs diverged." if drawn.any() else ""
    absent = "A cell without a line diverged before its first point." if not drawn.all() else ""
    return _join(
        meaning, "Each cell at its selected learning rate.", _facets(layout), _band(table), cross, absent
    )


def _sides(info: Info) -> str:
    down, across = split(tables.axes(info))
    parts = [f"Rows: {_names(down)}." if down else "", f"Columns: {_names(across)}." if across else ""]
    return _join(*parts)


def accuracy_map(info: Info, cells: Frame) -> str:
    """The caption of the accuracy map: says what untrainable means and what ± is."""
    floor = 100 * (tables.chance(info) + tables.MARGIN)
    spread = " ± standard deviation" if (cells["seeds"] > 1).any() and roomy(info) else ""
    partly = cells["test_accuracy"].notna() & (cells["diverged"] > 0)
    return _join(
        f"Mean{spread} of the final test accuracy over the seeds that finished, in percent, at the learning rate that "
        f"validation chose for the cell.",
        f"Hatched: untrainable, which means a mean below {floor:.0f} % (chance + 10 points), or that every run diverged.",
        "“open”: not finished." if cells["unfinished"].any() else "",
        "“memory”: did not fit into memory." if cells["out_of_memory"].any() else "",
        "† Some seeds diverged at that learning rate." if partly.any() else "",
        _sides(info),
    )


def gradient_map(info: Info, cells: Frame) -> str:
    """The caption of the gradient map."""
    zero = (
        "“zero”: the first layer's gradient underflows."
        if np.isneginf(cells["gradient_ratio_log10"]).any()
        else ""
    )
    return _join(
        "Orders of magnitude between the mean squared gradient (with respect to pre-activations) of the first layer "
        "and that of the last hidden one, at initialization; median over seeds. Red: it vanishes toward the input; blue: it "
        "explodes. The color scale ends at ±12.",
        zero,
        _sides(info),
    )


def scatter(info: Info, table: Frame, layout: Layout) -> str:
    """The caption of the scatter plot."""
    color = f"Color and marker: {layout.color.title}." if layout.color else ""
    zero = "Gray band: exactly zero (underflow)." if np.isneginf(table["gradient_ratio_log10"]).any() else ""
    return _join(
        f"A point per run at its cell's selected learning rate ({len(table)} runs that finished).",
        color,
        f"Dashed: chance + 10 points ({100 * (tables.chance(info) + tables.MARGIN):.0f} %), below which a cell counts as "
        f"untrainable. Solid: the first layer receives as much gradient as the last hidden one.",
        zero,
    )


def trainability(info: Info, table: Frame) -> str:
    """The caption of the map over sigma_w2 and depth."""
    floor = 100 * (tables.chance(info) + tables.MARGIN)
    unknown = table["train_accuracy"].isna()
    no_line = (
        "The line is missing where the second moment has no fixed point."
        if table["bound"].isna().any()
        else ""
    )
    return _join(
        "Mean training accuracy over the seeds that finished, at the learning rate that validation chose for the cell. "
        f"Dashed: {LENGTHS} times the depth scale of the correlation of two inputs in mean-field theory; it is computed, "
        "not fitted. Networks are said to train below it (Schoenholz et al. 2017, section 5); the factor is empirical and "
        "moves with the number of steps.",
        f"Hatched: untrainable, as in the accuracy map (mean test accuracy below {floor:.0f} %, or every run diverged).",
        "Gray without a hatch: not finished." if (unknown & (table["verdict"] == "")).any() else "",
        no_line,
    )


def singular_values(info: Info, table: Frame) -> str:
    """The caption of the histograms of singular values."""
    cells = table.drop_duplicates(tables.keys(info))
    seeds = int(cells["n"].max())
    shown = f"The first {PANELS} of {len(cells)} cells; the table holds all." if len(cells) > PANELS else ""
    linear = (
        "Dashed: wide linear networks of as many kernels as lie between the first and the last hidden layer."
    )
    unresolved = (
        "Unresolved: below 1e-6 of a network's largest, where errors of float32 pile up; they are in no bar."
    )
    return _join(
        "Singular values of the Jacobian at initialization, "
        f"{'of one network' if seeds == 1 else f'of {seeds} networks'} each, on scales of their own. Bars: their density "
        "by decade.",
        linear if table["predicted"].notna().any() else "",
        unresolved if (cells["lost"] > 0).any() else "",
        shown,
    )


def alternative(title: str, layout: Layout | None) -> str:
    """A text for those who don't see the figure."""
    if layout is None:
        return f"{title}. The table file of the same name holds the numbers."
    count = len(layout.panels())
    panels = f" in {count} panels" if count > 1 else ""
    colors = (
        f", a line for each {layout.color.title}: {', '.join(layout.color.labels)}" if layout.color else ""
    )
    return f"{title}{panels}{colors}. The table file of the same name holds the numbers."
