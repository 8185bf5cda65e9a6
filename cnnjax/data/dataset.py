"""What a data set is: splits of uint8 images, the moments of the training split, normalization by them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

LabelKind = Literal["single", "multi"]


@functools.partial(jax.tree_util.register_dataclass, data_fields=("images", "labels"), meta_fields=())
@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images `(n, height, width, channels)` in uint8 and labels, as a pytree.

    Labels are classes `(n,)` in int32, or, where an image may show several, `(n, classes)` in bool: which of them it shows.
    """

    images: np.ndarray | jax.Array
    labels: np.ndarray | jax.Array

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> Split:
        """The examples at these positions, in this order."""
        return Split(self.images[indices], self.labels[indices])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """An image classification set.

    `mean` and `std`, `(channels,)` in float32, are those of the training split on the scale 0..1 (`std` is 1
    where a channel is constant). `class_names` are in the order of the labels. `notes` are sentences to print beside
    any number reported on this data.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    image_shape: tuple[int, int, int]
    mean: np.ndarray
    std: np.ndarray
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def label_kind(self) -> LabelKind:
        """Whether an image has one class ("single") or may show several ("multi")."""
        return "single" if self.train.labels.ndim == 1 else "multi"

    def on_device(self, *, sharding: jax.sharding.Sharding | None = None) -> Dataset:
        """The same set with its arrays on the device, or laid out by `sharding`, still in the types that they have."""
        train, validation, test = jax.device_put((self.train, self.validation, self.test), sharding)
        return dataclasses.replace(self, train=train, validation=validation, test=test)


def channel_moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation `(channels,)`, on the scale 0..1, of uint8 images `(n, height, width, channels)`.

    The sums are exact integers, block by block, so no float copy of the images is made.
    """
    total = squares = np.zeros(images.shape[1:], np.int64)
    for start in range(0, len(images), 256):
        block = images[start : start + 256].astype(np.int32)
        total = total + block.sum(axis=0)
        squares = squares + np.einsum("nhwc,nhwc->hwc", block, block)
    count = images[..., 0].size
    mean = total.sum(axis=(0, 1)) / count
    deviation = np.sqrt(squares.sum(axis=(0, 1)) / count - mean**2)
    std = np.where(deviation == 0, 255, deviation)
    return (mean / 255).astype(np.float32), (std / 255).astype(np.float32)


def normalize(
    images: jax.Array, mean: jax.Array, std: jax.Array, *, dtype: DTypeLike = jnp.float32
) -> jax.Array:
    """`(images / 255 - mean) / std`, computed in float32 or better and returned in `dtype`.

    Images: `(..., height, width, channels)` in uint8. Mean and std: `(channels,)` on the scale 0..1.

    Raises:
        TypeError: the images are not uint8 (they may have been normalized before).
        ValueError: `mean` or `std` is not `(channels,)`.
    """
    if images.dtype != jnp.uint8:
        raise TypeError(f"normalize takes uint8 images on the scale 0..255, got {images.dtype}")
    channels = images.shape[-1:]
    if mean.shape != channels or std.shape != channels:
        raise ValueError(
            f"images {images.shape} need mean and std of shape {channels}, got {mean.shape} and {std.shape}"
        )
    compute = dtype if jnp.dtype(dtype).itemsize > 4 else jnp.float32
    per_channel = (1,) * (images.ndim - 1) + channels
    center = jnp.asarray(mean, compute).reshape(per_channel)
    scale = jnp.asarray(std, compute).reshape(per_channel)
    return ((images.astype(compute) / 255 - center) / scale).astype(dtype)
