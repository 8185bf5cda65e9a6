"""Metrics as sums: of a batch, added over batches and devices, and read off at the end."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

BINS = 15
"""Bins of confidence for the calibration error (Guo et al. 2017)."""


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("confidence", "count", "right"), meta_fields=()
)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Reliability:
    """Predictions by the bin of their probability, as sums `(BINS,)`. A bin is open below and closed above.

    Attributes:
      confidence: of the probabilities.
      count: how many predictions there are.
      right: how many of them are right.
    """

    confidence: jax.Array
    count: jax.Array
    right: jax.Array

    @classmethod
    def of(cls, probabilities: jax.Array, right: jax.Array, weights: jax.Array) -> "Reliability":
        """The sums of predictions, all of one shape: probabilities, whether they are right, 0 for what does not count."""
        bins = jnp.clip(jnp.ceil(probabilities * BINS).astype(jnp.int32) - 1, 0, BINS - 1)
        zeros = jnp.zeros(BINS, jnp.float32)
        return cls(
            confidence=zeros.at[bins].add(probabilities * weights),
            count=zeros.at[bins].add(weights),
            right=zeros.at[bins].add(jnp.where(right, weights, 0)),
        )

    def error(self) -> float:
        """The expected calibration error (Naeini et al. 2015): the mean of |share that is right - probability| of a bin."""
        confidence, count, right = (
            np.asarray(x, np.float64) for x in (self.confidence, self.count, self.right)
        )
        return float(np.abs(right - confidence).sum() / count.sum())

    def report(self) -> dict[str, list[Any]]:
        """Means and counts of the bins as JSON; None in an empty bin."""
        confidence, count, right = (
            np.asarray(x, np.float64) for x in (self.confidence, self.count, self.right)
        )
        return {
            "confidence": with_none(ratio(confidence, count)),
            "accuracy": with_none(ratio(right, count)),
            "count": count.astype(np.int64).tolist(),
        }


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("loss", "top5", "confusion", "reliability"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Tally:
    """Sums over the examples of a classification; two are added by `+`.

    Attributes:
      loss: sum of the losses.
      top5: how many have their class among the five likeliest (or all, where there are fewer).
      confusion: `(classes, classes)`, examples by true and by predicted class.
      reliability: of the predicted classes.
    """

    loss: jax.Array
    top5: jax.Array
    confusion: jax.Array
    reliability: Reliability

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
        return cls(
            loss=jnp.sum(jnp.where(weights > 0, losses.astype(jnp.float32), 0)),
            top5=jnp.sum(jnp.where(rank < 5, weights, 0)),
            confusion=jnp.zeros((classes, classes), jnp.float32).at[labels, predicted].add(weights),
            reliability=Reliability.of(confidence, predicted == labels, weights),
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
            "calibration_error": self.reliability.error(),
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
            "reliability": self.reliability.report(),
        }


def ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums by counts; NaN where there is nothing."""
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def with_none(numbers: np.ndarray) -> Any:
    """A number or a list, as JSON: None for NaN."""
    found = np.asarray(numbers).astype(object)
    found[found != found] = None
    return found.tolist()
