"""Metrics of images that may show several classes, as sums of a batch, added over batches and devices."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.training.metrics import Reliability, ratio, with_none

SCORES = 400
"""Bins of logits, by which the examples of a class are ranked: 0.05 wide from -10 to 10, the outer ones open."""
_WIDTH = 0.05


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("loss", "exact", "present", "absent", "reliability"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LabelTally:
    """Sums over the examples of a classification into several classes each; two are added by `+`.

    A class is predicted where its logit is above 0, its probability above a half.

    Attributes:
      loss: sum of the losses.
      exact: how many examples have all their classes predicted and no other.
      present, absent: `(classes, SCORES)`: by class and logit, how many examples show the class and how many do not.
      reliability: of every class in every example, right where the class is there.
    """

    loss: jax.Array
    exact: jax.Array
    present: jax.Array
    absent: jax.Array
    reliability: Reliability

    @classmethod
    def of(
        cls, logits: jax.Array, labels: jax.Array, losses: jax.Array, *, weights: jax.Array | None = None
    ) -> "LabelTally":
        """The sums of a batch.

        Args:
          logits: `(batch, classes)`.
          labels: `(batch, classes)`, whether each class is there.
          losses: `(batch,)`.
          weights: 1 for examples that count and 0 for those that fill up a batch; None counts all.
        """
        logits, there = logits.astype(jnp.float32), labels.astype(bool)
        batch, classes = logits.shape
        weights = jnp.ones(batch, jnp.float32) if weights is None else weights.astype(jnp.float32)
        each = jnp.broadcast_to(weights[:, None], logits.shape)
        # A bin is open below and closed above, as those of probabilities are: 0 is not predicted.
        half = SCORES // 2
        scores = jnp.ceil(jnp.clip(logits / _WIDTH, 1 - half, half)).astype(jnp.int32) + half - 1
        counts = jnp.zeros((2, classes, SCORES), jnp.float32)
        counts = counts.at[there.astype(jnp.int32), jnp.arange(classes)[None], scores].add(each)
        return cls(
            loss=jnp.sum(jnp.where(weights > 0, losses.astype(jnp.float32), 0)),
            exact=jnp.sum(jnp.where(jnp.all((logits > 0) == there, axis=-1), weights, 0)),
            present=counts[1],
            absent=counts[0],
            reliability=Reliability.of(jax.nn.sigmoid(logits), there, each),
        )

    def __add__(self, other: "LabelTally") -> "LabelTally":
        return jax.tree.map(jnp.add, self, other)

    def metrics(self) -> dict[str, Any]:
        """The metrics, on the host; NaN where there is nothing to divide by.

        Returns:
          loss: mean over the examples;
          accuracy: share of all labels, present or absent, that are predicted;
          exact_match: share of the examples whose labels all are;
          precision, recall, f1: of all labels together (micro averages);
          mean_average_precision: mean over the classes that are there of `class_average_precision`;
          class_precision, class_recall, class_f1, class_average_precision: `(classes,)`. The last is the area under
            precision over recall as a sum of steps, where logits in a bin count as equal;
          class_examples: `(classes,)`, int64: how many show the class;
          calibration_error: mean over labels of |share that is there - probability| of their bin;
          examples: how many.

        Raises:
          ValueError: there are no examples.
        """
        sums = jax.tree.map(lambda x: np.asarray(x, np.float64), self)
        examples = (sums.present + sums.absent)[0].sum()
        if not examples:
            raise ValueError("there are no examples to measure")
        labels = examples * len(sums.present)
        hits, misses = sums.present[:, SCORES // 2 :].sum(axis=1), sums.present[:, : SCORES // 2].sum(axis=1)
        alarms = sums.absent[:, SCORES // 2 :].sum(axis=1)
        average_precision = _average_precision(sums.present, sums.absent)
        found = average_precision[~np.isnan(average_precision)]
        micro = _rates(hits.sum(), misses.sum(), alarms.sum())
        return {
            "loss": float(sums.loss / examples),
            "accuracy": float(1 - (misses + alarms).sum() / labels),
            "exact_match": float(sums.exact / examples),
            **{name: float(value) for name, value in micro.items()},
            "mean_average_precision": float(found.mean()) if len(found) else np.nan,
            **{f"class_{name}": value for name, value in _rates(hits, misses, alarms).items()},
            "class_average_precision": average_precision,
            "class_examples": (hits + misses).astype(np.int64),
            "calibration_error": self.reliability.error(),
            "examples": int(examples),
        }

    def report(self) -> dict[str, Any]:
        """The metrics as JSON, with `reliability`: for each bin of probabilities their mean, share that is there, and count.

        What has nothing to divide by is None.

        Raises:
          ValueError: there are no examples.
        """
        found = {name: with_none(np.asarray(value)) for name, value in self.metrics().items()}
        return {**found, "reliability": self.reliability.report()}


def _rates(hits: np.ndarray, misses: np.ndarray, alarms: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "precision": ratio(hits, hits + alarms),
        "recall": ratio(hits, hits + misses),
        "f1": ratio(2 * hits, 2 * hits + misses + alarms),
    }


def _average_precision(present: np.ndarray, absent: np.ndarray) -> np.ndarray:
    """sum over thresholds n, from the highest on, of (recall_n - recall_(n-1)) precision_n, `(classes,)`."""
    hits, alarms = np.cumsum(present[:, ::-1], axis=1), np.cumsum(absent[:, ::-1], axis=1)
    precision = np.divide(hits, hits + alarms, out=np.zeros_like(hits), where=hits > 0)
    return ratio((present[:, ::-1] * precision).sum(axis=1), hits[:, -1])
