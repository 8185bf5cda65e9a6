"""The answer in a paragraph, written from the tables: every number in it can be counted there."""

import math

from cnnjax.frame import Column, Frame, Info
from cnnjax.report import tables
from cnnjax.report.tables import Axis

__all__ = ["paragraph", "size"]

# Longer lists of values are cut to the best and the worst of them.
LISTED = 6


def _count(number: int, noun: str) -> str:
    if number == 1:
        return f"1 {noun}"
    if noun[-1].isdigit():
        return f"{number} values of {noun}"
    ending = "ies" if noun.endswith("y") else "es" if noun.endswith(("s", "x", "ch")) else "s"
    return f"{number} {noun[:-1] if noun.endswith('y') else noun}{ending}"


def size(info: Info, runs: Frame) -> str:
    """The extent of the study, as `48 cells (3 activations × 4 architectures), 3 seeds, 2 learning rates: 288 runs`."""
    grid = " × ".join(_count(len(axis.labels), axis.title) for axis in tables.axes(info))
    cells = _count(int(runs["cell"].nunique()), "cell")
    parts = [f"{cells} ({grid})" if grid else cells, _count(len(info["seeds"]), "seed")]
    if len(info["learning_rates"]) > 1:
        parts.append(_count(len(info["learning_rates"]), "learning rate"))
    return f"{', '.join(parts)}: {_count(len(runs), 'run')}"


def _place(info: Info, cell: Column) -> str:
    return ", ".join(axis.text(cell[axis.name]) for axis in tables.axes(info))


def _reached(info: Info, cell: Column) -> str:
    """A cell's test accuracy, its spread over seeds, and which cell it is."""
    mean, spread = 100 * cell["test_accuracy"], 100 * cell["test_accuracy_sd"]
    text = f"{mean:.1f} %" if math.isnan(spread) else f"{mean:.1f} ± {spread:.1f} %"
    place = f"{_place(info, cell)}; " if tables.axes(info) else ""
    return f"{text} ({place}n = {cell['seeds']})"


def _verbs(known: Frame) -> str:
    counts = known["flow"].value_counts()
    vanishing, exploding, broken = (counts.get(flow, 0) for flow in tables.FLOWS[1:])
    if broken:
        return f", vanishes in {vanishing}, explodes in {exploding} and is not finite in {broken}"
    return f", vanishes in {vanishing} and explodes in {exploding}"


def _flow(cells: Frame) -> str:
    """How many cells keep the gradient alive."""
    known = cells[cells["flow"] != ""]
    if known.empty:
        return "No cell has been initialized yet."
    stable = int((known["flow"] == "stable").sum())
    so_far = " initialized so far" if len(known) < len(cells) else ""
    return (
        f"At initialization the gradient reaches the first layer at a stable scale in {stable} of "
        f"{_count(len(known), 'cell')}{so_far}{_verbs(known)}."
    )


def _shares(axis: Axis, margins: Frame) -> Frame:
    own = margins[(margins["axis"] == axis.title) & (margins["cells"] > 0)]
    return own.assign(share=own["stable"] / own["cells"])


def _values(shares: Frame, *, numeric: bool) -> str:
    ordered = shares if numeric else shares.sort_values("share", ascending=False, kind="stable")
    texts = [f"{row['value']}: {row['stable']} of {row['cells']}" for _, row in ordered.iterrows()]
    if len(texts) <= LISTED:
        return "; ".join(texts)
    return "; ".join(texts[:3]) + "; …; " + "; ".join(texts[-3:])


def _axes(info: Info, margins: Frame) -> str:
    """The two axes along which the share of stable cells differs most."""
    ranked = []
    for axis in tables.axes(info):
        shares = _shares(axis, margins)
        spread = shares["share"].max() - shares["share"].min() if len(shares) else 0.0
        if spread > 0:
            ranked.append((spread, f"{axis.title} ({_values(shares, numeric=axis.numeric)})"))
    ranked.sort(key=lambda item: -item[0])
    if not ranked:
        return "No axis changes how many cells are stable." if tables.axes(info) else ""
    then = f", then by {ranked[1][1]}" if len(ranked) > 1 else ""
    return f"The share of stable cells differs most by {ranked[0][1]}{then}."


def _magnitude(ratio: float) -> str:
    if abs(ratio) < 0.05:
        return "the size of the last hidden layer's"
    return f"{abs(ratio):.1f} orders of magnitude {'below' if ratio < 0 else 'above'} the last hidden layer's"


