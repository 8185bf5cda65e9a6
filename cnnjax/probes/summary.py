"""A few numbers that say how the gradient fared: ratio, slope, the depth at which it underflows, and a word for it."""

from typing import Literal

import jax.numpy as jnp
import numpy as np

from cnnjax.probes.flow import Flow

FlowClass = Literal["vanishing", "stable", "exploding", "not finite"]

VANISHING = -4.0
"""A net's gradient vanishes when `gradient_ratio` is below this: a hundredth of the size at the last hidden layer."""
EXPLODING = 4.0
"""A net's gradient explodes when `gradient_ratio` is above this: a hundred times the size at the last hidden layer."""


def gradient_ratio(flow: Flow) -> float:
    """log10 of the gradient's second moment at the first layer over that at the last hidden layer.

    The gradient is the one with respect to pre-activations. The head is left out, because its gradient comes straight
    from the loss: it is the last layer if its activation is the identity, as in all of `cnnjax.models`. 0 means
    unchanged, -2 that the gradient's root mean square shrinks to a tenth; -inf that it is exactly zero at the first layer.
    """
    hidden = _hidden(flow)
    if hidden[-1] == -np.inf:
        return -np.inf
    return float(hidden[0] - hidden[-1])


def gradient_slope(flow: Flow) -> float:
    """The slope of log10 of the gradient's second moment per layer, by least squares over the hidden layers.

    Positive: the gradient shrinks on its way from the head to the first layer. 10^-slope is the factor that theory
    calls chi (He et al. 2015: 1; ReLU under Xavier: 0.5). Layers where it is exactly zero or not finite are left out; NaN
    with fewer than two others.
    """
    hidden = _hidden(flow)
    index = np.flatnonzero(np.isfinite(hidden))
    if len(index) < 2:
        return float("nan")
    return float(np.polyfit(index, hidden[index], 1)[0])


def underflow_depth(slope: float, *, last: float = 0.0, dtype: str = "float32") -> float:
    """The number of layers after which the gradient's root mean square is below a format's smallest normal number.

    Args:
      slope: from `gradient_slope`, decades of second moment per layer.
      last: log10 of the second moment at the last hidden layer.
      dtype: "float32", "bfloat16", "float16" or any other float format of JAX.

    Returns:
      (last - 2 log10(tiny)) / slope, 0 where it is there already, infinity when the gradient does not shrink.

    Raises:
      ValueError: `dtype` is no float format.
    """
    try:
        tiny = float(jnp.finfo(jnp.dtype(dtype)).tiny)
    except (TypeError, ValueError):
        raise ValueError(f"dtype must be a float format such as 'bfloat16'; got {dtype!r}") from None
    if not slope > 0:
        return float("inf")
    return max(float((last - 2 * np.log10(tiny)) / slope), 0.0)


def classify(flow: Flow) -> FlowClass:
    """ "vanishing", "stable" or "exploding" by `gradient_ratio` against `VANISHING` and `EXPLODING`.

    "not finite" when a gradient is infinite or NaN. A gradient that is exactly zero at the first layer vanishes.
    """
    hidden = _hidden(flow)
    if np.any(np.isnan(hidden) | (hidden == np.inf)):
        return "not finite"
    ratio = gradient_ratio(flow)
    if ratio < VANISHING:
        return "vanishing"
    return "exploding" if ratio > EXPLODING else "stable"


def _hidden(flow: Flow) -> np.ndarray:
    moments = np.asarray(flow.columns["gradient_log10_second_moment"], np.float64)
    if moments.ndim != 1:
        raise ValueError(
            f"a summary takes the flow of one network; this one has columns of shape {moments.shape}"
        )
    has_head = len(moments) > 1 and flow.activations[-1] == "identity"
    return moments[:-1] if has_head else moments
