"""What gathers between two records, and how many steps a compiled call takes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnnjax.training.step import StepMetrics

CALL_SECONDS = 1.0
"""How long a compiled call should take: so often the live line moves, and Ctrl-C is heard."""
MEANS = ("loss", "accuracy", "gradient_norm")


class Pace:
    """How many steps the next call takes, from the time that the last ones took. It never changes a number.

    Args:
      most: steps of a call.
      fixed: always take the most, as several processes must, which have to agree.
    """

    def __init__(self, most: int, *, fixed: bool = False) -> None:
        self._most, self._fixed = most, fixed
        self.steps = most if fixed else 1

    def took(self, steps: int, seconds: float) -> None:
        """Takes note of a call. What compiles in the first one makes the next ones short."""
        if self._fixed:
            return
        wanted = round(steps * CALL_SECONDS / max(seconds, 1e-6))
        self.steps = int(np.clip(wanted, 1, min(4 * self.steps, self._most)))


@dataclasses.dataclass
class Pending:
    """The metrics of the steps since the last record.

    Attributes:
      columns: a list for each of `MEANS`.
      skipped: steps whose update was left out.
      seconds: that they took.
      waited: seconds of these in which there was no batch.
    """

    columns: dict[str, list[float]] = dataclasses.field(default_factory=lambda: {name: [] for name in MEANS})
    skipped: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def add(self, metrics: StepMetrics, seconds: float, waited: float) -> None:
        """Adds the steps of a call, arrays `(steps,)`; those that were left out count in no mean."""
        for name, column in self.columns.items():
            column += np.asarray(getattr(metrics, name), np.float64)[metrics.finite].tolist()
        self.skipped += int(np.sum(~metrics.finite))
        self.seconds += seconds
        self.waited += waited

    def latest(self, steps: int) -> dict[str, float]:
        """Means over the last steps, and the speed since the last record."""
        means = {name: float(np.mean(column[-steps:])) for name, column in self.columns.items() if column}
        return {**means, "input_wait": self.waited / max(self.seconds, 1e-9)}

    def record(self, batch_size: int) -> dict[str, Any]:
        """What a record says of all of them."""
        images = (len(self.columns["loss"]) + self.skipped) * batch_size
        seconds = max(self.seconds, 1e-9)
        return {
            **{name: float(np.mean(column)) for name, column in self.columns.items() if column},
            "skipped": self.skipped,
            "seconds": self.seconds,
            "images_per_second": images / seconds,
            "input_wait": self.waited / seconds,
        }

    def kept(self) -> dict[str, Any]:
        """As JSON, for a checkpoint between two records."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> "Pending":
        """The inverse of `kept`."""
        return cls(**kept)
