"""Metrics of layers: a number of each run from what was recorded of its layers at one step."""

import abc
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from cnnjax import probes
from cnnjax.frame import Frame
from cnnjax.functional.names import lookup
from cnnjax.study.claims.metrics import Metric, check_column

if TYPE_CHECKING:
    from cnnjax.study.claims.results import Results
    from cnnjax.study.config import Study

Step: TypeAlias = int | Literal["first", "last"]
"""A recorded step: its number, or the run's first or last one."""


class LayerMetric(Metric):
    """A metric whose number comes from the rows of one run and step in the table of layers."""

    column: str
    step: Step

    @abc.abstractmethod
    def number(self, layers: Frame) -> float:
        """Of the layers of one run at that step, in execution order."""

    @property
    def title(self) -> str:
        """What is taken of which column."""
        return f"{type(self).__name__.lower()} of {self.column}"

    @property
    def trained(self) -> bool:
        """All but at initialization."""
        return self.step not in ("first", 0)

    def check(self, study: "Study") -> None:
        """Raises ValueError where nothing will be recorded at that step."""
        if isinstance(self.step, str):
            lookup(dict.fromkeys(("first", "last")), self.step, "step")
        elif self.step not in {*range(0, study.steps, study.record_every), max(study.steps - 1, 0)}:
            raise ValueError(
                f"no layer will be recorded at step {self.step}: the study records every {study.record_every} of its "
                f"{study.steps} steps, and the last one"
            )

    def __call__(self, results: "Results", runs: Frame) -> list[float]:
        """The number of each run; NaN where none of its layers was recorded.

        Raises:
          ValueError: no layer of any run was recorded at that step.
        """
        if results.layers.empty:
            return [math.nan] * len(runs)
        tables = {run: rows.sort_values("layer") for run, rows in self._at(results.layers).groupby("run")}
        return [self.number(tables[run]) if run in tables else math.nan for run in runs["run"]]

    def _at(self, layers: Frame) -> Frame:
        if isinstance(self.step, str):
            steps = layers.groupby("run")["step"].transform("min" if self.step == "first" else "max")
            return layers[layers["step"] == steps]
        if self.step not in set(layers["step"]):
            recorded = ", ".join(str(step) for step in sorted(set(layers["step"])))
            raise ValueError(f"no layer was recorded at step {self.step}; recorded: {recorded or 'none'}")
        return layers[layers["step"] == self.step]


@dataclass(frozen=True)
class AtLayer(LayerMetric):
    """A column of one layer.

    Attributes:
      column: of the table of layers, one of `probes.COLUMNS`.
      layer: its index in execution order; negative ones count from the end, -1 being the head where there is one.
      step: at which it was recorded.
    """

    column: str
    layer: int
    step: Step = "first"

    def __post_init__(self) -> None:
        check_column(self.column, probes.COLUMNS, "layers")

    @property
    def title(self) -> str:
        """The column and the layer."""
        return f"{self.column} of layer {self.layer}"

    def number(self, layers: Frame) -> float:
        """The entry.

        Raises:
          ValueError: the network has no such layer.
        """
        if not -len(layers) <= self.layer < len(layers):
            raise ValueError(f"there is no layer {self.layer} in a network of {len(layers)} layers")
        return float(layers[self.column].iloc[self.layer])


@dataclass(frozen=True)
class Slope(LayerMetric):
    """The least-squares slope of a column over the hidden layers, in the column's unit a layer.

    NaN, and so not tested, where a layer of that part is not finite (a gradient that underflows, say).

    Attributes:
      column: of the table of layers, one of `probes.COLUMNS`.
      part: of the hidden layers, by relative depth; transients at the ends are left out.
      step: at which it was recorded.
    """

    column: str
    part: tuple[float, float] = (0.2, 0.85)
    step: Step = "first"

    def __post_init__(self) -> None:
        check_column(self.column, probes.COLUMNS, "layers")
        check_part(self.part)

    def number(self, layers: Frame) -> float:
        """The slope."""
        return slope(layers, self.column, self.part)


@dataclass(frozen=True)
class Rate(LayerMetric):
    """The factor of a quantity from layer to layer, 10^slope of its logarithm over the hidden layers: chi of theory.

    Of gradients it counts toward the input (He et al. 2015: 1; Xavier with ReLU: 0.5; batch norm: 1.4669), of signals toward
    the output. NaN where the slope is.

    Attributes:
      column: a logarithm in the table of layers, as "gradient_log10_second_moment".
      part: as for `Slope`.
      step: at which it was recorded.
    """

    column: str
    part: tuple[float, float] = (0.2, 0.85)
    step: Step = "first"

    def __post_init__(self) -> None:
        check_column(self.column, probes.COLUMNS, "layers")
        check_part(self.part)
        if "log10" not in self.column:
            logarithms = ", ".join(name for name in probes.COLUMNS if "log10" in name)
            raise ValueError(
                f"a rate takes a column that is a logarithm, got {self.column!r}: take Slope, or one of {logarithms}"
            )

    def number(self, layers: Frame) -> float:
        """The factor."""
        toward = -1 if "gradient_log10" in self.column else 1
        return 10 ** (toward * slope(layers, self.column, self.part))


def check_part(part: tuple[float, float]) -> None:
    """Raises ValueError unless it is two rising fractions."""
    if not 0 <= part[0] < part[1] <= 1:
        raise ValueError(f"part must be two fractions of the depth, as (0.2, 0.85); got {part}")


def slope(layers: Frame, column: str, part: tuple[float, float]) -> float:
    """Of a column over a part of the hidden layers, the head left out: its gradient comes straight from the loss."""
    has_head = len(layers) > 1 and layers["activation"].iloc[-1] == "identity"
    values = layers[column].to_numpy("float64")[: -1 if has_head else None]
    first, last = (round(end * (len(values) - 1)) for end in part)
    values = values[first : last + 1]
    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan
    return float(np.polyfit(np.arange(len(values)), values, 1)[0])