def _range(info: Info, cells: Frame) -> str:
    """The ends of the gradient ratio over the cells."""
    known = cells[cells["gradient_ratio_log10"].notna()]
    if known.empty:
        return ""
    zeros = int((known["gradient_ratio_log10"] == -math.inf).sum())
    low = known.loc[known["gradient_ratio_log10"].idxmin()]
    high = known.loc[known["gradient_ratio_log10"].idxmax()]
    start = "The first layer's mean squared gradient (with respect to pre-activations, median over seeds)"
    if zeros == len(known):
        return f"{start} underflows to zero in every cell."
    end = _magnitude(high["gradient_ratio_log10"])
    if len(known) == 1:
        return f"{start} is {end}."
    if _magnitude(low["gradient_ratio_log10"]) == end and not zeros:
        return f"{start} is {end} in every cell."
    least = (
        f"zero (underflow, in {_count(zeros, 'cell')})" if zeros else _magnitude(low["gradient_ratio_log10"])
    )
    where = "" if zeros else f" ({_place(info, low)})"
    return f"{start} ranges from {least}{where} to {end} ({_place(info, high)})."


def _accuracy(info: Info, cells: Frame) -> str:
    """The best and the worst cell after training."""
    known = cells[cells["test_accuracy"].notna()]
    if known.empty:
        return "No accuracy is known yet."
    best, worst = (known.loc[known["test_accuracy"].agg(end)] for end in ("idxmax", "idxmin"))
    rate = "at the learning rate that validation chose" if len(info["learning_rates"]) > 1 else ""
    start = f"After {info['steps']:,} training steps {rate}".rstrip()
    if len(known) == 1:
        return f"{start}, the test accuracy is {_reached(info, best)}."
    return (
        f"{start}, mean test accuracy per cell runs from {_reached(info, worst)} to {_reached(info, best)}."
    )


def _failures(info: Info, cells: Frame, runs: Frame) -> str:
    """Untrainable cells and diverged runs."""
    judged = cells[cells["verdict"] != ""]
    failed = int((judged["verdict"] == "untrainable").sum())
    done = int((runs["status"] != "unfinished").sum())
    diverged = int((runs["status"] == "diverged").sum())
    memory = int((runs["status"] == "out of memory").sum())
    floor = 100 * (tables.chance(info) + tables.MARGIN)
    rates = ", all learning rates counted" if len(info["learning_rates"]) > 1 else ""
    out = f"; out of memory: {memory}" if memory else ""
    return (
        f"Untrainable (mean test accuracy below {floor:.0f} %, which is chance + 10 points, or every run diverged): "
        f"{failed} of {_count(len(judged), 'cell')}. Diverged: {diverged} of {_count(done, 'run')}{rates}{out}."
    )


def _agreement(cells: Frame) -> str:
    """How often flow at initialization and trainability say the same, with the counts of either kind."""
    counts = tables.agreement(cells)
    total = int(counts.to_numpy().sum())
    if not total:
        return ""
    stable, other = counts.loc["stable"], counts.loc[[*tables.FLOWS[1:]]].sum()
    unstable = (
        "vanishing, exploding or not finite" if counts.loc["not finite"].any() else "vanishing or exploding"
    )
    same = int(stable["trainable"] + other["untrainable"])
    parts = [
        f"{int(row['trainable'])} of {int(row.sum())} {words} cells trained"
        for row, words in ((stable, "stable"), (other, unstable))
        if row.sum()
    ]
    return (
        f"Flow at initialization and trainability are different things: {' and '.join(parts)}, so the two agree in "
        f"{same} of {total} ({100 * same / total:.0f} %)."
    )


def _spread(info: Info) -> str:
    if len(info["seeds"]) == 1:
        return "There is one seed, so nothing is said about the spread between seeds."
    if not info["steps"]:
        return "These are counts over this grid, not effects of a single cause."
    return "± is the standard deviation over seeds; the counts describe this grid and are not effects of a single cause."


def paragraph(info: Info, runs: Frame) -> list[str]:
    """The sentences of the answer: gradient flow at initialization, what training reached, how far the two agree."""
    cells = tables.cells(info, runs)
    margins = tables.margins(info, cells)
    sentences = [_flow(cells), _axes(info, margins), _range(info, cells)]
    if info["steps"]:
        sentences += [_accuracy(info, cells), _failures(info, cells, runs), _agreement(cells)]
    else:
        sentences.append("Nothing was trained: this study looks at initialization only.")
    return [sentence for sentence in [*sentences, _spread(info)] if sentence]
