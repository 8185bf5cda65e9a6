"""Deletion and insertion: whether the pixels that a map calls important decide the class, as a number."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.explain.cut import cut
from cnnjax.explain.inputs import spread
from cnnjax.explain.target import Target, chosen_scores, resolve_target


class Curve(NamedTuple):
    """The probability of a class while pixels are replaced in the order of a map.

    Attributes:
      fractions: `(steps + 1,)`, of the pixels that are replaced, from 0 to 1.
      probabilities: `(batch, steps + 1)`.
      areas: `(batch,)`, under the curve of each image, by the trapezoid rule: from 0 to 1.
    """

    fractions: jax.Array
    probabilities: jax.Array
    areas: jax.Array


def deletion(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    maps: jax.Array,
    *,
    target: Target = None,
    blank: jax.Array | float = 0.0,
    steps: int = 32,
) -> Curve:
    """The deletion curve (Petsiuk et al. 2018, section 4.1): pixels are taken away, the most important first.

    The smaller the area, the more faithful is the map. May be called inside jit.

    Args:
      model: called as `model(images, train=False)`.
      variables: of the model.
      images: `(batch, *spatial, channels)`.
      maps: the importance of each pixel, `(batch, *spatial)`. Of equal ones the first in memory comes first.
      target: the class, one for all images or `(batch,)`; None takes the one predicted of the whole image.
      blank: what takes the place of pixels; broadcasts to the images. 0 is the mean color of normalized images.
      steps: points of the curve but the first, at most one a pixel.

    Raises:
      ValueError: the maps are not of the size of the images, no such class, `steps` out of range, or a blank that does not
        broadcast.
      TypeError: the class is no integer.
    """
    return _curve(model, variables, images, maps, target, images, spread(blank, images, "blank"), steps)


def insertion(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    maps: jax.Array,
    *,
    target: Target = None,
    blank: jax.Array | float | None = None,
    steps: int = 32,
) -> Curve:
    """The insertion curve (Petsiuk et al. 2018, section 4.1): pixels are put into a blurred image, the most important first.

    The greater the area, the more faithful is the map. May be called inside jit.

    Args:
      model, variables, images, maps, target, steps: as in `deletion`.
      blank: what the pixels are put into; None takes `blurred(images)`.

    Raises: as in `deletion`.
    """
    start = blurred(images) if blank is None else jnp.asarray(blank, images.dtype)
    return _curve(
        model, variables, images, maps, target, jnp.broadcast_to(start, images.shape), images, steps
    )


def blurred(images: jax.Array, *, size: int = 11, sigma: float = 5.0) -> jax.Array:
    """Images `(batch, *spatial, channels)` under a Gaussian window, Petsiuk et al.'s by default.

    At the border the weights of the pixels that are there add up to 1.

    Args:
      images: of any rank.
      size: width of the window in pixels, an odd number.
      sigma: deviation of the Gaussian in pixels.
    """
    for axis in range(1, images.ndim - 1):
        distance = np.abs(np.subtract.outer(*[np.arange(images.shape[axis])] * 2))
        weights = np.where(distance <= size // 2, np.exp(-0.5 * (distance / sigma) ** 2), 0)
        weights /= weights.sum(axis=0)
        mixed = jnp.tensordot(images, jnp.asarray(weights, images.dtype), axes=(axis, 0))
        images = jnp.moveaxis(mixed, -1, axis)
    return images


def _curve(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    maps: jax.Array,
    target: Target,
    start: jax.Array,
    end: jax.Array,
    steps: int,
) -> Curve:
    """From `start` to `end`, pixel by pixel in the order of the maps."""
    if maps.shape != images.shape[:-1]:
        raise ValueError(
            f"maps must hold a number for each pixel, shape {images.shape[:-1]}; got {maps.shape}: resize them"
        )
    pixels = maps[0].size
    if not 1 <= steps <= pixels:
        raise ValueError(f"steps must be from 1 to the {pixels} pixels of an image; got {steps}")
    function, _ = cut(model, variables, images, None)
    classes = resolve_target(function(images), target)
    order = jnp.argsort(-maps.reshape(len(maps), -1), axis=-1)
    ranks = jnp.argsort(order, axis=-1).reshape(*maps.shape, 1)

    def probability(replaced: jax.Array) -> jax.Array:
        mixed = jnp.where(jnp.broadcast_to(ranks < replaced, images.shape), end, start)
        return chosen_scores(jax.nn.softmax(function(mixed)), classes)

    counts = np.rint(np.linspace(0, pixels, steps + 1)).astype(np.int32)
    probabilities = jax.lax.map(probability, jnp.asarray(counts)).T
    fractions = jnp.asarray(counts / pixels, probabilities.dtype)
    return Curve(fractions, probabilities, jnp.trapezoid(probabilities, fractions[None], axis=-1))
