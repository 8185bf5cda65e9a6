"""A claim, where it is tested, and its verdict."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from cnnjax import models
from cnnjax.frame import Info
from cnnjax.functional.names import lookup
from cnnjax.study.claims.results import ALL_CELLS, Results, lost_cells
from cnnjax.study.claims.verdict import Measurement, NotTested, Verdict
from cnnjax.study.labels import label

if TYPE_CHECKING:
    from cnnjax.study.config import Study

RuleFunction: TypeAlias = Callable[[Results], Measurement]

SETTINGS = (
    "learning_rates",
    "model",
    "optimizer",
    "schedule",
    "steps",
    "batch_size",
    "record_every",
    "subset",
)
"""Fields of a study that `Where` knows besides the model's options."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where a claim is tested at all; elsewhere a number would say nothing about it.

    Attributes:
      seeds: how many at least.
      data: on which sets; empty: on any.
      at_least: settings of the study or options of its model that must not be smaller, as {"steps": 240, "width": 16}.
        Of learning_rates it is the number that counts. None is no limit, as of a subset, and passes.
      exactly: settings or options that must be equal, as {"padding": "CIRCULAR"}.
    """

    seeds: int = 3
    data: Sequence[str] = ()
    at_least: Mapping[str, float] = dataclasses.field(default_factory=dict)
    exactly: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.data, str):
            raise TypeError(f"data must be a list of names; got {self.data!r}: write [{self.data!r}]")
        if not isinstance(self.seeds, int) or self.seeds < 1:
            raise ValueError(f"seeds must be a number of seeds, 1 or more; got {self.seeds!r}")

    def check(self, study: "Study") -> None:
        """Raises ValueError for a setting that the study does not have, or that is an axis of its grid."""
        for name in (*self.at_least, *self.exactly):
            if name in study.grid:
                raise ValueError(
                    f"{name!r} is an axis of the grid: say which values in the cells of the rule"
                )
            value = _setting(study.as_config(), name)
            if name in self.at_least and not isinstance(value, int | float | None):
                raise ValueError(f"{name!r} is not a number but {value!r}: take exactly instead of at_least")

    def reason(self, info: Info) -> str:
        """Why a claim is not tested in a study with that study.json; empty where it is."""
        config, reasons = info["config"], []
        if len(info["seeds"]) < self.seeds:
            reasons.append(f"too few seeds: {len(info['seeds'])}, tested with {self.seeds} or more")
        if self.data and info["data"] not in self.data:
            reasons.append(f"other data: {info['data']}, tested on {' or '.join(self.data)}")
        for name, least in self.at_least.items():
            value = _setting(config, name)
            if value is not None and not value >= least:
                reasons.append(f"other scale: {name} = {value}, tested from {least:g} on")
        for name, wanted in self.exactly.items():
            value = _setting(config, name)
            if label(value) != label(wanted):
                reasons.append(f"other setting: {name} = {label(value)}, tested at {label(wanted)}")
        return "; ".join(reasons)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Something that was claimed, and how a study's tables tell whether it holds.

    Attributes:
      name: short, of its own within a study.
      statement: what was claimed, in a sentence.
      source: who says so and where, as "He et al. 2015, figure 3".
      rule: a function of `Results` that returns a `Measurement` or raises `NotTested`; `level` and others make one.
      printed: the published number, or a text such as "6.61 ± 0.16"; None where none was.
      where: it is tested.
      excluded: why it cannot be tested in this study, whatever its tables say; `Study.replace` sets it.
    """

    name: str
    statement: str
    source: str
    rule: RuleFunction
    printed: float | str | None = None
    where: Where = Where()
    excluded: str = ""

    def __post_init__(self) -> None:
        for field in ("name", "statement", "source"):
            if not isinstance(getattr(self, field), str) or not getattr(self, field).strip():
                raise ValueError(f"a claim needs a {field}, a text; got {getattr(self, field)!r}")
        if not callable(self.rule):
            raise TypeError(
                f"the rule of claim {self.name!r} must be a function of Results, as level(...) makes; got {self.rule!r}"
            )
        if not isinstance(self.where, Where):
            raise TypeError(f"where of claim {self.name!r} must be a Where(...); got {self.where!r}")

    @property
    def criterion(self) -> str:
        """What has to hold, in the rule's own words; of a function of your own the first line of its docstring."""
        documented = (
            (inspect.getdoc(self.rule) or "").partition("\n")[0] if inspect.isfunction(self.rule) else ""
        )
        return getattr(self.rule, "criterion", documented)

    def check(self, study: "Study") -> None:
        """Raises ValueError where the study lacks what the claim is about, as far as that can be known before."""
        try:
            self.where.check(study)
            check = getattr(self.rule, "check", None)
            if check is not None:
                check(study)
        except ValueError as error:
            raise ValueError(f"claim {self.name!r}: {error}") from error

    def carried(self, before: "Study", after: "Study") -> "Claim":
        """The claim for another version of its study: excluded where that lacks any of what the claim is about.

        A function of your own is about all cells.
        """
        if self.excluded:
            return self
        try:
            self.check(after)
            places = getattr(self.rule, "places", (ALL_CELLS,))
            lost = [labels for cells in places for labels in lost_cells(before, after, cells)]
        except ValueError as error:
            # The nearest name would be no help.
            what, _, _ = str(error.__cause__ or error).partition("; did you mean")
            return dataclasses.replace(self, excluded=what)
        words = [", ".join(f"{axis} {value}" for axis, value in labels.items()) for labels in lost[:1]]
        return dataclasses.replace(self, excluded=f"no {words[0]}") if lost else self

    def reason(self, info: Info) -> str:
        """Why it is not tested in a study with that study.json; empty where it is."""
        unfinished = "" if info["finished"] else "unfinished"
        lacks = f"other scale: this version of the study lacks what the claim is about ({self.excluded})"
        return unfinished or (lacks if self.excluded else "") or self.where.reason(info)

    def judge(self, results: Results) -> Verdict:
        """The verdict.

        Raises:
          ValueError: the rule asks for a column, an axis or a value that does not exist, or fails otherwise.
          TypeError: the rule returns something else than a `Measurement`.
        """
        if reason := self.reason(results.info):
            return self.untested(reason)
        try:
            measurement = self.rule(results)
        except NotTested as reason:
            return self.untested(str(reason))
        except Exception as error:
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise ValueError(f"claim {self.name!r}: {kind}{error}") from error
        if not isinstance(measurement, Measurement):
            raise TypeError(
                f"the rule of claim {self.name!r} must return a Measurement; got {type(measurement).__name__}"
            )
        return self._judged(measurement)

    def untested(self, reason: str) -> Verdict:
        """The verdict "not tested"."""
        return self._verdict(verdict="not tested", note=reason)

    def _judged(self, measurement: Measurement) -> Verdict:
        found = measurement.estimate
        # A comparison with NaN is False, which an "every" of nothing would turn into agreement.
        if found.value != found.value or found.n < 1:
            return self.untested("the rule found no number")
        if found.n < self.where.seeds:
            few = f"too few seeds: {found.n}, tested with {self.where.seeds} or more"
            return self._verdict(verdict="not tested", note=few, estimate=found)
        words = {True: "agree", False: "disagree", None: "not tested"}
        agrees = None if measurement.agrees is None else bool(measurement.agrees)
        return self._verdict(verdict=words[agrees], note=measurement.note, estimate=found)

    def _verdict(self, **fields: Any) -> Verdict:
        own = {name: getattr(self, name) for name in ("name", "statement", "source", "printed", "criterion")}
        return Verdict(**own, **fields)


