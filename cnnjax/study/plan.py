"""From a study to compiled programs: cells that share all static structure run in one program, on its run axis."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from cnnjax import models
from cnnjax.functional.names import lookup
from cnnjax.optim import Optimizer, Schedule
from cnnjax.study.config import TRAINING_AXES, Study, named_optimizer, named_schedule
from cnnjax.study.labels import label

NUMERIC_OPTIONS = ("gain", "bias_std")
"""Options of a model that are numbers on the run axis. (The initializer, too, only decides how a run starts.)"""


@dataclasses.dataclass(frozen=True)
class Run:
    """One network to train: a cell of the grid at one learning rate from one seed.

    Attributes:
      run, cell: numbers in the study's order.
      labels: the value (or the variant's name) of each axis of the grid.
      seed, learning_rate: of this run.
      initializer: the model's option, None for the model's own.
      numbers: the values of `NUMERIC_OPTIONS` that the cell sets.
    """

    run: int
    cell: int
    labels: Mapping[str, Any]
    seed: int
    learning_rate: float
    initializer: Any
    numbers: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Program:
    """What is compiled once: a network and how it is trained, without the numbers that differ from run to run."""

    number: int
    model: str
    options: Mapping[str, Any]
    optimizer: Optimizer
    schedule: Schedule
    batch_size: int
    runs: Sequence[Run]

    @property
    def title(self) -> str:
        """The model and its options in words; the number of classes goes without saying."""
        known = {name: value for name, value in self.options.items() if name != "num_classes"}
        options = (f"{name}={label(value) if callable(value) else value}" for name, value in known.items())
        return f"{self.model}({', '.join(options)})"

    def make_model(self, initializer: Any = None, **numbers: Any) -> models.Model:
        """The model, with an initializer and with numbers that may be traced."""
        chosen = {} if initializer is None else {"initializer": initializer}
        return models.create(self.model, **self.options, **chosen, **numbers)


def plan(study: Study) -> list[Program]:
    """The programs of a study, in the order of their first cells.

    Every cell's model is made once, so that a wrong option is an error here and not after an hour.

    Raises:
      ValueError: an axis, an option or a value that does not exist (with the nearest one).
    """
    groups: dict[str, tuple[dict[str, Any], list[Run]]] = {}
    numbers = itertools.count()
    for cell, (labels, settings) in enumerate(_cells(study)):
        static, initializer, numeric, rates = _split(study, settings)
        for rate, seed in itertools.product(rates, study.seed_list):
            run = Run(next(numbers), cell, labels, seed, float(rate), initializer, numeric)
            groups.setdefault(repr(static), (static, []))[1].append(run)
    programs = [
        Program(number=i, runs=tuple(runs), **static) for i, (static, runs) in enumerate(groups.values())
    ]
    for program in programs:
        for initializer in {repr(r.initializer): r.initializer for r in program.runs}.values():
            program.make_model(initializer)
    return programs


def _cells(study: Study) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(labels, settings) of each cell; a setting of a variant wins over an option of the study."""
    axes = []
    for axis, values in study.grid.items():
        if isinstance(values, Mapping):
            axes.append([({axis: name}, dict(settings)) for name, settings in values.items()])
        else:
            axes.append([({axis: label(value)}, {axis: value}) for value in values])
    _check_labels(axes)
    _check_overlap(axes)
    cells = []
    for combination in itertools.product(*axes):
        labels = {k: v for part, _ in combination for k, v in part.items()}
        settings = {k: v for _, part in combination for k, v in part.items()}
        cells.append((labels, settings))
    return cells


def _check_labels(axes: Sequence[Sequence[tuple[dict[str, Any], dict[str, Any]]]]) -> None:
    """Raises ValueError where two values of an axis would have the same name in the tables."""
    for values in axes:
        named = [item for part, _ in values for item in part.items()]
        if twice := [item for i, item in enumerate(named) if item in named[:i]]:
            axis, name = twice[0]
            raise ValueError(
                f"two values of the axis {axis!r} are both called {name!r}: name them yourself, "
                f"{axis!r}: {{'a name': {{{axis!r}: value}}, ...}}"
            )


def _check_overlap(axes: Sequence[Sequence[tuple[dict[str, Any], dict[str, Any]]]]) -> None:
    """Raises ValueError where two axes set the same thing: the label of one of them would lie."""
    owner: dict[str, str] = {}
    for values in axes:
        (axis,) = values[0][0]
        for name in {name for _, settings in values for name in settings}:
            if name in owner:
                raise ValueError(
                    f"the axes {owner[name]!r} and {axis!r} of the grid both set {name!r}: let one do it"
                )
            owner[name] = axis


def _split(
    study: Study, settings: dict[str, Any]
) -> tuple[dict[str, Any], Any, dict[str, float], Sequence[float]]:
    """What is static, the initializer, the numbers and the learning rates of one cell."""
    settings = dict(settings)
    model = settings.pop("model", study.model)
    training = {axis: settings.pop(axis) for axis in TRAINING_AXES if axis in settings}
    rates = [training.pop("learning_rate")] if "learning_rate" in training else study.learning_rates
    options = {**study.options, **settings}
    known = models.options(model)
    for option in options:
        lookup(known, option, f"axis of the grid or option of {model}")
    initializer = options.pop("initializer", None)
    numeric = {name: float(options.pop(name)) for name in NUMERIC_OPTIONS if name in options}
    static = {
        "model": model,
        "options": options,
        "optimizer": named_optimizer(training.get("optimizer", study.optimizer)),
        "schedule": named_schedule(training.get("schedule", study.schedule)),
        "batch_size": int(training.get("batch_size", study.batch_size)),
    }
    return static, initializer, numeric, rates
