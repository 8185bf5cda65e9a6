"""Learning rate schedules by name, with warm-up, their lengths in steps or in epochs."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import optax
from jax.typing import ArrayLike

from cnnjax.functional.names import lookup

Duration = int | str
"""A number of steps, or a text as "5 epochs" or "0.5 epochs"; in a schedule also "10 %", of the run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate changes over a run.

    Attributes:
      name: one of `SCHEDULES`.
      warmup: a linear rise from `warmup_from` in front of the schedule, which takes what is left of the run. (One-cycle
        brings its own.)
      warmup_from: share of the learning rate at the first step.
      end: share of the learning rate at the end (cosine, linear, polynomial, one_cycle).
      boundaries: where "step" multiplies the rate by `factor`.
      factor: of "step" at each boundary; of "exponential" over the whole run.
      power: of "polynomial".
      rise: share of the run in which "one_cycle" rises; it begins at a 25th of the rate (Smith & Topin 2018).
    """

    name: str = "constant"
    warmup: Duration = 0
    warmup_from: float = 0.0
    end: float = 0.0
    boundaries: Sequence[Duration] = ()
    factor: float = 0.1
    power: float = 2.0
    rise: float = 0.3

    def make(self, learning_rate: ArrayLike, *, steps: int, steps_per_epoch: int) -> optax.Schedule:
        """The learning rate as a function of the step.

        Args:
          learning_rate: the highest; may be traced.
          steps: of the whole run.
          steps_per_epoch: what an epoch stands for.

        Raises:
          ValueError: an unknown name (with the nearest), a length that is none, or a schedule longer than the run.
        """
        shape = lookup(SCHEDULES, self.name, "schedule")
        warmup = in_steps(self.warmup, steps_per_epoch, of=steps)
        boundaries = [in_steps(each, steps_per_epoch, of=steps) for each in self.boundaries]
        self._check(steps, warmup, boundaries)
        after = shape(self, learning_rate, steps - warmup, [boundary - warmup for boundary in boundaries])
        if not warmup:
            return after
        rise = optax.linear_schedule(self.warmup_from * learning_rate, learning_rate, warmup)
        return optax.join_schedules([rise, after], [warmup])

    def _check(self, steps: int, warmup: int, boundaries: Sequence[int]) -> None:
        if steps < 1:
            raise ValueError(f"a schedule needs a run of 1 step or more, got {steps}")
        if warmup >= steps:
            raise ValueError(f"the warm-up of {warmup} steps is longer than the run, which has {steps}")
        if self.name == "step" and not boundaries:
            raise ValueError(
                "the schedule 'step' needs boundaries, as in boundaries=('30 epochs', '60 epochs')"
            )
        if late := [boundary for boundary in boundaries if not warmup < boundary < steps]:
            raise ValueError(
                f"the boundaries of a schedule lie behind its warm-up ({warmup} steps) and before the end of the run "
                f"({steps} steps); got {late}"
            )
        if list(boundaries) != sorted(set(boundaries)):
            raise ValueError(f"the boundaries of a schedule must rise, got {list(boundaries)}")
        if not 0 < self.rise < 1:
            raise ValueError(f"rise is a share of the run and must lie in (0, 1), got {self.rise}")


def in_steps(duration: Duration, steps_per_epoch: int, *, of: int | None = None) -> int:
    """A length in steps, rounded up.

    Args:
      duration: as text or number.
      steps_per_epoch: what an epoch stands for.
      of: the steps that a text such as "10 %" is a part of; None where there is no such whole.

    Raises:
      ValueError: neither a number of steps nor such a text.
    """
    if isinstance(duration, int) and not isinstance(duration, bool) and duration >= 0:
        return duration
    if isinstance(duration, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(steps?|epochs?|%)?\s*", duration)
        number, unit = (found[1], (found[2] or "step").rstrip("s")) if found else ("", "")
        if unit == "epoch":
            return math.ceil(float(number) * steps_per_epoch)
        if unit == "%" and of is not None:
            return math.ceil(float(number) * of / 100)
        if unit == "step" and number.isdigit():
            return int(number)
    share = "" if of is None else " or '10 %'"
    raise ValueError(f"a length is a number of steps, or a text as '5 epochs'{share}; got {duration!r}")


_Shape = Callable[[Schedule, ArrayLike, int, Sequence[int]], optax.Schedule]
SCHEDULES: Mapping[str, _Shape] = MappingProxyType(
    {
        "constant": lambda own, rate, steps, boundaries: optax.constant_schedule(rate),
        "step": lambda own, rate, steps, boundaries: optax.piecewise_constant_schedule(
            rate, dict.fromkeys(boundaries, own.factor)
        ),
        "cosine": lambda own, rate, steps, boundaries: optax.cosine_decay_schedule(rate, steps, own.end),
        "linear": lambda own, rate, steps, boundaries: optax.linear_schedule(rate, own.end * rate, steps),
        "polynomial": lambda own, rate, steps, boundaries: optax.polynomial_schedule(
            rate, own.end * rate, own.power, steps
        ),
        "exponential": lambda own, rate, steps, boundaries: optax.exponential_decay(rate, steps, own.factor),
        "one_cycle": lambda own, rate, steps, boundaries: optax.cosine_onecycle_schedule(
            steps, rate, own.rise, 25.0, max(25.0 * own.end, 1e-12) ** -1
        ),
    }
)
"""The schedules by name: of the options, the rate, the steps behind the warm-up, and the boundaries counted from there."""
