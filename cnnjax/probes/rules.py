"""Nodes and weights for one Gaussian variable and for two correlated ones; `quadrature` says how they are used."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Standard deviations after which the Gaussian tail, exp(-45), is left out.
REACH = 9.5


class Pair(NamedTuple):
    """A quadrature rule for two variables: sum(weight f(u) g(v)) is E[f(u) g(v)]. Flat arrays."""

    u: np.ndarray
    v: np.ndarray
    weight: np.ndarray

    def mean(self, f: np.ndarray, g: np.ndarray) -> float:
        """E[f g] from values at the nodes."""
        # einsum: BLAS would share so short a sum out to threads.
        return float(np.einsum("i,i,i->", self.weight, f, g))


@functools.cache
def _legendre(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre on [0, 1]."""
    x, weights = np.polynomial.legendre.leggauss(nodes)
    return (x + 1) / 2, weights / 2


@functools.cache
def _clustered(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """A rule on [0, 1] dense at both ends, where square roots and narrow layers may lie: x = t^2 (3 - 2 t)."""
    t, weights = _legendre(nodes)
    return t * t * (3 - 2 * t), weights * 6 * t * (1 - t)


def line_rule(kinks: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for integrals over x from -2^34 to 2^34 of what is smooth between the kinks on the scale of 1."""
    toward = 2.0 ** np.arange(-22, 0)
    half = np.concatenate([toward, np.arange(1, 33), 2.0 ** np.arange(6, 35)])
    edges = np.unique(np.concatenate([-half, [0.0], half, np.asarray(kinks, float)]))
    t, weights = _legendre(16)
    widths = np.diff(edges)[:, None]
    return (edges[:-1, None] + widths * t).ravel(), (widths * weights).ravel()


def pair_rule(
    correlation: float,
    *,
    kinks: Sequence[float] = (),
    dimension: int | None = None,
    size: int = 64,
    reach: float = REACH,
) -> Pair:
    """The rule for a pair of variables of mean 0, variance 1 and a correlation.

    Args:
      correlation: c, between -1 and 1.
      kinks: where the functions of u and v are not smooth; 0 always counts as one.
      dimension: None for Gaussian variables; n for two projections of a uniform point on the sphere of radius sqrt(n) in n
        dimensions, 3 or more, onto directions with the cosine c.
      size: nodes in each of the four sectors and along the radius; about half as many in each part where kinks add more.
      reach: the radius after which the tail is left out, exp(-reach^2 / 2) of a Gaussian.

    Raises:
      ValueError: c is not between -1 and 1.
    """
    if not -1 <= correlation <= 1:
        raise ValueError(f"a correlation lies between -1 and 1, got {correlation}")
    reach = reach if dimension is None else min(reach * 1.5, math.sqrt(dimension))
    lines = np.unique([0.0, *(kink for kink in kinks if abs(kink) < reach)])
    size = size if len(lines) == 1 else size // 2 + 4
    r, radial = _radial_rule(lines, correlation, reach, size)
    density = r * np.exp(-r * r / 2)
    if dimension is not None:
        density = (dimension - 2) / dimension * r * (1 - r * r / dimension) ** (dimension / 2 - 2)
    theta = math.acos(correlation)
    # The line through the origin, alone, meets every circle at the same angles.
    alike = len(lines) == 1
    starts, widths = _sectors(r[:1] if alike else r, lines, theta)
    # A line that a circle does not meet leaves sectors of no width.
    circle, sector = np.nonzero(widths)
    starts, widths = starts[circle, sector][:, None], widths[circle, sector][:, None]
    t, weights = _clustered(size)
    phi = starts + widths * t
    circles = (slice(None), None, None) if alike else (circle, None)
    radius, weight = r[circles], (radial * density)[circles] * (widths * weights / (2 * math.pi))
    return Pair((radius * np.cos(phi)).ravel(), (radius * np.cos(phi - theta)).ravel(), weight.ravel())


def _radial_rule(
    lines: np.ndarray, correlation: float, reach: float, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split where the lines u = k and v = k touch the circle of radius r, and where two of them cross."""
    a, b = lines[:, None], lines[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        # r^2 = (a^2 + b^2 - 2 a b c) / (1 - c^2), in a form that holds at c = 1 and -1.
        crossing = np.sqrt(
            np.where(a == b, 0, (a - b) ** 2 / (1 - correlation)) / 2
            + np.where(a == -b, 0, (a + b) ** 2 / (1 + correlation)) / 2
        )
    edges = np.unique(np.clip([0, reach, *np.abs(lines), *crossing.ravel()], 0, reach))
    t, weights = _clustered(size)
    widths = np.diff(edges)[:, None]
    return (edges[:-1, None] + widths * t).ravel(), (widths * weights).ravel()


def _sectors(r: np.ndarray, lines: np.ndarray, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """For each radius the angles between which no line is met: starts and widths, `(radii, sectors)`."""
    half = np.arccos(np.clip(lines / r[:, None], -1, 1))
    edges = np.concatenate([half, -half, theta + half, theta - half], axis=1) % (2 * math.pi)
    edges.sort(axis=1)
    return edges, np.diff(edges, axis=1, append=edges[:, :1] + 2 * math.pi)
