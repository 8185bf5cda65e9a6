"""A study: which networks are compared, on which data, how they are trained, and what is recorded."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from cnnjax.functional.names import lookup
from cnnjax.optim import Optimizer, Schedule, title
from cnnjax.study.claims.claim import Claim, check_claims

OPTIMIZERS: Mapping[str, Optimizer] = MappingProxyType(
    {
        "sgd": Optimizer(),
        "momentum": Optimizer(options={"momentum": 0.9}),
        "nesterov": Optimizer(options={"momentum": 0.9, "nesterov": True}),
        "adam": Optimizer(name="adam"),
        # Optax's own, which draws everything to zero.
        "adamw": Optimizer(name="adam", weight_decay=1e-4, decays={"**": 1.0}),
        "rmsprop": Optimizer(name="rmsprop"),
        "lamb": Optimizer(name="lamb"),
        "lion": Optimizer(name="lion"),
        "muon": Optimizer(name="muon"),
    }
)
"""The optimizers that a study may call by a name."""

SCHEDULES: Mapping[str, Schedule] = MappingProxyType(
    {
        name: Schedule(name=name)
        for name in ("constant", "cosine", "linear", "polynomial", "exponential", "one_cycle")
    }
)
"""The schedules of the learning rate that a study may call by a name."""

TRAINING_AXES = ("batch_size", "optimizer", "schedule", "learning_rate")
"""Grid axes that are fields of the study; every other axis is "model" or an option of the model."""

Axis = Sequence[Any] | Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """An ablation study: every cell of a grid, trained from several seeds at several learning rates.

    An axis of the grid is "model", an option of the model, or one of `TRAINING_AXES`, with its values; or it is a
    name of your own, with named variants that set several of these at once:

        grid={"activation": ["relu", "tanh"], "architecture": {"plain": {"skip": False}, "residual": {"skip": True}}}

    Attributes:
      name: of the study and its folder.
      question: one sentence, shown above the answer.
      grid: axes and their values; the cells are their product.
      model: a name in `models.names()`.
      options: of the model, the same in every cell that does not set them.
      seeds: how many, or which; a seed decides the initial parameters and the order of the batches.
      learning_rates: tried in every cell; the best on the validation split, by mean accuracy over the seeds, is the
        selected one.
      optimizer: a name in `OPTIMIZERS`, or a `cnnjax.optim.Optimizer`, whose fields say all there is to say.
      schedule: a name in `SCHEDULES`, or a `cnnjax.optim.Schedule`, as one with a warm-up.
      steps: of training; 0 records the networks at initialization only.
      batch_size: examples a step.
      record_every: steps of one compiled call, at whose first step the layers are recorded (and at the very last one).
      data: a name that `data.load` knows.
      subset: number of training examples to use; None for all.
      description: what the page says below the question.
      papers: sources, shown on the page.
      measures: functions by name, evaluated for every network at initialization on its first batch:
        `measure(model, variables, images, labels, key)` is a number, which becomes a column of the table of runs, or a
        vector. The table of measures holds both.
      quick: fields that `--quick` replaces.
      claims: judged when the study ends; they do not decide its numbers.
    """

    name: str
    question: str
    grid: Mapping[str, Axis]
    model: str = "plain"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: int | Sequence[int] = 3
    learning_rates: Sequence[float] = (0.1,)
    optimizer: str | Optimizer = "momentum"
    schedule: str | Schedule = "constant"
    steps: int = 200
    batch_size: int = 64
    record_every: int = 25
    data: str = "digits"
    subset: int | None = None
    description: str = ""
    papers: Sequence[str] = ()
    measures: Mapping[str, Callable[..., Any]] = dataclasses.field(default_factory=dict)
    quick: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    claims: Sequence[Claim] = ()

    def __post_init__(self) -> None:
        if not self.grid or any(_count(values) == 0 for values in self.grid.values()):
            raise ValueError(
                f"the grid of study {self.name!r} is empty: give every axis a value; got {dict(self.grid)}"
            )
        for axis, values in self.grid.items():
            listed = list(values) if isinstance(values, Mapping) else values
            _check_list(f"axis {axis!r} of the grid", listed)
        _check_list("learning_rates", self.learning_rates, number=lambda rate: 0 < rate < float("inf"))
        if isinstance(self.seeds, bool) or not isinstance(self.seeds, int):
            _check_list("seeds", self.seeds, number=lambda seed: seed in range(2**32))
        if not self.seed_list or not self.learning_rates:
            raise ValueError(
                f"study {self.name!r} needs a seed and a learning rate; got {self.seeds!r}, {self.learning_rates!r}"
            )
        named_optimizer(self.optimizer)
        named_schedule(self.schedule)
        self._check_steps()
        for name in self.quick:
            lookup({f.name: None for f in dataclasses.fields(self)}, name, "field of a study, in quick,")
        check_claims(self)

    def _check_steps(self) -> None:
        for name in ("steps", "batch_size", "record_every"):
            if not isinstance(getattr(self, name), int):
                raise TypeError(f"{name} must be an integer; got {getattr(self, name)!r}")
        if self.steps < 0 or self.batch_size < 1 or self.record_every < 1:
            raise ValueError(
                "steps must be 0 or more, batch_size and record_every 1 or more; got "
                f"{self.steps}, {self.batch_size} and {self.record_every}"
            )
        if self.steps % self.record_every:
            below = self.steps // self.record_every * self.record_every
            raise ValueError(
                f"steps={self.steps} is not a multiple of record_every={self.record_every}: take {below} or "
                f"{below + self.record_every} steps, or another record_every"
            )

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds themselves: `seeds` if they were listed, else 0, 1, ..."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds)

    def replace(self, **fields: Any) -> "Study":
        """A copy with other values of some fields.

        Claims about cells or training that the copy lacks stay in it, excluded from testing; claims that are given anew
        are checked like those of any study.
        """
        if "claims" in fields:
            return dataclasses.replace(self, **fields)
        copy = dataclasses.replace(self, **fields, claims=())
        return dataclasses.replace(copy, claims=tuple(claim.carried(self, copy) for claim in self.claims))

    def as_config(self) -> dict[str, Any]:
        """Everything that decides the numbers, as JSON values: two studies with equal ones give equal tables.

        Of a function only its name and what it was made with are seen, not its code.
        """
        words = ("question", "description", "papers", "quick", "claims", "seeds")
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in words}
        return _plain({**fields, "seeds": self.seed_list})


def named_optimizer(value: str | Optimizer) -> Optimizer:
    """An optimizer, if need be by its name in `OPTIMIZERS`.

    Raises:
      ValueError: an unknown name (with the nearest).
    """
    return value if isinstance(value, Optimizer) else lookup(OPTIMIZERS, value, "optimizer")


def named_schedule(value: str | Schedule) -> Schedule:
    """A schedule, if need be by its name in `SCHEDULES`.

    Raises:
      ValueError: an unknown name (with the nearest).
    """
    return value if isinstance(value, Schedule) else lookup(SCHEDULES, value, "schedule")


def _count(values: Any) -> int:
    """The number of values of an axis; 1 for what is no list, which `_check_list` names."""
    return len(values) if isinstance(values, Sequence | Mapping) else 1


def _check_list(name: str, values: Any, *, number: Callable[[Any], bool] | None = None) -> None:
    """Raises TypeError unless `values` is a list, ValueError for a value that is there twice or is out of range."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{name} must be a list of values; got {values!r}: write [{values!r}]")
    twice = [value for i, value in enumerate(values) if value in list(values[:i])]
    if twice:
        raise ValueError(f"{name} has {twice[0]!r} twice; got {list(values)}")
    for value in values:
        if number is not None and (isinstance(value, str) or not number(value)):
            raise ValueError(f"{name} has a value out of range: {value!r}; got {list(values)}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    if getattr(value, "__name__", "") == "<lambda>":
        raise TypeError("a lambda cannot be told from another one when a study goes on: write it with def")
    return _described(value)


def _described(value: Any) -> str:
    """A value in words; of a function its name and what it was made with, `orthogonal.<locals>.initialize(gain=2.0)`."""
    if isinstance(value, Optimizer | Schedule):
        return title(value)
    if not inspect.isfunction(value):
        return getattr(value, "__qualname__", None) or repr(value)
    made_with = sorted(inspect.getclosurevars(value).nonlocals.items())
    values = ", ".join(f"{name}={_described(inner)}" for name, inner in made_with)
    return f"{value.__qualname__}({values})" if values else value.__qualname__
