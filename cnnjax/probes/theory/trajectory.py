"""Second moment, correlation and gradient by layer, from a given input: networks of any finite depth."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev, chebyshev

from cnnjax.probes.quadrature import LARGEST_Q, SMALLEST_Q, Elementwise, Response, response
from cnnjax.probes.theory.fixed_point import check_variances

_SETTLED = 1e-10
_NODES = 48
# The rule of a single step, with errors of 3e-7 at most; those of a map that is applied again and again would add up.
_COARSE = {"size": 32, "reach": 7.5}
_LOWEST, _HIGHEST = math.log(SMALLEST_Q), math.log(LARGEST_Q)


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """What theory predicts layer by layer; arrays `(depth,)`, named as the columns of a `Flow`.

    Attributes:
      log10_second_moment: of the pre-activations.
      correlation: of two inputs' pre-activations, their mean cosine.
      gradient_log10_second_moment: of the gradient with respect to pre-activations, relative to the last layer.
    """

    log10_second_moment: np.ndarray
    correlation: np.ndarray
    gradient_log10_second_moment: np.ndarray


@dataclasses.dataclass
class _State:
    """log q and c at one layer."""

    log_q: float
    c: float


def trajectory(
    activation: Elementwise, *, depth: int, q: float, c: float, sigma_w2: float, sigma_b2: float
) -> Trajectory:
    """A plain network's layers (Poole et al. 2016, equations 3 and 5; Schoenholz et al. 2017, equation 12).

    Everything is kept in logarithms, so that second moments may leave the range of floating-point numbers. Beyond q = 1e-12
    and 1e18 the activation follows the power law that it has there.

    Args:
      activation: a name, an `Activation`, or an elementwise function of JAX arrays.
      depth: number of layers, 1 or more.
      q: second moment of the first layer's pre-activations.
      c: correlation of the first layer's pre-activations for two inputs of equal norm.
      sigma_w2: fan_in times the variance of the kernels.
      sigma_b2: variance of the biases.

    Raises:
      ValueError: `depth` or `q` is not positive, `c` is not between -1 and 1, a variance is out of range, or the
        activation is not elementwise.
    """
    phi = response(activation)
    check_variances(sigma_w2, sigma_b2)
    layer = _Layer(phi, sigma_w2, sigma_b2)
    states = _states(layer, depth, q, c)
    log_q = np.array([state.log_q for state in states])
    chi = math.log(sigma_w2) + phi.log_moments(log_q)[1]
    return _trajectory(states, chi)


def residual_trajectory(
    activation: Elementwise,
    *,
    depth: int,
    q: float,
    c: float,
    alpha: float,
    sigma_w2: float,
    sigma_b2: float,
    layers: int = 1,
) -> Trajectory:
    """The stream of a pre-activation residual network without normalization, x' = x + alpha branch(x).

    A branch is `layers` times activation - linear (Yang & Schoenholz 2017, section 3, for one layer). With q_b its second
    moment and chi_b the product of its layers' chi_1,

        q' = q + alpha^2 q_b,   c' q' = c q + alpha^2 c_b q_b,   gradient: 1 + alpha^2 chi_b a block.

    alpha = 0 (SkipInit, De & Smith 2020) leaves all as it is; alpha = 1 / sqrt(depth) (Hayou et al. 2021) bounds the growth.

    Args:
      alpha: factor on each branch.
      layers: activations and kernels in a branch.
      depth: number of blocks; the arrays hold the stream in front of each.
      others: as in `trajectory`.

    Raises:
      ValueError: as in `trajectory`, or `layers` is not positive.
    """
    phi = response(activation)
    check_variances(sigma_w2, sigma_b2)
    if layers < 1:
        raise ValueError(f"layers, those of a branch, must be 1 or more; got {layers}")
    branch = [_Layer(phi, sigma_w2, sigma_b2) for _ in range(layers)]
    log_alpha2 = 2 * math.log(abs(alpha)) if alpha else -math.inf
    chi: list[float] = []

    def block(state: _State) -> _State:
        inner, log_chi = state, 0.0
        for layer in branch:
            log_chi += math.log(sigma_w2) + float(phi.log_moments(np.array(inner.log_q))[1])
            inner = layer(inner)
        chi.append(float(np.logaddexp(0, log_alpha2 + log_chi)))
        added = log_alpha2 + inner.log_q
        total = float(np.logaddexp(state.log_q, added))
        c = math.exp(state.log_q - total) * state.c + math.exp(added - total) * inner.c
        return _State(total, _clipped(c))

    states = _states(block, depth, q, c)
    block(states[-1])
    return _trajectory(states, np.array(chi))


class _Layer:
    """One step of a plain network. Once q stays where it is, the correlation map is a Chebyshev series in arccos(c)."""

    def __init__(self, phi: Response, sigma_w2: float, sigma_b2: float) -> None:
        self.phi = phi
        self.log_w2, self.log_b2 = math.log(sigma_w2), math.log(sigma_b2) if sigma_b2 else -math.inf
        # Without a scale of its own, q is settled from the start.
        self._last = 0.0 if phi.homogeneous else math.nan
        self._map: Chebyshev | None = None

    def __call__(self, state: _State) -> _State:
        signal = self.log_w2 + float(self.phi.log_moments(np.array(state.log_q))[0])
        log_q = float(np.logaddexp(signal, self.log_b2))
        share = math.exp(signal - log_q)
        return _State(log_q, _clipped(share * self._cosine(state) + (1 - share)))

    def _cosine(self, state: _State) -> float:
        """E[phi(u) phi(v)] / E[phi^2]."""
        log_q = 0.0 if self.phi.homogeneous else min(max(state.log_q, _LOWEST), _HIGHEST)
        if not abs(log_q - self._last) <= _SETTLED:
            self._last, self._map = log_q, None
            return self._cosines(np.array([state.c]), **_COARSE)[0]
        if self._map is None:
            theta = (chebyshev.chebpts1(_NODES) + 1) * (math.pi / 2)
            self._map = Chebyshev.fit(theta, self._cosines(np.cos(theta)), _NODES - 1, domain=[0, math.pi])
        return float(self._map(math.acos(state.c)))

    def _cosines(self, correlations: np.ndarray, **rule: Any) -> list[float]:
        q = math.exp(self._last)
        second = float(self.phi.moments(q).second)
        return [self.phi.kernel(q, float(c), **rule) / second for c in correlations]


def _states(step: Callable[[_State], _State], depth: int, q: float, c: float) -> list[_State]:
    if depth < 1:
        raise ValueError(f"depth must be 1 or more, got {depth}")
    if not (math.isfinite(q) and q > 0):
        raise ValueError(
            f"q, the second moment of the first layer's pre-activations, must be positive; got {q}"
        )
    if not -1 <= c <= 1:
        raise ValueError(f"c, a correlation, lies between -1 and 1; got {c}")
    states = [_State(math.log(q), float(c))]
    for _ in range(depth - 1):
        states.append(step(states[-1]))
    return states


def _trajectory(states: list[_State], log_chi: np.ndarray) -> Trajectory:
    """`log_chi`: of each layer, the factor by which the gradient behind it becomes that in front."""
    gradient = np.concatenate([np.cumsum(log_chi[:-1][::-1])[::-1], [0.0]])
    return Trajectory(
        np.array([state.log_q for state in states]) / math.log(10),
        np.array([state.c for state in states]),
        gradient / math.log(10),
    )


def _clipped(c: float) -> float:
    return min(max(c, -1.0), 1.0)
