"""Gaussian expectations of an activation in float64 on the host: of one pre-activation, and of correlated pairs.

Two rules serve every activation, smooth or kinked:

- One variable. E[f(sqrt(q) z)] is an integral over x = sqrt(q) z by Gauss-Legendre quadrature on panels that are split at
  the kinks, of length 1 near the origin, shrinking toward it and growing away from it by factors of 2. The activation is
  sampled once; q enters the weights only, so that many q cost one matrix product.
- Two variables of correlation c = cos(theta): u = r cos(phi), v = r cos(phi - theta) with phi uniform. A kink is a line in
  that plane. The angle is split where it meets the circle of radius r, the radius where such lines begin and cross, so that
  kinks cost no accuracy, at c = 1 either.

Measured errors, relative to E[f^2]: 1e-14 in one variable. In two: for erf 1e-14 up to sqrt(q) = 3, 1e-10 at 10, 1e-7 at
100; 1e-14 for ReLU at any q, hard_swish and relu6 up to q = 300. Plain Gauss-Hermite quadrature with n nodes converges as
fast for smooth functions but like 1 / n for kinked ones: with n = 20, 80, 320 nodes (in each variable) the error of
E[relu(z)] is 8.4e-3, 2.1e-3, 5.1e-4, of E[relu(u) relu(v)] at c = 1/2 3.1e-3, 6.9e-4, 1.8e-4, of E[relu'(u) relu'(v)]
1.8e-2, 7.0e-3, 2.0e-3; with an odd n the node at the kink makes them about twice, and five times, as large.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.functional.activation import Activation, get_activation
from cnnjax.probes.rules import REACH, Pair, line_rule, pair_rule

# The range of q in which moments are integrated; beyond it they follow the power law that they have at its ends.
SMALLEST_Q, LARGEST_Q = 1e-12, 1e18
# Activations are evaluated on blocks of one size, so that each is compiled once.
_BLOCK = 6400
# Of a program that runs a few times XLA's optimizations cost more than they bring.
_COMPILER_OPTIONS = {"xla_backend_optimization_level": 0, "xla_cpu_parallel_codegen_split_count": 1}
_CHUNK = 128


class Moments(NamedTuple):
    """Expectations over z ~ N(0, 1) at x = sqrt(q) z, each of the shape of q.

    Attributes:
      mean: E[phi(x)].
      second: E[phi(x)^2].
      slope_second: E[phi'(x)^2].
      growth: E[phi(x) phi'(x) x] / q, the derivative of `second` with respect to q.
    """

    mean: np.ndarray
    second: np.ndarray
    slope_second: np.ndarray
    growth: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Response:
    """An activation as theory sees it: phi and phi' in float64 wherever asked, and what follows from them.

    Attributes:
      name: for messages.
      evaluate: x -> (phi(x), phi'(x)), float64 arrays of one axis.
      value: x -> phi(x).
      kinks: where phi, phi' or phi'' jumps.
    """

    name: str
    evaluate: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    value: Callable[[np.ndarray], np.ndarray]
    kinks: tuple[float, ...]

    @functools.cached_property
    def _sampled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Nodes x, their weights, and the rows whose expectations are `Moments`, `(4, nodes)`."""
        x, weights = line_rule(self.kinks)
        phi, slope = self.evaluate(x)
        return x, weights, np.stack([phi, phi * phi, slope * slope, phi * slope * x])

    def moments(self, q: float | np.ndarray) -> Moments:
        """The moments at second moments `q` of the pre-activation, each between SMALLEST_Q and LARGEST_Q."""
        if np.ndim(q) == 0:
            return _scalar_moments(self, float(q))
        flat = np.asarray(q, float).ravel()
        chunks = [self._integrate(flat[i : i + _CHUNK]) for i in range(0, len(flat), _CHUNK)]
        columns = np.concatenate(chunks).T.reshape(4, *np.shape(q))
        return Moments(columns[0], columns[1], columns[2], columns[3] / q)

    def _integrate(self, q: np.ndarray) -> np.ndarray:
        x, weights, rows = self._sampled
        reach = REACH * math.sqrt(q.max())
        inside = slice(*np.searchsorted(x, (-reach, reach)))
        density = np.exp(x[inside] ** 2 * (-0.5 / q[:, None])) * weights[inside]
        # einsum: BLAS would share such thin products out to threads.
        sums = np.einsum("qn,kn->qk", density, rows[:, inside])
        return sums / np.sqrt(2 * math.pi * q)[:, None]

    @functools.cached_property
    def powers(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The exponents p of q^p that (second, slope_second) follow below SMALLEST_Q, and above LARGEST_Q.

        (1, 0) at both ends where phi is linear near the origin and far out; second has 0 where phi(0) is not 0 or phi is
        bounded.
        """
        q = np.array([SMALLEST_Q, 2 * SMALLEST_Q, LARGEST_Q / 2, LARGEST_Q])
        found = self.moments(q)
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = np.log2([column[1:] / column[:-1] for column in (found.second, found.slope_second)])
        # A slope that is 0 at the end itself stays so: 0 / 0.
        low, high = np.nan_to_num(np.round(steps[:, [0, 2]].T, 4), posinf=0.0, neginf=0.0).tolist()
        return (low[0], low[1]), (high[0], high[1])

    def log_moments(self, log_q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log E[phi^2] and log E[phi'^2] at any log q, also where q itself would over- or underflow."""
        inside = np.clip(log_q, math.log(SMALLEST_Q), math.log(LARGEST_Q))
        found = self.moments(np.exp(inside))
        with np.errstate(divide="ignore"):
            logs = np.log(found.second), np.log(found.slope_second)
        beyond = log_q - inside
        if not np.any(beyond):
            return logs
        low, high = self.powers
        powers = (np.where(beyond < 0, a, b) for a, b in zip(low, high, strict=True))
        with np.errstate(invalid="ignore"):
            # A power of 0 stays constant down to q = 0 itself.
            first, second = (np.where(power == 0, 0.0, power * beyond) for power in powers)
        return logs[0] + first, logs[1] + second

    @functools.cached_property
    def homogeneous(self) -> bool:
        """Whether phi(a x) = a phi(x) for all a > 0, as of ReLU: it has no scale of its own."""
        found = self.moments(np.logspace(-10, 10, 9))
        ratio = found.second / np.logspace(-10, 10, 9)
        return bool(np.ptp(ratio) <= 1e-9 * ratio.max() and np.ptp(found.slope_second) <= 1e-9)

    def pair(self, q: float, correlation: float) -> tuple[float, float]:
        """(E[phi(u) phi(v)], E[phi'(u) phi'(v)]) for u, v of variance q and a correlation."""
        root = math.sqrt(q)
        rule = pair_rule(correlation, kinks=tuple(kink / root for kink in self.kinks))
        (phi_u, phi_v), (slope_u, slope_v) = self.at_pair(rule, root)
        return rule.mean(phi_u, phi_v), rule.mean(slope_u, slope_v)

    def kernel(self, q: float, correlation: float, *, size: int = 40, reach: float = REACH) -> float:
        """E[phi(u) phi(v)] on fewer nodes than `pair`, in a fifth of its time: for trajectories.

        Errors relative to E[phi^2], largest over q from 0.1 to 1000: 5e-8 (hard_swish), 4e-8 (tanh), 2e-14 (ReLU); with size
        32 and reach 7.5, which take two thirds of the nodes, 2e-7, 3e-7 and 2e-11.
        """
        root = math.sqrt(q)
        kinks = tuple(kink / root for kink in self.kinks)
        rule = pair_rule(correlation, kinks=kinks, size=size, reach=reach)
        return rule.mean(self.value(root * rule.u), self.value(root * rule.v))

    def at_pair(self, rule: Pair, root: float) -> tuple[np.ndarray, np.ndarray]:
        """phi and phi' at root u and root v, each `(2, nodes)`."""
        phi, slope = self.evaluate(root * np.concatenate([rule.u, rule.v]))
        return phi.reshape(2, -1), slope.reshape(2, -1)


@functools.lru_cache(maxsize=4096)
def _scalar_moments(phi: Response, q: float) -> Moments:
    return Moments(*(column[0] for column in phi.moments(np.array([q]))))


Elementwise = str | Activation | Response | Callable[[jax.Array], jax.Array]
"""What theory takes for an activation: a name in `functional.ACTIVATIONS`, a row of it, or a function of your own."""


def response(activation: Elementwise, *, kinks: Sequence[float] | None = None) -> Response:
    """The `Response` of an activation. The derivative is JAX's, evaluated in float64.

    Args:
      activation: a name, an `Activation`, or an elementwise function of JAX arrays; a `Response` is returned as it is.
      kinks: where a function of your own, or one of its first two derivatives, jumps; None looks for them between -1000 and
        1000 by bisection, which finds those that lie 1/16 apart near the origin.

    Raises:
      ValueError: an unknown name; an activation that is not elementwise, changes the shape, or is constant.
      TypeError: not an activation at all.
    """
    if isinstance(activation, Response):
        return activation
    if kinks is not None:
        return _response(activation, tuple(sorted(float(kink) for kink in kinks)))
    return _response(activation, None)


@functools.lru_cache(maxsize=256)
def _response(activation: str | Activation | Callable, kinks: tuple[float, ...] | None) -> Response:
    if callable(activation) and not isinstance(activation, Activation):
        row, name, function = None, getattr(activation, "__name__", repr(activation)), activation
    else:
        row = get_activation(activation)
        name, function = row.name, row.function
        kinks = row.kinks if kinks is None else kinks
    evaluate = _in_float64(function, name)
    _check_elementwise(evaluate, name)
    value = row.reference if row else lambda x: evaluate(x)[0]
    return Response(name, evaluate, value, _find_kinks(function, name) if kinks is None else kinks)


def _in_float64(function: Callable, name: str) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """x -> (function(x), function'(x)) for NumPy arrays of one axis, on the CPU where there is one."""

    @functools.partial(jax.jit, compiler_options=_COMPILER_OPTIONS)
    def with_slope(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.jvp(function, (x,), (jnp.ones_like(x),))

    def evaluate(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        blocks = np.zeros(-(-len(x) // _BLOCK) * _BLOCK)
        blocks[: len(x)] = x
        with jax.enable_x64(True), jax.default_device(_host()):
            found = [with_slope(block) for block in blocks.reshape(-1, _BLOCK)]
            if any(value.shape != (_BLOCK,) for value, _ in found):
                raise ValueError(
                    f"the activation {name!r} is not elementwise: it maps shape {(_BLOCK,)} to {found[0][0].shape}"
                )
            values, slopes = (np.concatenate(column) for column in zip(*found, strict=True))
        return values[: len(x)], slopes[: len(x)]

    return evaluate


def _host() -> Any:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def _check_elementwise(evaluate: Callable, name: str) -> None:
    """Raises unless an entry of the result depends on the entry of the input at its place alone."""
    x = np.linspace(-2, 2, 16)
    (together, _), (apart, _) = evaluate(x), evaluate(np.concatenate([x[:8], x[:8] ** 2 + 1]))
    if not np.allclose(together[:8], apart[:8], rtol=1e-9, atol=1e-12):
        raise ValueError(
            f"the activation {name!r} is not elementwise: an entry of its result changes with other entries of its input. "
            "Mean-field theory needs a function of one number, applied to each entry"
        )
    if np.ptp(np.concatenate([together, apart])) == 0:
        raise ValueError(f"the activation {name!r} is constant: it lets no signal through")


def _find_kinks(function: Callable, name: str) -> tuple[float, ...]:
    """Where `function`, its derivative or its second derivative jumps: cells are halved toward the larger difference."""
    slope = _in_float64(function, name)
    curvature = _in_float64(lambda x: jax.jvp(function, (x,), (jnp.ones_like(x),))[1], name)

    def levels(x: np.ndarray) -> np.ndarray:
        return np.stack([*slope(x), curvature(x)[1]])

    grid = np.concatenate([np.arange(-16, 16, 1 / 16), np.geomspace(16, 1024, 97)]) + 0.01234
    grid = np.unique(np.concatenate([-grid[grid > 16], grid]))
    scale = 1 + np.abs(levels(grid)).max(axis=1, keepdims=True)
    jumps: list[float] = []
    for level in range(3):
        low, high = grid[:-1], grid[1:]
        for _ in range(44):
            middle = (low + high) / 2
            at_low, at_middle, at_high = (levels(x)[level] for x in (low, middle, high))
            left = np.abs(at_middle - at_low) >= np.abs(at_high - at_middle)
            low, high = np.where(left, low, middle), np.where(left, middle, high)
        difference = np.abs(levels(high)[level] - levels(low)[level])
        jumps.extend(((low + high) / 2)[difference > 1e-6 * scale[level]])
    rounded = np.unique(np.round(jumps, 9))
    return tuple(float(kink) + 0.0 for kink in rounded)
