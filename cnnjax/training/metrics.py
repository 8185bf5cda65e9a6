"""Metrics as sums: of a batch, added over batches and devices, and read off at the end."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

BINS = 15
"""Bins of confidence for the calibration error (Guo et al. 2017)."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("loss", "top5", "confusion", "confidence", "binned", "right"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Tally:
    """Sums over the examples of a classification; two are added by `+`.

    Attributes:
      loss: sum of the losses.
      top5: how many have their class among the five likeliest (or all, where there are fewer).
      confusion: `(classes, classes)`, examples by true and by predicted class.
      confidence, binned, right: `(BINS,)`: by the probability of the predicted class, their sum of it, how many they are,
        and how many of these are right.
    """

    loss: jax.Array
    top5: jax.Array
    confusion: jax.Array
    confidence: jax.Array
    binned: jax.Array
    right: jax.Array

    @classmethod
    def of(
        cls, logits: jax.Array, labels: jax.Array, losses: jax.Array, *, weights: jax.Array | None = None
    ) -> "Tally":
        """The sums of a batch.

        Args:
          logits: `(batch, classes)`.
          labels: integers `(batch,)`.
          losses: `(batch,)`.
          weights: 1 for examples that count and 0 for those that fill up a batch; None counts all.
        """
        classes = logits.shape[-1]
        logits = logits.astype(jnp.float32)
        weights = jnp.ones(labels.shape, jnp.float32) if weights is None else weights.astype(jnp.float32)
        predicted = jnp.argmax(logits, axis=-1)
        confidence = jnp.max(jax.nn.softmax(logits), axis=-1)
        # Of equal logits the one in front counts as likelier, as for argmax.
        own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
        before = jnp.arange(classes)[None] < labels[:, None]
        rank = jnp.sum((logits > own) | (before & (logits == own)), axis=-1)
        correct = jnp.where(predicted == labels, weights, 0)
        bins = bin_of(confidence)
        zeros = jnp.zeros(BINS, jnp.float32)
        return cls(
            loss=jnp.sum(jnp.where(weights > 0, losses.astype(jnp.float32), 0)),
            top5=jnp.sum(jnp.where(rank < 5, weights, 0)),
            confusion=jnp.zeros((classes, classes), jnp.float32).at[labels, predicted].add(weights),
            confidence=zeros.at[bins].add(confidence * weights),
            binned=zeros.at[bins].add(weights),
            right=zeros.at[bins].add(correct),
        )

    def __add__(self, other: "Tally") -> "Tally":
        return jax.tree.map(jnp.add, self, other)

    def metrics(self) -> dict[str, Any]:
        """The metrics, on the host.

        Returns:
          loss, accuracy (top 1), top5: means over the examples;
          class_accuracy: `(classes,)`, NaN for a class without examples;
          calibration_error: the expected one (Naeini et al. 2015): the mean over examples of |accuracy - confidence| of
            their bin;
          confusion: `(classes, classes)`, int64;
          examples: how many.

        Raises:
          ValueError: there are no examples.
        """
        sums = jax.tree.map(lambda x: np.asarray(x, np.float64), self)
        examples = sums.confusion.sum()
        if not examples:
            raise ValueError("there are no examples to measure")
        class_accuracy = ratio(np.diag(sums.confusion), sums.confusion.sum(axis=1))
        return {
            "loss": float(sums.loss / examples),
            "accuracy": float(np.trace(sums.confusion) / examples),
            "top5": float(sums.top5 / examples),
            "class_accuracy": class_accuracy,
            "calibration_error": float(np.abs(sums.right - sums.confidence).sum() / examples),
            "confusion": sums.confusion.astype(np.int64),
            "examples": int(examples),
        }

    def report(self) -> dict[str, Any]:
        """The metrics as JSON, with `reliability`: for each bin of confidence its mean confidence, accuracy and count.

        A class without examples has the accuracy None, and so have the means of an empty bin.

        Raises:
          ValueError: there are no examples.
        """
        found = self.metrics()
        return {
            **found,
            "class_accuracy": with_none(found["class_accuracy"]),
            "confusion": found["confusion"].tolist(),
            "reliability": reliability(self.confidence, self.binned, self.right),
        }


def bin_of(probabilities: jax.Array) -> jax.Array:
    """The bins of probabilities, int32; each is open below and closed above."""
    return jnp.clip(jnp.ceil(probabilities * BINS).astype(jnp.int32) - 1, 0, BINS - 1)


def ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums by counts; NaN where there is nothing."""
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def with_none(numbers: np.ndarray) -> Any:
    """A number or a list, as JSON: None for NaN."""
    found = np.asarray(numbers).astype(object)
    found[found != found] = None
    return found.tolist()


def reliability(confidence: ArrayLike, binned: ArrayLike, right: ArrayLike) -> dict[str, list[Any]]:
    """Sums by bin of confidence, as a tally holds them, as means and counts in JSON; None in an empty bin."""
    confidence, binned, right = (np.asarray(x, np.float64) for x in (confidence, binned, right))
    return {
        "confidence": with_none(ratio(confidence, binned)),
        "accuracy": with_none(ratio(right, binned)),
        "count": binned.astype(np.int64).tolist(),
    }
