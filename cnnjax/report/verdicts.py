"""The verdicts on a study's claims: the words and marks that terminal, page and file share."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cnnjax.study.claims import Verdict
from cnnjax.study.statistics import Estimate

__all__ = ["MARKS", "Texts", "frame", "summary", "texts"]

MARKS = {"agree": "✓", "disagree": "✗", "not tested": "○"}
"""Different shapes, so that nothing hangs on color."""


@dataclass(frozen=True)
class Texts:
    """What is written of a verdict besides its claim's own words.

    Attributes:
      mark: its shape.
      ours: the study's number and its interval.
      count: over how many seeds, as "n = 5", and what else the number is than a mean with its 95 % interval.
      printed: the published number.
      note: why it was not tested, or what to know besides.
    """

    mark: str
    ours: str
    count: str
    printed: str
    note: str


def texts(verdict: Verdict) -> Texts:
    """The texts of one verdict; a dash stands for a number that there is not."""
    printed = "–" if verdict.printed is None else _signed(_number(verdict.printed))
    return Texts(MARKS[verdict.verdict], *_ours(verdict.estimate), printed, _signed(verdict.note))


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many claims got which verdict, as `3 claims: 2 agree, 1 not tested`."""
    counts = Counter(verdict.verdict for verdict in verdicts)
    parts = [f"{counts[word]} {word}" for word in MARKS if counts[word]]
    return f"{len(verdicts)} claim{'s' if len(verdicts) != 1 else ''}: {', '.join(parts)}"


def frame(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """A row for each claim: verdict, the study's number with its interval, and the claim's own words."""
    columns = ("value", "low", "high", "confidence", "n", "statistic", "method")
    rows = [
        {
            "claim": verdict.name,
            "verdict": verdict.verdict,
            **{name: getattr(verdict.estimate, name, None) for name in columns},
            "printed": verdict.printed,
            "source": verdict.source,
            "statement": verdict.statement,
            "criterion": verdict.criterion,
            "note": verdict.note,
        }
        for verdict in verdicts
    ]
    return pd.DataFrame(rows).astype({"n": "Int64"})


def _ours(estimate: Estimate | None) -> tuple[str, str]:
    """A number with its interval, and what it is of."""
    if estimate is None:
        return "–", ""
    number, _, count = _signed(str(estimate)).partition(" (")
    other = estimate.statistic if estimate.statistic != "mean" else ""
    usual = estimate.low is None or estimate.confidence == 0.95
    interval = "" if usual else f"{100 * estimate.confidence:.4g} % interval"
    return number, ", ".join(part for part in (other, interval, count.removesuffix(")")) if part)


def _number(printed: float | str) -> str:
    return printed if isinstance(printed, str) else f"{printed:.4g}"


def _signed(text: str) -> str:
    """With minus signs instead of hyphens before numbers, but not in names or ranges."""
    return re.sub(r"(?<![\w-])-(?=[\d.]|inf)", "−", text)
