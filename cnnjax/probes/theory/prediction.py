"""What mean-field theory says of every layer of a model, before anything is drawn."""

import dataclasses
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import numpy as np
import pandas as pd

from cnnjax.probes.theory.backward import Backward
from cnnjax.probes.theory.forward import Forward
from cnnjax.probes.theory.signals import Row, Signal
from cnnjax.probes.theory.walk import Step, image_batch, walk


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The lines to draw over a `Flow`, with the same layers; arrays `(layers,)`, NaN where theory does not reach.

    Attributes:
      layers, activations: as in `Flow`.
      log10_second_moment: of the pre-activations, for images of the second moment that was given; behind a step that theory
        doesn't cover, relative to the first layer of the segment.
      gradient_log10_second_moment: of the gradient with respect to pre-activations, relative to the last layer of the
        segment.
      segment: layers of one number are connected by theory; put each segment's line on its measured last (or first) layer.
        -1 where theory does not connect the layer to any other.
      reasons: why it doesn't, or why a segment begins, in words such as "pooling" or "group norm"; "" elsewhere.
    """

    layers: tuple[str, ...]
    activations: tuple[str, ...]
    log10_second_moment: np.ndarray
    gradient_log10_second_moment: np.ndarray
    segment: np.ndarray
    reasons: tuple[str, ...]

    @property
    def covered(self) -> np.ndarray:
        """Whether theory covers each layer."""
        return self.segment >= 0

    def frame(self) -> pd.DataFrame:
        """A row for each layer, named as those of `Flow.frame`."""
        names = {"layer": range(len(self.layers)), "path": self.layers, "activation": self.activations}
        columns = ("log10_second_moment", "gradient_log10_second_moment", "segment")
        return pd.DataFrame(
            {**names, **{name: getattr(self, name) for name in columns}, "reason": list(self.reasons)}
        )


def predict(
    model: nn.Module,
    image_shape: Sequence[int],
    *,
    batch: int | None = None,
    second_moment: float = 1.0,
    train: bool = True,
) -> Prediction:
    """The second moments of pre-activations and gradients of a freshly initialized model, layer by layer.

    Covered are dense layers and convolutions of any window, stride and padding (zero padding with its loss at the borders,
    position by position) with the variances of their initializers; every elementwise activation; batch norm; multipliers;
    residual blocks whose shortcut is the identity, with the activation before the addition or behind it. Theory is that of
    infinite width; neighboring positions are taken as unrelated to a gradient's size, which circular padding makes exact.

    Deep residual ReLU networks without norm leave it at any width n: <gradient, pre-activation> is the same number in every
    layer, since what follows is homogeneous (Euler), so that this one component, 1 / n of the gradient at the head, grows
    toward the input as the activations grow toward the head, by 2.40 a layer in second moment where the rest grows by 2.04.
    Through 50 layers z = W y + y (NumPy, He's initializer) the second moment grew by 10^17.9, 10^17.2 and 10^16.5 at widths
    50, 200 and 800 (means over 40, 40 and 8 networks), where 10^15.4 is predicted.

    Stacks of any depth are followed until every block does as the one before.

    Args:
      model: of `cnnjax.models`, or any Flax module made of `cnnjax.nn`; called as `model(images, train=...)`.
      image_shape: of one image, `(*spatial, channels)`.
      batch: examples in a batch, for batch norm (see `batch_norm_rate`); None for the limit of many.
      second_moment: mean square of the images' entries, which are taken to be centered and alike at all positions. Kernels
        that don't mix positions (delta_orthogonal) keep what differs between pixels: a tanh network of 200 layers was
        seen to have 3 times the last layer's gradient in its first one on digits, and 0.48 times on images of +-1, for
        which 0.42 is predicted.
      train: whether norms use the batch and dropout is active.

    Raises:
      ValueError: theory connects no two layers of the model, the model has no probe point, or the images do not suit it.
    """
    if not (math.isfinite(second_moment) and second_moment > 0):
        raise ValueError(
            f"second_moment, the mean square of the images, must be positive; got {second_moment}"
        )
    images = image_batch(image_shape, 2)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    recorder, steps = walk(model, variables, images, train=train)
    rows = _rows(steps, batch, second_moment)
    segments = _segments(rows)
    if segments.max() < 0:
        reasons = sorted({row.reason for row in rows if row.reason})
        raise ValueError(
            f"theory covers no two neighboring layers of {type(model).__name__}: {', '.join(reasons) or 'it has only one'}. "
            "Measure it with gradient_flow, or predict a plain network of the same layers"
        )
    covered = segments >= 0
    moments, gradients = np.array([(row.log_moment, row.log_gradient) for row in rows]).T / math.log(10)
    return Prediction(
        recorder.layers,
        recorder.activations,
        np.where(covered, moments, np.nan),
        np.where(covered, _from_last(gradients, segments), np.nan),
        segments,
        tuple(row.reason for row in rows),
    )


def _segments(rows: Sequence[Row]) -> np.ndarray:
    """The number of each layer's segment, in the order of execution; -1 where it holds one layer only."""
    raw = np.array([row.segment for row in rows])
    numbers, where, counts = np.unique(-raw, return_inverse=True, return_counts=True)
    connected = (counts > 1) & (numbers <= 0)
    return np.where(connected, np.cumsum(connected) - 1, -1)[where]


def _from_last(gradients: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Relative to the last layer of each segment that has a gradient."""
    shifted = gradients.copy()
    for segment in range(segments.max() + 1):
        own = segments == segment
        finite = gradients[own][np.isfinite(gradients[own])]
        shifted[own] -= finite[-1] if len(finite) else 0.0
    return shifted


def _rows(steps: Sequence[Step], batch: int | None, second_moment: float) -> list[Row]:
    tape: list = []
    rows: list[Row] = []
    image = Signal(np.asarray(math.log(second_moment)), varying=1.0, independent=True)
    Forward(batch=batch).run(steps, image, tape, rows)
    Backward().run(tape, None)
    return rows
