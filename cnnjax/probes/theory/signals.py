"""What theory knows of arrays and gradients on their way through a model."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from cnnjax.probes.quadrature import Response
from cnnjax.probes.theory.density import Density

# A stack is followed no further once each of its logarithms changes from block to block as before, to this.
STEADY = 1e-11
# What a `Join` leaves on the tape if the sum isn't known.
BROKEN = "broken"


@dataclasses.dataclass(frozen=True)
class Signal:
    """What theory knows of an array between two steps.

    Attributes:
      log_m: log of the second moment at each position; of shape () where all are alike.
      varying: the share of the second moment that differs between examples (1 minus their correlation); None if not known.
      law: where it isn't Gaussian, the law of the pre-activation that this is, or that this is the activation of.
      source: the activation that this is the output of, and log of the second moment in front of it.
      anchored: whether `log_m` is absolute, and not relative to an unknown start.
      independent: whether an entry of one example says nothing of that of another: what batch norm leaves.
      normed: the activation of a batch norm's output that this is a linear function of.
    """

    log_m: np.ndarray
    varying: float | None = None
    law: Density | None = None
    source: tuple[Response, float] | None = None
    anchored: bool = True
    independent: bool = False
    normed: Response | None = None


@dataclasses.dataclass(frozen=True)
class Gradient:
    """A second moment exp(log_scale) profile by position; with `weights` by unit, a function of the nodes of its law."""

    log_scale: float
    profile: np.ndarray
    weights: np.ndarray | None = None

    def mean(self) -> float:
        """Of the profile."""
        return float(np.mean(self.profile) if self.weights is None else self.weights @ self.profile)


@dataclasses.dataclass
class Row:
    """The prediction for one layer, in natural logarithms, NaN where there is none.

    Attributes:
      reason: why theory doesn't know it, or doesn't connect it with the one before.
      segment: counted from the end.
    """

    log_moment: float
    reason: str = ""
    log_gradient: float = math.nan
    segment: int = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Passage:
    """What an `Activate` leaves on the tape; without a response if the signal in front of it isn't known.

    Attributes:
      log_slope: log E[phi'^2] by position; None where the law isn't Gaussian.
    """

    row: Row
    response: Response | None = None
    law: Density | None = None
    log_slope: np.ndarray | None = None


def spread(profile: np.ndarray, maps: Sequence[np.ndarray]) -> np.ndarray:
    """A map for each axis applied to a profile; () stays () where all positions stay alike."""
    sums = [rows.sum(axis=1) for rows in maps]
    if profile.ndim == 0 and all(np.ptp(row) == 0 for row in sums):
        return profile * math.prod(float(row[0]) for row in sums)
    profile = np.broadcast_to(profile, tuple(rows.shape[1] for rows in maps))
    for axis, rows in enumerate(maps):
        profile = np.moveaxis(np.tensordot(rows, profile, axes=(1, axis)), 0, axis)
    return profile


def same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    """Whether both are there, of one shape, and alike within `STEADY`."""
    return a is not None and b is not None and a.shape == b.shape and bool(np.all(np.abs(a - b) < STEADY))


def log_mean(log_m: np.ndarray) -> float:
    """log(mean(exp(log_m))), without overflow."""
    top = float(np.max(log_m))
    return (
        top
        if not math.isfinite(top) or np.size(log_m) == 1
        else top + math.log(float(np.mean(np.exp(log_m - top))))
    )


def log(x: float) -> float:
    """The logarithm, -inf at 0 and below."""
    return math.log(x) if x > 0 else -math.inf