def check_claims(study: "Study") -> None:
    """Raises ValueError for a claim about what the study has not, or a name that is there twice; TypeError for others."""
    names = []
    for claim in study.claims:
        if not isinstance(claim, Claim):
            raise TypeError(f"claims of study {study.name!r} must be a list of Claim(...); got {claim!r}")
        if claim.name in names:
            raise ValueError(f"study {study.name!r} has two claims called {claim.name!r}: name them apart")
        names.append(claim.name)
        if not claim.excluded:
            claim.check(study)


def pending(claims: Sequence[Claim], info: Info) -> list[Verdict]:
    """The verdicts before a study is finished."""
    return [claim.untested(claim.reason(info)) for claim in claims]


def evaluate(claims: Sequence[Claim], results: Results) -> list[Verdict]:
    """The verdicts on a study's tables.

    Raises:
      ValueError, TypeError: as `Claim.judge`.
    """
    return [claim.judge(results) for claim in claims]


def _setting(config: Mapping[str, Any], name: str) -> Any:
    """A field of a study, or an option of its model, the model's own where the study does not set it."""
    if name in SETTINGS:
        return len(config[name]) if name == "learning_rates" else config[name]
    options = {**models.options(config["model"]), **config["options"]}
    return lookup(
        {**dict.fromkeys(SETTINGS), **options}, name, f"setting of a study or option of {config['model']}"
    )
