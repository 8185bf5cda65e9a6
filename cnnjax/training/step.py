"""A training step as a pure function of the state, a batch and a key."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnjax import functional as F
from cnnjax.data import normalize
from cnnjax.data.dataset import LabelKind
from cnnjax.functional.names import lookup
from cnnjax.models import Model
from cnnjax.optim import Freeze
from cnnjax.probes import Flow, gradient_flow
from cnnjax.training.augmentation import Augmentation
from cnnjax.training.label_tally import LabelTally
from cnnjax.training.labels import LABELS, Labels, one_against_all
from cnnjax.training.metrics import Tally
from cnnjax.training.views import VIEWS, averaged


class TrainState(NamedTuple):
    """Everything that training needs to go on.

    Attributes:
      step: steps done, int32.
      skipped: steps whose update was left out because something in it was not finite, int32.
      params, batch_stats: of the model.
      optimizer: its memory.
      average: exponential moving averages of params and batch_stats, or empty.
    """

    step: jax.Array
    skipped: jax.Array
    params: Any
    batch_stats: Any
    optimizer: Any
    average: Any

    def variables(self, *, averaged: bool = False) -> dict[str, Any]:
        """What `model.apply` takes; `averaged` where there is an average."""
        if averaged and self.average:
            return dict(self.average)
        return _collections(self.params, self.batch_stats)


class Batch(NamedTuple):
    """A batch as it comes from the data.

    Attributes:
      images: `(batch, height, width, channels)`, uint8.
      labels: classes `(batch,)`, int32, or, where images may show several, whether each is there, `(batch, classes)`, bool.
      mirrored: `(batch,)`, which images an alternating flip turns; None without one.
    """

    images: jax.Array
    labels: jax.Array
    mirrored: jax.Array | None = None


class Moments(NamedTuple):
    """Mean and deviation `(channels,)` of the training images on the scale 0..1."""

    mean: jax.Array
    std: jax.Array


class StepMetrics(NamedTuple):
    """Of one step, before its update.

    Attributes:
      loss, accuracy: means over the batch.
      gradient_norm: of the gradient of all parameters that are not frozen.
      finite: whether loss, gradient and update were; if not, there was no update.
    """

    loss: jax.Array | np.ndarray
    accuracy: jax.Array | np.ndarray
    gradient_norm: jax.Array | np.ndarray
    finite: jax.Array | np.ndarray


LOSSES: Mapping[str, Callable[[jax.Array, jax.Array], jax.Array]] = MappingProxyType(
    {
        "cross_entropy": F.cross_entropy,
        "binary_cross_entropy": one_against_all(F.binary_cross_entropy),
        "focal": one_against_all(F.focal),
    }
)
"""Losses by name: of logits and probabilities `(batch, classes)`, one value for each example."""
OF_ONE_CLASS = ("cross_entropy",)
"""Those that take the probabilities of an example as adding up to 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainer:
    """What is trained and how; its methods are pure and may be compiled.

    Attributes:
      model: called as `model(images, train=...)`.
      optimizer: of its parameters.
      num_classes: of the labels.
      label_kind: whether an image has one class ("single") or may show several ("multi"), as `Dataset.label_kind` says.
      loss: one of `LOSSES`; for images of several classes none that is `OF_ONE_CLASS`.
      label_smoothing: share of each label that is spread evenly over the classes, or over present and absent.
      augmentation: of the training images.
      frozen: parameters for which no gradient is computed; that they keep their values is the optimizer's.
      averaging: the decay of the moving averages, 0 for none. In step t it is min(averaging, (1 + t) / (10 + t)), so that
        the start does not weigh on them (as in TensorFlow's ExponentialMovingAverage).
      on_nonfinite: what follows a step in which something was not finite: "stop": the state stays as it was before that
        step, whatever steps follow; "skip": only the step is counted, and the next one goes on from there.
      views: of each image in evaluation, one of `VIEWS`.
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    num_classes: int
    label_kind: LabelKind = "single"
    loss: str = "cross_entropy"
    label_smoothing: float = 0.0
    augmentation: Augmentation = Augmentation()
    frozen: Freeze = Freeze(())
    averaging: float = 0.0
    on_nonfinite: Literal["stop", "skip"] = "stop"
    views: str = "none"

    def __post_init__(self):
        lookup(LOSSES, self.loss, "loss")
        lookup(LABELS, self.label_kind, "kind of labels")
        if self.label_kind == "multi" and self.loss in OF_ONE_CLASS:
            others = " or ".join(repr(name) for name in LOSSES if name not in OF_ONE_CLASS)
            raise ValueError(
                f"the loss {self.loss!r} is for images of one class each, and these may show several: take {others}"
            )
        lookup(dict.fromkeys(("stop", "skip")), self.on_nonfinite, "choice for on_nonfinite")
        lookup(VIEWS, self.views, "views")
        for name in ("label_smoothing", "averaging"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")

    def initial(self, key: jax.Array, images: jax.Array) -> TrainState:
        """The state before the first step. `images`: normalized ones of training, for the model to calibrate itself by."""
        variables: Any = self.model.init(key, images[:1])
        if isinstance(self.model, Model):
            variables = self.model.calibrated(variables, images)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        average = _collections(params, batch_stats) if self.averaging else {}
        zero = jnp.zeros((), jnp.int32)
        return TrainState(zero, zero, params, batch_stats, self.optimizer.init(params), average)

    def seen(
        self, number: jax.Array, batch: Batch, key: jax.Array, moments: Moments
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What step `number` sees of a batch: augmented images, labels as probabilities, and the key of its dropout."""
        for_images, for_dropout = jax.random.split(jax.random.fold_in(key, number))
        self._check_labels(batch.labels)
        labels = self._labels.probabilities(batch.labels, self.num_classes)
        images, labels = self.augmentation(
            batch.images, labels, for_images, mean=moments.mean, std=moments.std, mirrored=batch.mirrored
        )
        smoothing = self.label_smoothing
        if smoothing:
            labels = (1 - smoothing) * labels + smoothing * self._labels.even(self.num_classes)
        return images, labels, for_dropout

    def step(
        self, state: TrainState, batch: Batch, key: jax.Array, moments: Moments
    ) -> tuple[TrainState, StepMetrics]:
        """One step. What is random in it depends on `key` and the number of the step alone."""
        images, labels, for_dropout = self.seen(state.step, batch, key, moments)
        return self.update(state, images, labels, batch.labels, for_dropout)

    def update(
        self,
        state: TrainState,
        images: jax.Array,
        labels: jax.Array,
        true: jax.Array,
        key: jax.Array,
        *,
        mean: Callable[[Any], Any] = lambda tree: tree,
    ) -> tuple[TrainState, StepMetrics]:
        """The step behind the augmentation.

        Args:
          state: to go on from.
          images, labels: as `seen` returns them.
          true: labels of the batch, which the accuracy counts.
          key: of dropout.
          mean: over devices that hold a part of the batch each, where there are such.
        """

        def objective(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
            variables = _collections(self.frozen.stopped(params), state.batch_stats)
            options: dict[str, Any] = dict(train=True, mutable=["batch_stats"], rngs={"dropout": key})
            logits, new = self.model.apply(variables, images, **options)
            losses = LOSSES[self.loss](logits, labels)
            accuracy = jnp.mean(self._labels.accuracy(logits, true))
            return jnp.mean(losses), (accuracy, new.get("batch_stats", {}))

        (loss, (accuracy, batch_stats)), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
        loss, accuracy, batch_stats, gradients = mean((loss, accuracy, batch_stats, gradients))
        updates, memory = self.optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        average = self._averaged(state, _collections(params, batch_stats))
        gradient_norm = optax.global_norm(gradients)
        # A sum of norms is finite where all entries are.
        finite = jnp.isfinite(loss + gradient_norm + optax.global_norm(updates))
        new = TrainState(state.step + 1, state.skipped, params, batch_stats, memory, average)
        return self._guarded(state, new, finite), StepMetrics(loss, accuracy, gradient_norm, finite)

    def _guarded(self, old: TrainState, new: TrainState, finite: jax.Array) -> TrainState:
        """The state behind a step, of which only what is counted changes where it was not finite."""
        stops = self.on_nonfinite == "stop"
        goes_on = finite & (old.skipped == 0) if stops else finite
        kept = jax.tree.map(lambda new, old: jnp.where(goes_on, new, old), new, old)
        step = kept.step if stops else new.step
        return kept._replace(step=step, skipped=old.skipped + jnp.where(finite, 0, 1).astype(jnp.int32))

    def flow(self, state: TrainState, batch: Batch, key: jax.Array, moments: Moments) -> Flow:
        """Forward and backward statistics of every layer in the step that comes next, which is not taken."""
        images, labels, for_dropout = self.seen(state.step, batch, key, moments)
        loss = LOSSES[self.loss]
        # The products are those of training: what overflows there must overflow here.
        return gradient_flow(
            self.model, state.variables(), images, labels, loss=loss, key=for_dropout, precision=None
        )

    def evaluate(
        self,
        variables: Mapping[str, Any],
        batch: Batch,
        moments: Moments,
        *,
        weights: jax.Array | None = None,
    ) -> Tally | LabelTally:
        """The sums of a batch in evaluation mode, by the cross entropy of the averaged views; `weights` as in `Tally.of`.

        It is that of the classes, or for images that may show several the sum of the binary ones of each.
        """
        self._check_labels(batch.labels)
        logits = self.logits(variables, batch.images, moments)
        losses = self._labels.loss(logits, batch.labels)
        return self._labels.tally.of(logits, batch.labels, losses, weights=weights)

    def logits(self, variables: Mapping[str, Any], images: jax.Array, moments: Moments) -> jax.Array:
        """Logits `(batch, classes)` in evaluation mode of uint8 images, averaged over the views."""

        def apply(images: jax.Array) -> Any:
            return self.model.apply(variables, images, train=False)

        return averaged(apply, normalize(images, *moments), views=self.views, mean=self._labels.mean)

    @property
    def _labels(self) -> Labels:
        return LABELS[self.label_kind]

    def _check_labels(self, labels: jax.Array) -> None:
        """Raises ValueError where labels are of the other kind, or of other classes as far as their shape tells."""
        expected = self._labels.shape(self.num_classes)
        if labels.shape[1:] != expected:
            shape = ", ".join(map(str, ("batch", *expected)))
            raise ValueError(
                f"expected labels ({shape}) for label_kind={self.label_kind!r} and {self.num_classes} classes, got "
                f"{labels.shape}"
            )

    def _averaged(self, state: TrainState, new: dict[str, Any]) -> dict[str, Any]:
        if not self.averaging:
            return {}
        step = state.step.astype(jnp.float32)
        decay = jnp.minimum(self.averaging, (1 + step) / (10 + step))
        mix = functools.partial(_mixed, decay)
        return jax.tree.map(mix, dict(state.average), new)


def _mixed(decay: jax.Array, old: jax.Array, new: jax.Array) -> jax.Array:
    share = decay.astype(new.dtype)
    return share * old + (1 - share) * new


def _collections(params: Any, batch_stats: Any) -> dict[str, Any]:
    return {"params": params, "batch_stats": batch_stats} if batch_stats else {"params": params}
