"""What a layer's kernel and bias are drawn from: the variance of their entries."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import initializers
from cnnjax.functional.activation import get_activation
from cnnjax.initializers import INITIALIZERS, fans
from cnnjax.models import Model

# Entries drawn to estimate the variance of an initializer that is not in the table, to 0.2 %.
_DRAWN = 2**19


class Drawn(NamedTuple):
    """The distribution of a kernel's entries, as far as theory needs it.

    Attributes:
      variance: of an entry that is not zero by construction.
      centered: whether only the center of the window is drawn (delta-orthogonal).
    """

    variance: float
    centered: bool = False


def kernel_distribution(choice: Any, shape: Sequence[int], *, groups: int = 1) -> Drawn | None:
    """The `Drawn` of what `initializers.initializer` takes; None if the kernel isn't random.

    Exact for the initializers of the table; for others a mean over many drawn entries.

    Args:
      choice: a name, a factory, or an initializer.
      shape: of the kernel, `(*spatial, in_channels // groups, out_channels)`.
      groups: of the convolution.
    """
    maker, options = _unwrapped(choice)
    name = next((name for name, factory in INITIALIZERS.items() if factory is maker), None)
    if name in ("constant", "zeros"):
        return None
    if name is None:
        made = initializers.initializer(choice, groups=groups)
        return Drawn(_mean_square(made, tuple(shape)))
    gain = options["gain"]
    fan_in, fan_out = fans(shape, groups=groups)
    variance = _VARIANCES[name](fan_in, fan_out, {**options, "shape": shape, "groups": groups})
    return Drawn(gain * gain * variance, centered=name == "delta_orthogonal")


def bias_variance(bias_init: Callable) -> float:
    """The mean square of a bias: exact for the zeros and the normal biases of `cnnjax.models`, else from many draws."""
    model = getattr(bias_init, "__self__", None)
    if isinstance(model, Model):
        return float(model.bias_std) ** 2
    return _mean_square(bias_init, (1024,))


def _unwrapped(choice: Any) -> tuple[Any, dict[str, Any]]:
    """The factory at the bottom of partial applications of itself and of `initializers.initializer`, and their options.

    As there, what an inner one has decided stays, and gains multiply.
    """
    options: dict[str, Any] = {"gain": 1.0}
    while isinstance(choice, functools.partial):
        gain = float(options["gain"]) * float(choice.keywords.get("gain", 1.0))
        options = {**options, **choice.keywords, "gain": gain}
        is_chooser = choice.func is initializers.initializer
        choice = choice.args[0] if is_chooser and choice.args else choice.func
    return (INITIALIZERS.get(choice, choice) if isinstance(choice, str) else choice), options


def _he(fan_in: int, fan_out: int, options: dict[str, Any]) -> float:
    return get_activation(options.get("activation", "relu")).gain ** 2 / fan_in


def _lecun(fan_in: int, fan_out: int, options: dict[str, Any]) -> float:
    return 1 / fan_in


def _xavier(fan_in: int, fan_out: int, options: dict[str, Any]) -> float:
    return 2 / (fan_in + fan_out)


def _gaussian(fan_in: int, fan_out: int, options: dict[str, Any]) -> float:
    return float(options.get("sigma_w", 1.0)) ** 2 / fan_in


def _orthogonal(fan_in: int, fan_out: int, options: dict[str, Any]) -> float:
    # A matrix of orthonormal rows or columns, n_in x n_out, has a mean square of 1 / max(n_in, n_out).
    return 1 / max(fan_in, options["shape"][-1] // options["groups"])


def _delta_orthogonal(fan_in: int, fan_out: int, options: dict[str, Any]) -> float:
    *_, group_in, out_channels = options["shape"]
    return 1 / max(group_in, out_channels // options["groups"])


_VARIANCES: dict[str, Callable[[int, int, dict[str, Any]], float]] = {
    "he_normal": _he,
    "he_uniform": _he,
    "lecun_normal": _lecun,
    "lecun_uniform": _lecun,
    "xavier_normal": _xavier,
    "xavier_uniform": _xavier,
    "gaussian": _gaussian,
    "orthogonal": _orthogonal,
    "delta_orthogonal": _delta_orthogonal,
}


def _mean_square(initialize: Callable, shape: tuple[int, ...]) -> float:
    draws = -(-_DRAWN // math.prod(shape))
    keys = jax.random.split(jax.random.key(0), min(draws, 256))
    drawn = jax.lax.map(lambda key: jnp.mean(jnp.square(initialize(key, shape, jnp.float32))), keys)
    return float(np.mean(np.asarray(drawn, np.float64)))
