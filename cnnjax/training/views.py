"""Test-time augmentation: a prediction averaged over several views of each image.

What is averaged follows the source of the views. Logits are what airbench averages: a geometric mean of probabilities,
in which a confident view weighs more. Probabilities are what Krizhevsky et al. average: an arithmetic mean, to
which no view adds more than its share, which suits crops that may have missed the object.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from cnnjax.data import augment
from cnnjax.data.augment.checks import check_images
from cnnjax.functional.names import lookup


@dataclasses.dataclass(frozen=True, kw_only=True)
class Views:
    """A row of `VIEWS`.

    Attributes:
      make: of images `(batch, height, width, channels)` and the side of a crop, `(views, batch, ...)`.
      weights: of the views; they add up to 1.
      probabilities: whether probabilities are averaged, and not logits.
      cropped: whether the views are smaller than the images.
    """

    make: Callable[[jax.Array, int], jax.Array]
    weights: tuple[float, ...]
    probabilities: bool = False
    cropped: bool = False


def _shifted(images: jax.Array) -> jax.Array:
    """The images and their copies one pixel down and to the right, and one up and to the left; edges are reflected."""
    height, width = images.shape[1:3]
    if min(height, width) < 2:
        raise ValueError(f"flip_shift takes images of 2x2 pixels or more, got {height}x{width}")
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    return jnp.stack([images, padded[:, :height, :width], padded[:, 2:, 2:]])


def _mirrored(views: jax.Array) -> jax.Array:
    """Each view and its mirror image: `(views, ...)` -> `(2 views, ...)`."""
    return jnp.concatenate([views, views[:, :, :, ::-1]])


VIEWS: Mapping[str, Views] = MappingProxyType(
    {
        "none": Views(make=lambda images, size: images[None], weights=(1.0,)),
        "flip": Views(make=lambda images, size: augment.flips(images), weights=(1 / 2,) * 2),
        # Half of the weight on the image in its place (Jordan 2024, airbench94_muon.py, arXiv:2404.00498).
        "flip_shift": Views(
            make=lambda images, size: _mirrored(_shifted(images)), weights=(1 / 4, 1 / 8, 1 / 8) * 2
        ),
        # Krizhevsky et al. 2012, section 4.1, without and with the mirror images.
        "five_crop": Views(
            make=lambda images, size: augment.crops(images, size=size),
            weights=(1 / 5,) * 5,
            probabilities=True,
            cropped=True,
        ),
        "ten_crop": Views(
            make=lambda images, size: _mirrored(augment.crops(images, size=size)),
            weights=(1 / 10,) * 10,
            probabilities=True,
            cropped=True,
        ),
    }
)
"""Views by name: the image alone; with its mirror image; both with shifts by a pixel; five crops; these mirrored, too."""


def softmax_mean(logits: jax.Array, weights: jax.Array) -> jax.Array:
    """Logits `(batch, classes)` whose softmax is the weighted mean over views of that of `(views, batch, classes)`."""
    return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0, b=weights)


def sigmoid_mean(logits: jax.Array, weights: jax.Array) -> jax.Array:
    """The same for classes that are independent of each other: log p - log(1 - p), p the mean of the sigmoids."""
    there, absent = (jax.nn.logsumexp(jax.nn.log_sigmoid(x), axis=0, b=weights) for x in (logits, -logits))
    return there - absent


def averaged(
    apply: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    *,
    views: str,
    size: int | None = None,
    mean: Callable[[jax.Array, jax.Array], jax.Array] = softmax_mean,
) -> jax.Array:
    """Logits that stand for the prediction averaged over views of each image.

    The mean of the logits, or those of the mean probabilities, by the row of `VIEWS`. The views run one
    after the other, so that they take the memory of one.

    Args:
      apply: of images, the logits `(batch, classes)`; pure.
      images: `(batch, height, width, channels)`, normalized.
      views: a name in `VIEWS`.
      size: side of the crops; None for 7/8 of the shorter side of the images, as 224 of 256 in the paper.
      mean: of probabilities: `softmax_mean` or `sigmoid_mean`.

    Returns:
      `(batch, classes)`.

    Raises:
      TypeError, ValueError: there are no such views or they take no size, or the images are no batch of floating-point
        images or too small; and whatever `apply` raises at crops whose size it does not take.
    """
    chosen = lookup(VIEWS, views, "views")
    if size is not None and not chosen.cropped:
        raise ValueError(f"the views {views!r} have the size of the image: leave size out; got {size}")
    if views == "none":
        return apply(images)
    check_images(images, views)
    stack = chosen.make(images, round(min(images.shape[1:3]) * 7 / 8) if size is None else size)
    logits = jax.lax.map(apply, stack)
    weights = jnp.asarray(chosen.weights, logits.dtype)[:, None, None]
    if chosen.probabilities:
        return mean(logits, weights)
    return jnp.sum(weights * logits, axis=0)
