"""Losses, one value per prediction and computed in float32 at least, and the accuracy that goes with them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnjax.functional.dtypes import at_least_float32


def cross_entropy(logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0) -> jax.Array:
    """-sum over classes of q log softmax(logits), where q is the label's distribution.

    Args:
      logits: `(batch, classes)`, or any leading axes.
      labels: integers `(batch,)`, or probabilities `(batch, classes)`. A label out of range gives the value
        NaN but a finite gradient, that of a row without target (softmax(logits) where nothing is smoothed): it
        shows in the loss only, and `check_labels` names it beforehand.
      label_smoothing: share of q that is spread evenly over all classes (Szegedy et al. 2016, section 7).

    Returns:
      `(batch,)`, float32 for logits of low precision.

    Raises:
      TypeError: `labels` of shape `(batch,)` are not integers.
      ValueError: `labels` have another shape, or `label_smoothing` is not in [0, 1).
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
    logits = at_least_float32(logits, "cross_entropy")
    if _are_classes(logits, labels):
        loss = _negative_log_likelihood(logits, labels)
    else:
        loss = optax.losses.softmax_cross_entropy(logits, labels.astype(logits.dtype))
    if label_smoothing == 0:
        return loss
    # Cross entropy is linear in q = (1 - smoothing) label + smoothing / classes.
    uniform = -jax.nn.log_softmax(logits).mean(axis=-1)
    return (1 - label_smoothing) * loss + label_smoothing * uniform


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-y log p - (1 - y) log(1 - p), p = sigmoid(logits), elementwise.

    `logits` and `labels` (0, 1, or a probability between) have one shape, usually `(batch,)`, and so has the
    result. Raises ValueError if the shapes differ.
    """
    _check_same_shape("labels", labels, "logits", logits)
    return optax.losses.sigmoid_binary_cross_entropy(at_least_float32(logits, "binary_cross_entropy"), labels)


def focal(
    logits: jax.Array, labels: jax.Array, *, gamma: float = 2.0, alpha: jax.Array | float | None = None
) -> jax.Array:
    """-alpha (1 - p)^gamma log p, p the probability given to the true class (Lin et al. 2017, equation 5).

    Args:
      logits: binary: any shape; multi-class: `(batch, classes)`.
      labels: binary: of the shape of `logits`, in [0, 1]; multi-class: integers `(batch,)`.
      gamma: how much less a well classified example counts; 0 gives the cross entropy.
      alpha: weight. Binary: of label 1, where label 0 weighs 1 - alpha; multi-class: of each class,
        `(classes,)`, or of all of them. None: 1.

    Returns:
      The shape of `labels`, float32 for logits of low precision.

    Raises:
      TypeError: multi-class labels are not integers.
      ValueError: the shapes do not fit, `gamma` is negative, or there are fewer than two classes.
    """
    if not gamma >= 0:
        raise ValueError(f"gamma must be at least 0, got {gamma}")
    logits = at_least_float32(logits, "focal")
    if jnp.shape(labels) == logits.shape:
        _check_alpha(alpha, ())
        return optax.losses.sigmoid_focal_loss(logits, labels, alpha=alpha, gamma=gamma)
    _are_classes(logits, labels)
    return _multiclass_focal(logits, labels, gamma, alpha)


def squared_error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """(prediction - target)^2, averaged over all axes but the first.

    `predictions` and `targets` are `(batch, ...)` and the result is `(batch,)`; its mean is the mean squared
    error. Raises ValueError if the shapes differ.
    """
    _check_same_shape("targets", targets, "predictions", predictions)
    predictions = at_least_float32(predictions, "squared_error")
    errors = optax.losses.squared_error(predictions, targets.astype(predictions.dtype))
    return errors.mean(axis=tuple(range(1, errors.ndim)))


def l2_penalty(params: Any, *, where: Callable[[str, jax.Array], bool] | None = None) -> jax.Array:
    """Half the sum of the squares of the kernels, a scalar: its gradient is the kernel (Krogh & Hertz 1991).

    Args:
      params: any pytree of arrays.
      where: which leaves count, by their path ("block/conv/kernel") and value. The default takes those
        whose last name is "kernel". Rank cannot tell: the biases of scanned layers are stacked to two axes.

    Raises ValueError if no leaf counts.
    """
    counts = where or _is_kernel
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    named = [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]
    chosen = [at_least_float32(leaf, "l2_penalty") for name, leaf in named if counts(name, leaf)]
    if not chosen:
        raise ValueError(
            f"no parameter to penalize among {[name for name, _ in named]}: by default a path ends in "
            "'kernel'; choose others with where=lambda path, leaf: ..."
        )
    return 0.5 * jnp.stack([jnp.sum(leaf * leaf) for leaf in chosen]).sum()


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """1.0 where the largest logit is the label's, else 0.0.

    `logits` are `(batch, classes)`, `labels` integers `(batch,)` or probabilities `(batch, classes)`, whose
    largest counts; the result is float32 `(batch,)`. Raises as `cross_entropy` does.
    """
    classes = labels if _are_classes(logits, labels) else labels.argmax(axis=-1)
    return (logits.argmax(axis=-1) == classes).astype(jnp.float32)


def check_labels(labels: np.ndarray | jax.Array, num_classes: int) -> None:
    """Check labels before they go into a compiled step, where their values can no longer be seen.

    Raises TypeError if they are not integers, ValueError that names the first one outside [0, num_classes).
    """
    values = np.asarray(labels)
    if not np.issubdtype(values.dtype, np.integer):
        raise TypeError(f"labels must be integers, got {values.dtype}")
    bad = np.argwhere((values < 0) | (values >= num_classes))
    if len(bad) > 0:
        label, index = values[tuple(bad[0])], ", ".join(map(str, bad[0]))
        raise ValueError(
            f"label {label} at index {index} is out of range: {num_classes} classes have the labels "
            f"0 to {num_classes - 1} ({len(bad)} of {values.size} labels lie outside)"
        )


def _multiclass_focal(
    logits: jax.Array, labels: jax.Array, gamma: float, alpha: jax.Array | float | None
) -> jax.Array:
    classes = logits.shape[-1]
    if classes < 2:
        raise ValueError(f"multi-class focal loss needs at least 2 classes, got logits {logits.shape}")
    _check_alpha(alpha, (classes,))
    # (1 - p)^gamma through log(1 - p), the log sum over the other classes: 1 - p cancels near p = 1.
    others = ~jax.nn.one_hot(labels, classes, dtype=bool)
    log_rest = jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=-1, where=others)
    loss = jnp.exp(gamma * log_rest) * _negative_log_likelihood(logits, labels)
    if alpha is None:
        return loss
    return jnp.broadcast_to(jnp.asarray(alpha, loss.dtype), (classes,))[labels] * loss


def _check_alpha(alpha: jax.Array | float | None, shape: tuple[int, ...]) -> None:
    if alpha is not None and jnp.shape(alpha) not in ((), shape):
        expected = f"a number or of shape {shape}" if shape else "a number"
        raise ValueError(f"alpha must be {expected}, got shape {jnp.shape(alpha)}")


def _negative_log_likelihood(logits: jax.Array, labels: jax.Array) -> jax.Array:
    # Indexing wraps a negative label around; sent past the end it gives NaN as other bad labels do.
    indices = jnp.where(labels < 0, logits.shape[-1], labels.astype(jnp.int32))
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, indices)


def _are_classes(logits: jax.Array, labels: jax.Array) -> bool:
    """Whether labels are integers, one per row of logits, rather than probabilities."""
    if labels.shape == logits.shape:
        return False
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels must be integers of shape {logits.shape[:-1]} or probabilities of shape {logits.shape} "
            f"to fit the logits, got shape {labels.shape}"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels of shape {labels.shape} must be integers, got {labels.dtype}")
    return True


def _is_kernel(path: str, leaf: jax.Array) -> bool:
    return path.rpartition("/")[2] == "kernel"


def _check_same_shape(name: str, x: jax.Array, other_name: str, other: jax.Array) -> None:
    if x.shape != other.shape:
        raise ValueError(f"{name} must have the shape of {other_name}, {other.shape}, got {x.shape}")
