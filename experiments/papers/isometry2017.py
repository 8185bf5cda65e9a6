"""Resurrecting the Sigmoid (Pennington, Schoenholz, Ganguli 2017, arXiv:1711.04735): which networks are isometric?

Claim as published (abstract, sections 2 and 3): tanh networks from orthogonal kernels on the critical line are
isometric at initialization if the second moment q* of their pre-activations is small: all singular values of the
Jacobian are near 1. Gaussian kernels never are, nor are ReLU networks, even from orthogonal kernels. (Isometric networks
also learn orders of magnitude faster, which is not tested here.)
Settings: fully connected, 256 units, the Jacobian of 64 layers; tanh at (sigma_w^2, sigma_b^2) = (1.05, 2e-5) on the
critical line. The first pre-activations are given the second moment q* = 0.026 of the fixed point, for which theory
predicts the spectrum. The limit of wide networks is computed below by free probability, as in the paper.
Smaller here: width is finite; singular values below 1e-7 of the largest are rounding errors in float32, so that the
median of Gaussian and ReLU networks is an upper bound and the ratio a lower one.
Command: `cnnjax reproduce isometry2017`; `--tier full` takes 1,024 units (16 times the multiply-adds of the small one;
never run).
Found: the orthogonal tanh network has 1.574 [1.564, 1.583] where the limit of width has 1.587; the linear one 1.000; the
Gaussian one more than 1.6e7 and the ReLU one more than 4.2e7, as much as float32 resolves. The start decides: from q =
0.011 instead of q* the tanh network has 1.41, from q = 1 it has 4.0 (5 seeds each). 2026-11-21, JAX 0.10.2; 2 minutes of
processor time.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from cnnjax.cli import main_of_study
from cnnjax.probes import jacobian_spectrum, mean_field
from cnnjax.study import Study
from cnnjax.study.claims import Claim, Reduced, Where, level, near

LAYERS = 64
SIGMA_W2, SIGMA_B2 = 1.05, 2e-5
Q_STAR = mean_field("tanh", sigma_w2=SIGMA_W2, sigma_b2=SIGMA_B2).q_star
CRITICAL = {"activation": "tanh", "gain": math.sqrt(SIGMA_W2), "bias_std": math.sqrt(SIGMA_B2)}


def largest_over_median(squares: np.ndarray, weights: np.ndarray, *, layers: int) -> float:
    """The largest singular value over the median of a product of `layers` D W, in the limit of width.

    W is orthogonal, the entries of D are independent, and their squares d take the values `squares`. With M the moment
    generating function of one layer's D^2, M(w) = E[d / (w - d)], that of the product takes the same value at

        x = w^L (M(w) / (1 + M(w)))^(L - 1),

    because S-transforms multiply (Pennington et al. 2017, section 2). The eigenvalues x of J J^T have the density
    |Im M| / (pi x); the largest is where dx / dw = 0.

    Args:
      squares: values of d, positive and not all equal, `(values,)`.
      weights: their probabilities, `(values,)`.
      layers: the number L, 2 or more.
    """

    def moment(w: complex) -> complex:
        return np.sum(weights * squares / (w - squares))

    def log_x(w: complex) -> complex:
        m = moment(w)
        return layers * np.log(w) + (layers - 1) * np.log(m / (1 + m))

    def slope(w: complex) -> complex:
        m, change = moment(w), -np.sum(weights * squares / (w - squares) ** 2)
        return layers / w + (layers - 1) * change / (m * (1 + m))

    def step(_: float, state: np.ndarray) -> list[complex]:
        return [1 / slope(state[0]), -abs(moment(state[0]).imag) / math.pi]

    def half(_: float, state: np.ndarray) -> float:
        return state[1].real - 0.5

    half.terminal = True
    top = float(squares.max())
    edge = brentq(slope, top * (1 + 1e-9), top * layers**2)
    # The slope is 0 at the edge itself; x is real to third order on a line straight up from it.
    start = edge * (1 + 1e-3j)
    from_edge = (log_x(start).real, log_x(start).real - 100)
    path = solve_ivp(step, from_edge, [start, 0j], events=half, rtol=1e-8, atol=1e-10)
    return math.exp((log_x(edge) - path.t_events[0][0]) / 2)


def computed() -> float:
    """`largest_over_median` of the tanh network at its fixed point, by Gauss-Hermite quadrature."""
    z, weights = np.polynomial.hermite_e.hermegauss(100)
    return largest_over_median(
        SIGMA_W2 / np.cosh(math.sqrt(Q_STAR) * z) ** 4, weights / weights.sum(), layers=LAYERS
    )


def singular_values(
    model: nn.Module, variables: dict, images: jax.Array, labels: jax.Array, key: jax.Array
) -> jax.Array:
    """Of the Jacobian from the first pre-activations to the last hidden ones, the largest first, `(width,)`.

    The image is scaled so that the second moment of its pre-activations is q*.
    """
    image = images[0]
    z = image.reshape(-1) @ variables["params"]["stem"]["linear"]["kernel"]
    scale = jnp.sqrt((Q_STAR - SIGMA_B2) / jnp.mean(z**2))
    last = f"stack[{LAYERS - 1}]/layer"
    return jacobian_spectrum(model, variables, image * scale, start="stem", end=last).values


def spread(values: np.ndarray) -> float:
    """The largest over the median; infinite where half of them are 0."""
    with np.errstate(divide="ignore"):
        return values[0] / np.median(values)


SPREAD = Reduced("singular_values", spread, "s_max / s_median")
LIMIT = computed()
SOURCE = "Pennington et al. 2017, section 2"
HERE = Where(seeds=10, at_least={"width": 256}, exactly={"depth": LAYERS + 2})

STUDY = Study(
    name="isometry2017",
    question="Which networks keep all singular values of their Jacobian near 1?",
    papers=["Pennington, Schoenholz & Ganguli 2017, arXiv:1711.04735"],
    model="mlp",
    options={"width": 256, "depth": LAYERS + 2},
    grid={
        "network": {
            "tanh, orthogonal": {**CRITICAL, "initializer": "orthogonal"},
            "tanh, Gaussian": {**CRITICAL, "initializer": "gaussian"},
            "linear, orthogonal": {"activation": "identity", "initializer": "orthogonal"},
            "ReLU, orthogonal": {"activation": "relu", "initializer": "orthogonal", "gain": math.sqrt(2)},
        }
    },
    seeds=10,
    steps=0,
    measures={"singular_values": singular_values},
    claims=[
        Claim(
            name="tanh, orthogonal",
            statement="An orthogonal tanh network of 64 layers with a small q* is isometric.",
            source=SOURCE,
            rule=level(SPREAD, {"network": "tanh, orthogonal"}, at_most=2),
            where=HERE,
        ),
        Claim(
            name="as computed",
            statement=f"Its largest singular value is {LIMIT:.3f} times the median, as free probability has it.",
            source="computed here by the method of Pennington et al. 2017, section 2",
            printed=round(LIMIT, 3),
            rule=near(SPREAD, {"network": "tanh, orthogonal"}, LIMIT, within=0.05),
            where=HERE,
        ),
        Claim(
            name="tanh, Gaussian",
            statement="A Gaussian tanh network at the same point is not isometric.",
            source=SOURCE,
            rule=level(SPREAD, {"network": "tanh, Gaussian"}, at_least=1e3),
            where=HERE,
        ),
        Claim(
            name="linear, orthogonal",
            statement="An orthogonal linear network is isometric at any depth.",
            source=SOURCE,
            printed=1.0,
            rule=near(SPREAD, {"network": "linear, orthogonal"}, 1.0, within=0.05, by="every seed"),
            where=HERE,
        ),
        Claim(
            name="ReLU, orthogonal",
            statement="An orthogonal ReLU network is not isometric.",
            source=SOURCE,
            rule=level(SPREAD, {"network": "ReLU, orthogonal"}, at_least=1e3),
            where=HERE,
        ),
    ],
    quick={"options": {"width": 16, "depth": LAYERS + 2}, "seeds": 1},
)
FULL = STUDY.replace(name="isometry2017-full", options={"width": 1024, "depth": LAYERS + 2})

if __name__ == "__main__":
    main_of_study(STUDY)
