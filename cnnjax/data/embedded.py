"""Sets that need no download: scikit-learn's handwritten digits, as they are and enlarged."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from cnnjax.data.cache import load_or_build

_SIZE, _FACTOR = 8, 4


def digits() -> dict[str, np.ndarray]:
    """The 1,797 images of 8x8 pixels, whose values 0..16 are scaled to 0..255 and rounded."""
    # Cached because importing scikit-learn takes seconds.
    return load_or_build(f"digits-{importlib.metadata.version('scikit-learn')}", _read)


def enlarged_digits() -> dict[str, np.ndarray]:
    """The same at 32x32 pixels, by linear interpolation between the centers of the 8x8."""
    small = digits()
    centers = (
        np.arange(_FACTOR * _SIZE) + 0.5
    ) / _FACTOR - 0.5  # of the new pixels, in units of the old ones
    weights = np.stack([np.interp(centers, np.arange(_SIZE), hat) for hat in np.eye(_SIZE)], axis=1)
    large = np.einsum("hi,nijc,wj->nhwc", weights, small["train_images"], weights, optimize=True)
    return {**small, "train_images": np.rint(large).astype(np.uint8)}


EMBEDDED: Mapping[str, Callable[[], dict[str, np.ndarray]]] = MappingProxyType(
    {"digits": digits, "digits32": enlarged_digits}
)


def _read() -> dict[str, np.ndarray]:
    from sklearn.datasets import load_digits

    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    return {
        "train_images": np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, _SIZE, _SIZE, 1),
        "train_labels": labels.astype(np.int32),
        "num_classes": np.asarray(10),
    }
