"""Integrated gradients: how a score came about, shared out over the pixels."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.explain.cut import cut
from cnnjax.explain.inputs import check_floating, spread
from cnnjax.explain.target import Target, chosen_scores, resolve_target


class IntegratedGradients(NamedTuple):
    """What each entry contributes to the score, and how far the sum is from the score.

    Attributes:
      maps: the contributions, of the shape of the images or of what the layer puts out.
      difference: `(batch,)`, the score minus that of the baseline.
      completeness_error: `(batch,)`, the sum of the contributions minus `difference`: 0 if the integral were exact.
    """

    maps: jax.Array
    difference: jax.Array
    completeness_error: jax.Array


def integrated_gradients(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    *,
    target: Target = None,
    layer: str | None = None,
    baseline: jax.Array | float = 0.0,
    steps: int = 64,
) -> IntegratedGradients:
    """Integrated gradients (Sundararajan et al. 2017, equation 1): (x - x') * integral of the gradient from x' to x.

    The integral over the straight line is taken by Gauss-Legendre quadrature, one gradient a step, one after the other.
    May be called inside jit.

    Args:
      model: called as `model(images, train=False)`.
      variables: of the model.
      images: `(batch, *spatial, channels)`.
      target: the class, one for all images or `(batch,)`; None takes the predicted one.
      layer: integrate over what this layer puts out, by its name (see `cut`); None integrates over the images.
      baseline: x', which broadcasts to the images (or to what the layer puts out). 0 is the mean color of normalized
        images.
      steps: gradients to compute; more make the completeness error smaller.

    Raises:
      ValueError: no such layer or class, `steps` is less than 1, or the baseline does not broadcast.
      TypeError: the images are not floating point, or the class is no integer.
    """
    if steps < 1:
        raise ValueError(f"integrated gradients take 1 step or more; got steps={steps}")
    function, maps = cut(model, variables, images, layer)
    check_floating(maps)
    start = spread(baseline, maps, "baseline")
    classes = resolve_target(function(maps), target)

    def score(a: jax.Array) -> jax.Array:
        return chosen_scores(function(a), classes)

    def add(total: jax.Array, node: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        place, weight = node
        return total + weight * jax.grad(lambda a: jnp.sum(score(a)))(start + place * (maps - start)), None

    places, weights = np.polynomial.legendre.leggauss(steps)
    nodes = jnp.asarray((places + 1) / 2, maps.dtype), jnp.asarray(weights / 2, maps.dtype)
    mean_gradient, _ = jax.lax.scan(add, jnp.zeros_like(maps), nodes)
    contributions = (maps - start) * mean_gradient
    difference = score(maps) - score(start)
    total = jnp.sum(contributions.astype(jnp.float32), axis=tuple(range(1, maps.ndim)))
    return IntegratedGradients(contributions, difference, total - difference)
