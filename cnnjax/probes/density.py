"""The singular values that theory predicts for linear networks, and a measured spectrum's histogram beside them.

All of it in float64 NumPy. Square matrices have sides that go to infinity; the entries of a kernel with n inputs are
normal of variance sigma_w^2 / n.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from cnnjax.functional.names import lookup
from cnnjax.probes.spectrum import Spectrum

Ensemble = Literal["gaussian", "orthogonal"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def product_edge(depth: int = 1, *, sigma_w: float = 1.0) -> float:
    """The largest singular value of a product of `depth` Gaussian matrices: sigma_w^L sqrt((L + 1)^(L + 1) / L^L).

    It grows as sqrt(e L) at sigma_w = 1, where the mean square stays 1: a deep Gaussian network is not isometric at any
    sigma_w (Pennington et al. 2017, section 2.5).

    Raises:
      ValueError: `depth` is no integer of 1 or more, or `sigma_w` is not positive.
    """
    _check(depth, sigma_w)
    return sigma_w**depth * math.sqrt((depth + 1) * (1 + 1 / depth) ** depth)


def product_density(s: np.ndarray | float, *, depth: int = 1, sigma_w: float = 1.0) -> np.ndarray:
    """The density of the singular values of a product of `depth` square Gaussian matrices.

    Their squares x follow the Fuss-Catalan law (Penson & Zyczkowski 2011), which an angle f from pi / (L + 1) down to 0
    parametrizes:

        x = sin((L + 1) f)^(L + 1) / (sin f sin(L f)^L),   x p(x) = sin f sin((L + 1) f) / (pi sin(L f))

    One matrix is the quarter circle, sqrt(4 - s^2) / pi.

    Args:
      s: singular values, any shape.
      depth: number of matrices L.
      sigma_w: of each.

    Returns:
      The density in s, of the shape of `s`: 0 outside of the support, infinite at 0 for two matrices or more.

    Raises:
      ValueError: as `product_edge`.
    """
    edge, s = product_edge(depth, sigma_w=sigma_w), np.asarray(s, np.float64)
    inside = (s > 0) & (s < edge)
    within = np.where(inside, s, edge / 2)
    mass = _mass(_complement(within / sigma_w**depth, depth), depth)
    at_zero = 2 / (math.pi * sigma_w) if depth == 1 else np.inf
    # 2 s p(s^2) = 2 x p(x) / s
    return np.where(inside, 2 * mass / within, np.where(s == 0, at_zero, 0.0))


def product_cumulative(s: np.ndarray | float, *, depth: int = 1, sigma_w: float = 1.0) -> np.ndarray:
    """The fraction of singular values below `s` under `product_density`; takes and raises the same."""
    scaled = np.asarray(s, np.float64) / sigma_w**depth
    ends = _complement(np.clip(scaled, 0, product_edge(depth)), depth)

    def rate(g: np.ndarray) -> np.ndarray:
        # p(x) dx/dg = x p(x) d log x / dg
        f = math.pi / (depth + 1) - g
        terms = (depth + 1) ** 2 / np.tan((depth + 1) * g) + 1 / np.tan(f) + depth**2 / np.tan(depth * f)
        return _mass(g, depth) * terms

    return np.clip(_integral(rate, ends), 0, 1)


def matrix_density(s: np.ndarray | float, *, outputs: int, inputs: int, sigma_w: float = 1.0) -> np.ndarray:
    """The density of the min(outputs, inputs) singular values of one Gaussian matrix (Marchenko & Pastur 1967).

    Args:
      s: singular values, any shape.
      outputs, inputs: sides of the matrix; only their ratio counts.
      sigma_w: of its entries.

    Returns:
      The density in s, of the shape of `s`.

    Raises:
      ValueError: a side is less than 1, or `sigma_w` is not positive.
    """
    low, high, scale = _matrix_edges(outputs, inputs, sigma_w)
    s = np.asarray(s, np.float64)
    inside = (s > low) & (s < high)
    within = np.where(inside, s, high / 2)
    density = np.sqrt(np.abs((high**2 - within**2) * (within**2 - low**2))) / (math.pi * scale * within)
    at_zero = high / (math.pi * scale) if low == 0 else 0.0
    return np.where(inside, density, np.where(s == 0, at_zero, 0.0))


def matrix_cumulative(
    s: np.ndarray | float, *, outputs: int, inputs: int, sigma_w: float = 1.0
) -> np.ndarray:
    """The fraction of singular values below `s` under `matrix_density`; takes and raises the same."""
    low, high, scale = _matrix_edges(outputs, inputs, sigma_w)
    middle, half = (high**2 + low**2) / 2, (high**2 - low**2) / 2
    # s^2 = middle - half cos a, in which the roots at both edges are smooth.
    square = np.clip(np.asarray(s, np.float64), low, high) ** 2

    def rate(a: np.ndarray) -> np.ndarray:
        return half**2 * np.sin(a) ** 2 / (2 * math.pi * scale * (middle - half * np.cos(a)))

    return np.clip(_integral(rate, np.arccos(np.clip((middle - square) / half, -1, 1))), 0, 1)


def spectrum_histogram(
    spectrum: Spectrum,
    *,
    ensemble: Ensemble = "gaussian",
    depth: int = 1,
    sigma_w: float = 1.0,
    bins: int | Sequence[float] = 30,
) -> pd.DataFrame:
    """A measured spectrum's histogram beside the prediction for a linear network.

    Args:
      spectrum: all singular values of one matrix.
      ensemble: of the kernels: "gaussian", or "orthogonal", of which every singular value is sigma_w^depth.
      depth: number of kernels.
      sigma_w: of each.
      bins: their edges, or how many of equal width from 0 to past the largest value, measured or predicted.

    Returns:
      A row for each bin: `low`, `high`, `count`, and the fractions of the spectrum `measured` and `predicted`.

    Raises:
      ValueError: the spectrum is not complete or more than one, the ensemble is unknown, or the matrix is not square where
        the prediction is for square ones: Gaussian ones of depth 2 or more.
    """
    cumulative, largest = _prediction(spectrum, ensemble, depth, sigma_w)
    if not spectrum.complete or spectrum.values.ndim != 1:
        raise ValueError(
            f"a histogram takes all {min(spectrum.shape)} singular values of one matrix; got values of shape "
            f"{spectrum.values.shape}: use full_spectrum, and one entry of a vmap"
        )
    values = np.asarray(spectrum.values, np.float64)
    if isinstance(bins, int):
        bins = np.linspace(0, 1.05 * max(largest, values.max()), bins + 1).tolist()
    counts, edges = np.histogram(values, bins)
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "count": counts,
            "measured": counts / values.size,
            "predicted": np.diff(cumulative(edges)),
        }
    )


def _prediction(
    spectrum: Spectrum, ensemble: str, depth: int, sigma_w: float
) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    """The cumulative distribution, and the largest singular value."""
    _check(depth, sigma_w)
    outputs, inputs = spectrum.shape

    def gaussian() -> tuple[Callable[[np.ndarray], np.ndarray], float]:
        if depth == 1:
            edges = _matrix_edges(outputs, inputs, sigma_w)
            return lambda s: matrix_cumulative(s, outputs=outputs, inputs=inputs, sigma_w=sigma_w), edges[1]
        if outputs != inputs:
            raise ValueError(
                f"the prediction for {depth} Gaussian kernels is for square ones; this Jacobian has shape "
                f"{spectrum.shape}: start and end at hidden layers of one width"
            )
        edge = product_edge(depth, sigma_w=sigma_w)
        return lambda s: product_cumulative(s, depth=depth, sigma_w=sigma_w), edge

    def orthogonal() -> tuple[Callable[[np.ndarray], np.ndarray], float]:
        return lambda s: (s > sigma_w**depth).astype(float), sigma_w**depth

    return lookup({"gaussian": gaussian, "orthogonal": orthogonal}, ensemble, "ensemble")()


def _complement(s: np.ndarray, depth: int) -> np.ndarray:
    """pi / (L + 1) - f, where f is the angle of s at sigma_w = 1: it grows with s from 0. By bisection."""
    with np.errstate(divide="ignore"):
        target = 2 * np.log(s)
    low, high = np.zeros_like(target), np.full_like(target, math.pi / (depth + 1))
    for _ in range(100):
        g = (low + high) / 2
        f = math.pi / (depth + 1) - g
        with np.errstate(divide="ignore", invalid="ignore"):
            log_x = (
                (depth + 1) * np.log(np.sin((depth + 1) * g))
                - np.log(np.sin(f))
                - depth * np.log(np.sin(depth * f))
            )
        low, high = np.where(log_x < target, g, low), np.where(log_x < target, high, g)
    return (low + high) / 2


def _mass(g: np.ndarray, depth: int) -> np.ndarray:
    """x p(x) at f = pi / (L + 1) - g."""
    f = math.pi / (depth + 1) - g
    return np.sin(f) * np.sin((depth + 1) * g) / (math.pi * np.sin(depth * f))


def _integral(rate: Callable[[np.ndarray], np.ndarray], ends: np.ndarray) -> np.ndarray:
    """The integral of `rate` from 0 to each of `ends`, by Gauss-Legendre quadrature."""
    half = ends[..., None] / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(ends > 0, np.sum(half * _WEIGHTS * rate(half * (_NODES + 1)), axis=-1), 0.0)


def _matrix_edges(outputs: int, inputs: int, sigma_w: float) -> tuple[float, float, float]:
    """The smallest and the largest singular value, and sigma_w^2 min(shape) / inputs."""
    if outputs < 1 or inputs < 1:
        raise ValueError(f"a matrix has 1 row and 1 column or more; got shape ({outputs}, {inputs})")
    _check(1, sigma_w)
    a, b = math.sqrt(outputs / inputs), 1.0
    return sigma_w * abs(a - b), sigma_w * (a + b), sigma_w**2 * min(outputs / inputs, 1.0)


def _check(depth: int, sigma_w: float) -> None:
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise ValueError(f"depth counts the kernels and must be an integer >= 1; got {depth!r}")
    if not sigma_w > 0:
        raise ValueError(f"sigma_w must be positive; got {sigma_w!r}")
