"""Where signals go in an infinitely deep network: fixed points of the second moment and of the correlation.

In a wide network with kernels of variance sigma_w2 / fan_in and biases of variance sigma_b2, the pre-activations of layer
after layer are Gaussian, and of two inputs (Poole et al. 2016, equations 3 and 5)

    q'   = sigma_w2 E[phi(u)^2] + sigma_b2               u, v ~ N(0, q) with correlation c
    q'c' = sigma_w2 E[phi(u) phi(v)] + sigma_b2

and the gradient's second moment goes back by chi_1 = sigma_w2 E[phi'(u)^2] (Schoenholz et al. 2017, equation 12). The same
holds for convolutions whose padding is circular (Xiao et al. 2018, section 2).
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from scipy.optimize import brentq

from cnnjax.probes.quadrature import LARGEST_Q, SMALLEST_Q, Elementwise, Response, response

Phase = Literal["ordered", "critical", "chaotic"]

# |chi - 1| below this counts as 1.
_CRITICAL = 1e-9
_NOISE = 1e-12
_RTOL: Any = 1e-14
_STEP = 0.125


@dataclasses.dataclass(frozen=True)
class MeanField:
    """The fixed point of an infinitely deep network.

    Depth scales are numbers of layers in which a distance from the fixed point shrinks by a factor e; infinite at 1,
    negative where it grows.

    Attributes:
      q_star: the second moment of pre-activations.
      chi_1: the factor on the gradient's second moment, a layer further from the output; the slope of the correlation map
        at c = 1.
      c_star: the correlation of two different inputs.
      chi_c: the slope of the correlation map at c_star.
      xi_q: of the second moment, -1 / log(dq'/dq).
      xi_c: of the correlation, -1 / log(chi_c).
      xi_grad: of the gradient's second moment, -1 / log(chi_1): negative where it explodes.
      phase: "ordered" (chi_1 < 1: inputs become alike, gradients vanish), "critical", or "chaotic" (chi_1 > 1).
    """

    q_star: float
    chi_1: float
    c_star: float
    chi_c: float
    xi_q: float
    xi_c: float
    xi_grad: float
    phase: Phase


def mean_field(activation: Elementwise, *, sigma_w2: float, sigma_b2: float) -> MeanField:
    """The fixed point that a network reaches from pre-activations of second moment 1 (Schoenholz et al. 2017, section 3).

    Where every q is a fixed point (ReLU at sigma_w2 = 2, sigma_b2 = 0), a network keeps the q of its input: chi_1 and the
    correlation map are the same at each, the point is critical with c_star = 1 (Hayou et al. 2019, section 3), and q_star is
    given as 1. Where q falls to 0 (tanh at sigma_w2 <= 1, sigma_b2 = 0), the record is the limit of sigma_b2 -> 0.

    Args:
      activation: a name, an `Activation`, or an elementwise function of JAX arrays.
      sigma_w2: fan_in times the variance of the kernel's entries, positive.
      sigma_b2: variance of the biases, 0 or more.

    Raises:
      ValueError: q diverges, or vanishes for an activation without a scale of its own (the message says at which
        sigma_w2 it doesn't); an activation that is not elementwise; variances out of range.
    """
    phi = response(activation)
    check_variances(sigma_w2, sigma_b2)
    q = _fixed_q(phi, sigma_w2, sigma_b2)
    found = phi.moments(max(q, SMALLEST_Q))
    chi_1 = _snapped(sigma_w2 * float(found.slope_second))
    chi_q = _snapped(sigma_w2 * float(found.growth))
    c, chi_c = (1.0, chi_1) if chi_1 <= 1 else _fixed_correlation(phi, q, sigma_w2, sigma_b2, chi_1)
    phase = "critical" if chi_1 == 1 else "ordered" if chi_1 < 1 else "chaotic"
    xi_q, xi_c, xi_grad = (_depth_scale(chi) for chi in (chi_q, chi_c, chi_1))
    return MeanField(q, chi_1, c, chi_c, xi_q, xi_c, xi_grad, phase)


def critical_line(activation: Elementwise, sigma_b2: float) -> float:
    """The sigma_w2 at which chi_1 = 1 at the fixed point: the edge of chaos (Schoenholz et al. 2017, figure 1).

    On the line sigma_w2 = 1 / E[phi'^2], so that it is found as the q at which q - E[phi^2] / E[phi'^2] = sigma_b2.

    Raises:
      ValueError: there is no such point: with biases an activation without a scale of its own (ReLU) has none, and of
        GELU and its like q is unstable there unless sigma_b2 is large; or as in `mean_field`.
    """
    phi = response(activation)
    check_variances(1.0, sigma_b2)
    if phi.homogeneous:
        if sigma_b2 > 0:
            raise ValueError(
                f"{phi.name} has no critical line: it is critical at sigma_b2 = 0, sigma_w2 = "
                f"{1 / float(phi.moments(1.0).slope_second):.6g} alone, got sigma_b2 = {sigma_b2}"
            )
        return 1 / float(phi.moments(1.0).slope_second)
    if sigma_b2 == 0 and phi.powers[0][0] > 0:
        q = 1e-4
        sigma_w2 = 1 / float(phi.moments(SMALLEST_Q).slope_second)
    else:
        q = _critical_q(phi, sigma_b2)
        sigma_w2 = 1 / float(phi.moments(q).slope_second)
    found = phi.moments(q)
    if found.growth > found.slope_second * (1 + _CRITICAL):
        raise ValueError(
            f"{phi.name} has no critical line at sigma_b2 = {sigma_b2}: at sigma_w2 = {sigma_w2:.6g}, where chi_1 = 1, q is "
            "unstable and does not stay there. Use another sigma_b2 (a larger one for GELU and its like)"
        )
    return sigma_w2


def log_step(phi: Response, log_q: np.ndarray, sigma_w2: float, sigma_b2: float) -> np.ndarray:
    """log q of the next layer from log q of this one, for any number of them."""
    log_second, _ = phi.log_moments(log_q)
    with np.errstate(divide="ignore"):
        return np.logaddexp(np.log(sigma_w2) + log_second, np.log(sigma_b2))


def _fixed_q(phi: Response, sigma_w2: float, sigma_b2: float) -> float:
    """The fixed point of q next to 1, on the side to which q moves from there; 0 where it falls for ever."""
    grid, seconds = _profile(phi)
    with np.errstate(divide="ignore"):
        change = np.logaddexp(np.log(sigma_w2) + seconds, np.log(sigma_b2)) - grid
    start = int(np.argmin(np.abs(grid)))
    if abs(change[start]) < _CRITICAL:
        return 1.0
    rises = change[start] > 0
    side = np.arange(start, len(grid)) if rises else np.arange(start, -1, -1)
    # Where q is all but still (ReLU with biases at a large q), rounding decides the sign.
    turned = change[side] < -_NOISE if rises else change[side] > _NOISE
    if turned.any():
        a, b = sorted((float(grid[start]), float(grid[side[np.argmax(turned)]])))
        change_at = functools.partial(_change_of_log_q, phi, sigma_w2, sigma_b2)
        return math.exp(_root(change_at, a, b, xtol=1e-14))
    end = LARGEST_Q if rises else SMALLEST_Q
    still = end / float(phi.moments(end).second)
    if rises:
        raise ValueError(
            f"q diverges: with {phi.name}, sigma_w2 = {sigma_w2} and sigma_b2 = {sigma_b2} the second moment grows from "
            f"layer to layer without bound, as it does for every sigma_w2 above {still:.6g}"
            f"{' and, with biases, at it' if sigma_b2 else ''}. Use a smaller one, or trajectory(...) for a finite depth"
        )
    if phi.homogeneous:
        raise ValueError(
            f"q vanishes: with {phi.name}, sigma_w2 = {sigma_w2} and sigma_b2 = 0 the second moment falls by the factor "
            f"{sigma_w2 / still:.6g} in each layer, as it does for every sigma_w2 below {still:.6g}. Use that sigma_w2, "
            "a positive sigma_b2, or trajectory(...) for a finite depth"
        )
    return 0.0


@functools.lru_cache(maxsize=256)
def _profile(phi: Response) -> tuple[np.ndarray, np.ndarray]:
    """log E[phi^2] on a grid of log q that contains 0."""
    low, high = math.log(SMALLEST_Q), math.log(LARGEST_Q)
    grid = _STEP * np.arange(math.ceil(low / _STEP), math.floor(high / _STEP) + 1)
    return grid, phi.log_moments(grid)[0]


def _critical_q(phi: Response, sigma_b2: float) -> float:
    def excess(q: np.ndarray) -> np.ndarray:
        found = phi.moments(q)
        return q - found.second / found.slope_second - sigma_b2

    q = np.exp(_profile(phi)[0])
    values = excess(q)
    crossings = np.flatnonzero((values[:-1] < 0) & (values[1:] >= 0))
    if not len(crossings):
        raise ValueError(
            f"{phi.name} has no critical line at sigma_b2 = {sigma_b2}: chi_1 = 1 at no fixed point of q"
        )
    low, high = (float(end) for end in q[crossings[0] : crossings[0] + 2])
    return _root(lambda x: float(excess(np.array(x))), low, high, xtol=1e-15 * low)


def _change_of_log_q(phi: Response, sigma_w2: float, sigma_b2: float, log_q: float) -> float:
    return float(log_step(phi, np.array(log_q), sigma_w2, sigma_b2)) - log_q


def _root(function: Callable[[float], float], low: float, high: float, *, xtol: float) -> float:
    """Where a function changes its sign, by Brent's method."""
    found: Any = brentq(function, low, high, xtol=xtol, rtol=_RTOL)
    return float(found)


def _fixed_correlation(
    phi: Response, q: float, sigma_w2: float, sigma_b2: float, chi_1: float
) -> tuple[float, float]:
    """c_star below 1 and chi_c.

    As a power series in c the map has no negative coefficient (Daniely et al. 2016, section 8), so it is convex and,
    with a slope above 1 at c = 1, meets the diagonal once more between 0 and 1.
    """

    def beyond(theta: float) -> float:
        c = math.cos(theta)
        if theta == 0:
            return 1 - chi_1
        mapped = (sigma_w2 * phi.pair(q, c)[0] + sigma_b2) / q
        return (mapped - c) / (1 - c)

    if beyond(math.pi / 2) < 1e-13:
        c = 0.0
    else:
        c = math.cos(_root(beyond, 0.0, math.pi / 2, xtol=1e-13))
    return c, sigma_w2 * phi.pair(q, c)[1]


def _snapped(chi: float) -> float:
    return 1.0 if abs(chi - 1) < _CRITICAL else chi


def _depth_scale(chi: float) -> float:
    if chi == 0:
        return 0.0
    return math.inf if chi == 1 else -1 / math.log(abs(chi))


def check_variances(sigma_w2: float, sigma_b2: float) -> None:
    """Raises ValueError unless sigma_w2 is positive and sigma_b2 is 0 or positive, both finite."""
    if not (math.isfinite(sigma_w2) and sigma_w2 > 0):
        raise ValueError(f"sigma_w2, fan_in times the variance of a kernel, must be positive; got {sigma_w2}")
    if not (math.isfinite(sigma_b2) and sigma_b2 >= 0):
        raise ValueError(f"sigma_b2, the variance of the biases, must be 0 or positive; got {sigma_b2}")
