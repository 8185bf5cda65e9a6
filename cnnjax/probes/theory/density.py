"""Residual nets whose activation comes after the addition: a unit's pre-activation is no longer Gaussian.

z' = phi(z) + branch, where the branch is Gaussian, of a variance that the layer's second moment decides, and independent of
z. So the density of z over units goes from block to block by a Markov kernel, and a gradient's second moment, as a
function of z, goes back by its transpose (mean field of one unit; Yang & Schoenholz 2017 solve the case where no activation
follows the addition).
"""

import dataclasses
import functools
import math

import numpy as np

from cnnjax.probes.quadrature import LARGEST_Q, SMALLEST_Q, Response

# An even number of nodes, so that 0, where kinks are, lies halfway between two.
_NODES = 320
_REACH = 8.0


@dataclasses.dataclass(frozen=True, eq=False)
class Density:
    """The law of a pre-activation z = exp(log_q / 2) zeta over the units of a layer.

    Attributes:
      log_q: log of its second moment.
      weights: probabilities of zeta at `grid()`, `(nodes,)`.
    """

    log_q: float
    weights: np.ndarray


def grid() -> np.ndarray:
    """The nodes of zeta, `(nodes,)`."""
    return (np.arange(_NODES) - (_NODES - 1) / 2) * (2 * _REACH / _NODES)


def gaussian(log_q: float) -> Density:
    """A Gaussian pre-activation."""
    return Density(log_q, _normal())


@functools.cache
def _normal() -> np.ndarray:
    weights = np.exp(-(grid() ** 2) / 2)
    return weights / weights.sum()


def activated(phi: Response, log_q: float) -> tuple[np.ndarray, np.ndarray]:
    """phi(z) / exp(log_q / 2) and phi'(z) at the nodes."""
    inside = 0.0 if phi.homogeneous else min(max(log_q, math.log(SMALLEST_Q)), math.log(LARGEST_Q))
    return _activated(phi, inside)


@functools.lru_cache(maxsize=8)
def _activated(phi: Response, log_q: float) -> tuple[np.ndarray, np.ndarray]:
    root = math.exp(log_q / 2)
    value, slope = phi.evaluate(root * grid())
    return value / root, slope


def transition(positions: np.ndarray, log_width: float) -> np.ndarray:
    """The probabilities of the nodes behind the addition, given the node in front of it: `(to, from)`.

    Args:
      positions: phi(z) at the nodes, in units of the root mean square behind the addition.
      log_width: log of the branch's deviation in the same units.
    """
    distance = grid()[:, None] - np.clip(positions, -_REACH, _REACH)
    width, spacing = math.exp(log_width), 2 * _REACH / _NODES
    if width > spacing:
        kernel = np.exp(-0.5 * (distance / width) ** 2)
    else:
        # Too narrow for the nodes to resolve: shared out between the two nearest.
        kernel = np.maximum(0, 1 - np.abs(distance) / spacing)
    return kernel / np.maximum(kernel.sum(axis=0), np.finfo(float).tiny)
