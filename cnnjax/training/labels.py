"""What a label is: the one class of an image, or the classes that it shows, however many."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from cnnjax import functional as F
from cnnjax.training.label_tally import LabelTally
from cnnjax.training.metrics import Tally
from cnnjax.training.views import sigmoid_mean, softmax_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labels:
    """A row of `LABELS`.

    Attributes:
      shape: of the label of an example, by the number of classes.
      dtype: of labels.
      probabilities: of labels and the number of classes: those of each class, `(batch, classes)`, float32.
      even: by the number of classes: the probability of each where nothing is known, which labels are smoothed towards.
      loss: of logits and labels, `(batch,)`: by which networks are evaluated.
      accuracy: of logits and labels, `(batch,)`: how much of the label of each example is predicted.
      tally: sums up an evaluation.
      predicted: the probabilities `(batch, classes)` that logits stand for.
      mean: of logits of several views, as in `views.averaged`.
    """

    shape: Callable[[int], tuple[int, ...]]
    dtype: DTypeLike
    probabilities: Callable[[jax.Array, int], jax.Array]
    even: Callable[[int], float]
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    accuracy: Callable[[jax.Array, jax.Array], jax.Array]
    tally: type[Tally] | type[LabelTally]
    predicted: Callable[[jax.Array], jax.Array]
    mean: Callable[[jax.Array, jax.Array], jax.Array]


def one_against_all(loss: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[..., jax.Array]:
    """A loss of every class by itself, summed over the classes: `(batch,)`."""
    return lambda logits, labels: jnp.sum(loss(logits, labels.astype(jnp.float32)), axis=-1)


def _share_predicted(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """How many of the labels `(batch, classes)` are on the side of a half on which their logits are."""
    return jnp.mean((logits > 0) == labels, axis=-1, dtype=jnp.float32)


LABELS: Mapping[str, Labels] = MappingProxyType(
    {
        "single": Labels(
            shape=lambda classes: (),
            dtype=jnp.int32,
            probabilities=lambda labels, classes: jax.nn.one_hot(labels, classes),
            even=lambda classes: 1 / classes,
            loss=F.cross_entropy,
            accuracy=F.accuracy,
            tally=Tally,
            predicted=jax.nn.softmax,
            mean=softmax_mean,
        ),
        "multi": Labels(
            shape=lambda classes: (classes,),
            dtype=jnp.bool_,
            probabilities=lambda labels, classes: labels.astype(jnp.float32),
            even=lambda classes: 1 / 2,
            loss=one_against_all(F.binary_cross_entropy),
            accuracy=_share_predicted,
            tally=LabelTally,
            predicted=jax.nn.sigmoid,
            mean=sigmoid_mean,
        ),
    }
)
"""Kinds of labels by name: integers `(batch,)`, or bool `(batch, classes)`."""
