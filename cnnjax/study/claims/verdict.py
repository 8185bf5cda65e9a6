"""What becomes of a claim: a measurement, and the verdict that is stored and shown."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cnnjax.study.statistics import Estimate

Word = Literal["agree", "disagree", "not tested"]


class NotTested(Exception):
    """Raised by a rule: why a claim cannot be tested on these tables."""


@dataclass(frozen=True)
class Measurement:
    """What a rule found.

    Attributes:
      estimate: the number, its interval, and over how many seeds.
      agrees: whether it is as claimed; None where the interval decides for neither, which `note` explains.
      note: what to know besides, as "lowest 0.91".
    """

    estimate: Estimate
    agrees: bool | None
    note: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.estimate, Estimate):
            raise TypeError(
                f"a measurement takes an Estimate, as statistics.mean returns; got {type(self.estimate).__name__}"
            )
        # NumPy's comparisons return their own booleans.
        if self.agrees is not None and str(self.agrees) not in ("True", "False"):
            raise TypeError(f"agrees must be True, False or None; got {self.agrees!r}")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A claim, judged.

    Attributes:
      name, statement, source, printed: of the claim.
      verdict: "agree", "disagree" or "not tested".
      note: the reason where it was not tested, else what to know besides.
      criterion: what has to hold for "agree".
      estimate: the study's number; None where there is none.
    """

    name: str
    statement: str
    source: str
    printed: float | str | None
    verdict: Word
    note: str = ""
    criterion: str = ""
    estimate: Estimate | None = None

    def as_json(self) -> dict[str, Any]:
        """As JSON values; an infinite number is a string."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if self.estimate is not None:
            numbers = dataclasses.asdict(self.estimate)
            fields["estimate"] = {name: _finite(value) for name, value in numbers.items()}
        return fields | {"printed": _finite(self.printed)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Verdict":
        """The inverse of `as_json`."""
        numbers = fields["estimate"]
        if numbers is None:
            return cls(**fields)
        ends = {name: None if numbers[name] is None else float(numbers[name]) for name in ("low", "high")}
        estimate = Estimate(**{**numbers, **ends, "value": float(numbers["value"])})
        return cls(**{**fields, "estimate": estimate})


def _finite(value: Any) -> Any:
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value
