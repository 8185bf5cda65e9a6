"""Shattered gradients: how fast the gradient forgets itself when the input moves (Balduzzi et al. 2017)."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def autocorrelation(series: jax.Array, *, lags: int) -> jax.Array:
    """The sample autocorrelation of a series of vectors.

        r_k = sum_i <g_i - m, g_(i+k) - m> / sum_i |g_i - m|^2,   m the mean of all

    White noise has r_k = 0 with deviation 1 / sqrt(points) for k > 0; a straight line r_1 near 1.

    Args:
      series: `(points, ...)`; whatever follows the first axis is one vector.
      lags: the largest k.

    Returns:
      r_0 = 1 to r_lags, `(lags + 1,)`; NaN for a constant series.

    Raises:
      ValueError: `lags` is not between 1 and the number of points - 2.
    """
    points = series.shape[0]
    if not 1 <= lags <= points - 2:
        raise ValueError(f"the lags of {points} points go from 1 to {points - 2}; got lags={lags}")
    largest = jnp.max(jnp.abs(series))
    rows = (series / jnp.where(largest == 0, 1, largest)).reshape(points, -1)
    rows = rows - jnp.mean(rows, axis=0, keepdims=True)
    sums = [jnp.sum(rows[: points - k] * rows[k:]) for k in range(lags + 1)]
    return jnp.stack(sums) / sums[0]


def gradient_autocorrelation(
    model: nn.Module,
    variables: Mapping[str, Any],
    inputs: jax.Array,
    *,
    lags: int = 15,
    output: int = 0,
    train: bool = True,
    precision: str | None = "highest",
) -> jax.Array:
    """The autocorrelation of the gradient of one logit over a 1-D family of inputs.

    The paper's family is 256 points on [-2, 2], `jnp.linspace(-2, 2, 256)[:, None]` for a model of one input (Balduzzi et
    al. 2017, figure 1); a line of images, `base + t * direction`, does as well. With `train` batch norm takes its
    statistics from the family, as in the paper, and the gradient is that of the sum of the logit over the family.
    May be called inside jit and vmap.

    Args:
      model: a Flax module, called as `model(inputs, train=...)`; needs no probe point.
      variables: of the model.
      inputs: `(points, ...)`, evenly spaced, in order, floating point.
      lags: the largest lag.
      output: which logit.
      train: whether norms use the statistics of the inputs.
      precision: of all products (`jax.default_matmul_precision`); None leaves the platform's default.

    Returns:
      r_0 = 1 to r_lags, `(lags + 1,)`.

    Raises:
      TypeError: the inputs are not floating point.
      ValueError: `lags` is out of its range, or there is no such logit.
    """
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise TypeError(f"inputs must be floating point; got {inputs.dtype}: use inputs.astype(jnp.float32)")

    def logits(x: jax.Array) -> jax.Array:
        return model.apply(variables, x, train=train, mutable=["batch_stats"])[0]

    width = jax.eval_shape(logits, inputs).shape[-1]
    if not 0 <= output < width:
        raise ValueError(f"output must be one of the {width} logits, 0 to {width - 1}; got {output}")
    with jax.default_matmul_precision(precision):
        gradient = jax.grad(lambda x: jnp.sum(logits(x)[:, output]))(inputs)
    return autocorrelation(gradient, lags=lags)
