"""Activation functions, and the one table of them that every model, initializer and study reads."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from cnnjax.functional.dtypes import at_least_float32
from cnnjax.functional.names import lookup

_LEAKY_SLOPE = 0.01  # Maas et al. 2013
_PRELU_SLOPE = 0.25  # He et al. 2015, section 2.1
# Klambauer et al. 2017, equation 14: the fixed point of the moments at (0, 1).
_SELU_SCALE = 1.0507009873554805
_SELU_ALPHA = 1.6732632423543772


def identity(x: jax.Array) -> jax.Array:
    """x: the network stays linear (Saxe et al. 2014)."""
    return x


def sigmoid(x: jax.Array) -> jax.Array:
    """1 / (1 + exp(-x))."""
    return jax.nn.sigmoid(x)


def tanh(x: jax.Array) -> jax.Array:
    """The hyperbolic tangent (LeCun et al. 1998)."""
    return jnp.tanh(x)


@jax.custom_jvp
def softsign(x: jax.Array) -> jax.Array:
    """x / (1 + |x|) (Bergstra et al. 2009)."""
    return x / (1 + jnp.abs(x))


@softsign.defjvp
def _softsign_jvp(primals, tangents):
    # 1 / (1 + |x|)^2. The quotient rule's difference cancels at large |x|, down to 0 and below it.
    (x,), (tangent,) = primals, tangents
    root = 1 / (1 + jnp.abs(x))
    return softsign(x), root * root * tangent


def relu(x: jax.Array) -> jax.Array:
    """max(x, 0), with derivative 0 at 0 (Nair & Hinton 2010)."""
    return jax.nn.relu(x)


def leaky_relu(x: jax.Array) -> jax.Array:
    """x where positive, else 0.01 x (Maas et al. 2013)."""
    return jax.nn.leaky_relu(x, _LEAKY_SLOPE)


def prelu(x: jax.Array, slope: jax.Array | float = _PRELU_SLOPE) -> jax.Array:
    """x where positive, else slope * x, with a learned slope (He et al. 2015, section 2.1).

    Args:
      x: `(batch, *spatial, channels)`.
      slope: `(channels,)`, or a scalar shared by all channels; it starts at 0.25.

    Raises ValueError if `slope` has another shape.
    """
    slope = jnp.asarray(slope, x.dtype)
    if slope.ndim > 0 and slope.shape != x.shape[-1:]:
        raise ValueError(
            f"slope must be a scalar or have shape {x.shape[-1:]} (channels,), got {slope.shape}"
        )
    return jnp.where(x >= 0, x, x * jnp.broadcast_to(slope, x.shape))


def elu(x: jax.Array) -> jax.Array:
    """x where positive, else exp(x) - 1 (Clevert et al. 2016)."""
    return jax.nn.elu(x)


def selu(x: jax.Array) -> jax.Array:
    """The scaled ELU whose activations are drawn to mean 0 and variance 1 (Klambauer et al. 2017)."""
    return jax.nn.selu(x)


def gelu(x: jax.Array) -> jax.Array:
    """x Phi(x), with the exact normal distribution function Phi (Hendrycks & Gimpel 2016)."""
    return jax.nn.gelu(x, approximate=False)


def silu(x: jax.Array) -> jax.Array:
    """x sigmoid(x), also called swish (Elfwing et al. 2018)."""
    return jax.nn.silu(x)


def hard_swish(x: jax.Array) -> jax.Array:
    """x relu6(x + 3) / 6 (Howard et al. 2019, section 5.2)."""
    return jax.nn.hard_swish(x)


def relu6(x: jax.Array) -> jax.Array:
    """min(max(x, 0), 6) (Krizhevsky 2010)."""
    return jax.nn.relu6(x)


def hard_sigmoid(x: jax.Array) -> jax.Array:
    """relu6(x + 3) / 6 (Howard et al. 2019, section 5.2)."""
    return jnp.clip(x + 3, 0, 6) / 6


@dataclass(frozen=True)
class Activation:
    """An activation and what the theory of signal propagation needs to know of it.

    Attributes:
      name: under which `ACTIVATIONS` holds it.
      function: from an array to one of the same shape and type; a second argument is its learned slope.
      reference: the same function of a NumPy float64 array, for quadrature. It touches no device.
      max_slope: the supremum of |phi'|. A unit counts as saturated where |phi'(z)| < 0.1 max_slope and as
        dead where phi'(z) = 0.
      kinks: points where a derivative jumps; quadrature is split there.
      initial_slope: where the learned slope starts; None for an activation without parameters.
    """

    name: str
    function: Callable[..., jax.Array]
    reference: Callable[[np.ndarray], np.ndarray]
    _: KW_ONLY
    max_slope: float = 1.0
    kinks: tuple[float, ...] = ()
    initial_slope: float | None = None

    @cached_property
    def gain(self) -> float:
        """1 / sqrt(E[phi(z)^2]), z standard normal, by quadrature in float64.

        Kernels of deviation gain / sqrt(fan_in) after this activation keep the second moment of the
        pre-activations at 1 from layer to layer (He et al. 2015, equation 10, for ReLU: sqrt 2).
        `torch.nn.init.calculate_gain` agrees for the ReLU family only. Elsewhere it is empirical: 5/3 for
        tanh (1.5925 here), 1 for sigmoid (1.8462 here), 3/4 for SELU (1 here).
        """
        return 1 / math.sqrt(self._second_moment)

    @cached_property
    def variance_gain(self) -> float:
        """1 / sqrt(Var[phi(z)]), z standard normal: phi times this has variance 1 (Brock et al. 2021a, section 4.3).

        For kernels whose fans have mean 0, so that the mean of phi does not pass; for ReLU sqrt(2 / (1 - 1 / pi)).
        """
        mean = gaussian_mean(self.reference, splits=self.kinks)
        return 1 / math.sqrt(self._second_moment - mean**2)

    @cached_property
    def _second_moment(self) -> float:
        return gaussian_mean(lambda z: self.reference(z) ** 2, splits=self.kinks)


def gaussian_mean(function: Callable[[np.ndarray], np.ndarray], *, splits: Sequence[float] = ()) -> float:
    """Return E[function(z)], z standard normal, by Gauss-Legendre quadrature in float64.

    `splits` are the points where `function` is not smooth. The error is near 1e-14 for what is smooth on the
    scale of 1 between them and grows slower than exp(z^2 / 4). The tail beyond |z| = 12 is left out.
    """
    nodes, weights = np.polynomial.legendre.leggauss(32)
    edges = np.unique(np.concatenate([np.arange(-12.0, 13.0), np.asarray(splits, float)]))
    centers, halves = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    z = centers[:, None] + halves[:, None] * nodes
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return float(np.sum(halves[:, None] * weights * density * function(z)))


def derivative(activation: "str | Activation") -> Callable[..., jax.Array]:
    """Return the elementwise derivative of an activation: what the backward pass multiplies by.

    The function takes `x` of any shape (and a learned slope, where there is one) and keeps its type. Below
    float32 it computes in float32, because 1 - tanh(x)^2 and its like cancel.

    Raises ValueError for an unknown name, TypeError for neither a name nor an `Activation`; the function raises
    TypeError unless `x` is floating-point.
    """
    function = get_activation(activation).function

    def slope_at(x: jax.Array, *parameters: jax.Array) -> jax.Array:
        wide = at_least_float32(x, "derivative")
        _, slope = jax.jvp(lambda z: function(z, *parameters), (wide,), (jnp.ones_like(wide),))
        return slope.astype(x.dtype)

    return slope_at


def get_activation(activation: "str | Activation") -> Activation:
    """Return the row of `ACTIVATIONS` under a name; an `Activation` of your own passes through.

    Raises ValueError for an unknown name (with the nearest one), TypeError for anything else.
    """
    if isinstance(activation, Activation):
        return activation
    if callable(activation):
        raise TypeError(
            f"an activation must be a name or an Activation, got the function {activation!r}: "
            "wrap it as Activation(name, function, reference, max_slope=...)"
        )
    return lookup(ACTIVATIONS, activation, "activation")


def _leaky_reference(slope: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda z: np.where(z >= 0, z, slope * z)


def _elu_reference(z: np.ndarray) -> np.ndarray:
    return np.where(z > 0, z, np.expm1(np.minimum(z, 0)))


def _selu_reference(z: np.ndarray) -> np.ndarray:
    return _SELU_SCALE * np.where(z > 0, z, _SELU_ALPHA * np.expm1(np.minimum(z, 0)))


_ROWS = (
    Activation("identity", identity, lambda z: z),
    Activation("sigmoid", sigmoid, special.expit, max_slope=0.25),
    Activation("tanh", tanh, np.tanh),
    Activation("softsign", softsign, lambda z: z / (1 + np.abs(z)), kinks=(0,)),
    Activation("relu", relu, lambda z: np.maximum(z, 0), kinks=(0,)),
    Activation("leaky_relu", leaky_relu, _leaky_reference(_LEAKY_SLOPE), kinks=(0,)),
    Activation("prelu", prelu, _leaky_reference(_PRELU_SLOPE), kinks=(0,), initial_slope=_PRELU_SLOPE),
    Activation("elu", elu, _elu_reference, kinks=(0,)),
    Activation("selu", selu, _selu_reference, max_slope=_SELU_SCALE * _SELU_ALPHA, kinks=(0,)),
    # Phi(x) + x Phi'(x) is largest at x = sqrt 2.
    Activation("gelu", gelu, lambda z: z * special.ndtr(z), max_slope=1.1289041452),
    # s + x s (1 - s), s = sigmoid(x), is largest where x tanh(x / 2) = 2, at x = 2.3993572805.
    Activation("silu", silu, lambda z: z * special.expit(z), max_slope=1.0998393201),
    # (2 x + 3) / 6 below the kink at 3.
    Activation(
        "hard_swish", hard_swish, lambda z: z * np.clip(z + 3, 0, 6) / 6, max_slope=1.5, kinks=(-3, 3)
    ),
    Activation("relu6", relu6, lambda z: np.clip(z, 0, 6), kinks=(0, 6)),
)
ACTIVATIONS: Mapping[str, Activation] = MappingProxyType({row.name: row for row in _ROWS})
HARD_SIGMOID = Activation(
    "hard_sigmoid", hard_sigmoid, lambda z: np.clip(z + 3, 0, 6) / 6, max_slope=1 / 6, kinks=(-3, 3)
)
"""Of gates (`nn.SqueezeExcite`); the table holds what the layers of a network may have."""
