"""How the metrics of an evaluation are called, whatever kind of labels it is of."""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["PER_CLASS", "SHARES", "percent", "shares"]

SHARES = {
    "accuracy": "accuracy",
    "top5": "top-5 accuracy",
    "exact_match": "exact match",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "mean_average_precision": "mean average precision",
    "calibration_error": "calibration error",
}
"""Those that are shares of 1, in the order in which they are told."""
PER_CLASS = ("class_accuracy", "class_average_precision")
"""Those that are told of each class, as far as there are such."""


def shares(found: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    """The names and values of those that an evaluation has; None for what had nothing to divide by."""
    return ((title, found[name]) for name, title in SHARES.items() if name in found)


def percent(value: float | None) -> str:
    """A share in percent, with two digits behind the point."""
    return "–" if value is None else f"{value:.2%}"
