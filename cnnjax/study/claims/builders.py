"""The rules that papers need, one call each; `rules` says how they decide."""

import functools
import math
from typing import Literal

from cnnjax.study.claims.metrics import Metric, metric_of
from cnnjax.study.claims.results import Cells
from cnnjax.study.claims.rules import By, Level, Ordering, Paired, Range, Rule


def level(
    metric: Metric | str,
    cells: Cells,
    *,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    by: By = "every seed",
    diverged: float | None = None,
) -> Rule:
    """A metric of some cells is at least, at most, or between two numbers, these included.

    By "every seed" every run of every one of these cells has to; otherwise the mean over the cells, seed by seed.

    Args:
      metric: a column of the table of runs, or a metric.
      cells: values of axes (a list: any of them), or a function of a cell's labels.
      at_least, at_most: the ends, in the metric's unit.
      by: whose numbers decide: those of "every seed", the "interval" of the mean, or the "mean" alone; see `rules`.
      diverged: what a diverged run counts as, as the accuracy of chance; None: the claim is not tested then.

    Raises:
      ValueError: no ends, an unknown column or way to decide.
    """
    return Rule(Level(metric_of(metric), cells, diverged), Range(at_least, at_most), by)


def near(metric: Metric | str, cells: Cells, predicted: float, *, within: float, by: By = "interval") -> Rule:
    """A metric of some cells is what theory predicts, up to a relative tolerance.

    Args:
      metric: as `Rate("gradient_log10_second_moment")`.
      cells: as for `level`.
      predicted: not 0.
      within: share of the prediction by which it may be off, as 0.03.
      by: as for `level`.

    Raises:
      ValueError: a prediction of 0 or not finite, or a tolerance that is not positive.
    """
    if not (math.isfinite(predicted) and predicted != 0 and within > 0):
        raise ValueError(
            f"near takes a finite prediction other than 0 and a positive tolerance; got {predicted!r}, {within!r}: "
            "around 0 take level(at_least=, at_most=)"
        )
    slack = within * abs(predicted)
    return level(metric, cells, at_least=predicted - slack, at_most=predicted + slack, by=by)


def difference(
    metric: Metric | str,
    cells: Cells,
    minus: Cells,
    *,
    above: float = -math.inf,
    below: float = math.inf,
    by: By = "interval",
    diverged: float | None = None,
) -> Rule:
    """A metric of some cells minus that of others, paired by seed, is above or below a number.

    Args: as for `level`; the ends are not included, so that no difference is not above 0.
    """
    quantity = _paired(metric, cells, minus, "difference", diverged)
    return Rule(quantity, Range(above, below, open=True), by)


def ratio(
    metric: Metric | str,
    cells: Cells,
    over: Cells,
    *,
    above: float = -math.inf,
    below: float = math.inf,
    by: By = "interval",
    diverged: float | None = None,
) -> Rule:
    """A metric of some cells over that of others, paired by seed, is above or below a number; as `difference`."""
    return Rule(_paired(metric, cells, over, "ratio", diverged), Range(above, below, open=True), by)


def equivalent(
    metric: Metric | str, cells: Cells, to: Cells, *, margin: float, diverged: float | None = None
) -> Rule:
    """A metric of two sets of cells, paired by seed, differs by less than a margin: two one-sided tests at 5 % each.

    That is the 90 % interval of the difference within the margin (Schuirmann 1987).
    """
    quantity = _paired(metric, cells, to, "difference", diverged)
    return Rule(quantity, Range(-margin, margin, open=True), "interval", confidence=0.9)


def ordering(
    metric: Metric | str, *cells: Cells, confidence: float = 0.95, diverged: float | None = None
) -> Ordering:
    """A metric falls from each set of cells to the next: every paired difference is above 0, all intervals taken together.

    The number shown is the smallest one of these differences.

    Raises:
      ValueError: fewer than two sets of cells.
    """
    if len(cells) < 2:
        raise ValueError(f"an ordering takes two sets of cells or more, the largest first; got {len(cells)}")
    pairs = zip(cells, cells[1:], strict=False)
    steps = tuple(_paired(metric, first, second, "difference", diverged) for first, second in pairs)
    return Ordering(steps, confidence)


def _paired(
    metric: Metric | str,
    first: Cells,
    second: Cells,
    how: Literal["difference", "ratio"],
    diverged: float | None,
) -> Paired:
    make = functools.partial(Level, metric_of(metric), diverged=diverged)
    return Paired(make(first), make(second), how)
