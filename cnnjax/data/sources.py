"""`load`: a data set by name, cut into training, validation and test splits."""

from __future__ import annotations

import os

import numpy as np

from cnnjax.data import tfds
from cnnjax.data.class_names import class_names
from cnnjax.data.dataset import Dataset, Split, channel_moments
from cnnjax.data.draws import check_options, divide
from cnnjax.data.embedded import EMBEDDED
from cnnjax.data.folders import data_root, find, inexact_notes


def load(
    name: str = "digits",
    *,
    split_seed: int = 0,
    subset: int | None = None,
    validation: float | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Load an image classification set as uint8 arrays on the host.

    `"digits"` is scikit-learn's 1,797 handwritten digits of 8x8 pixels, whose values 0..16 are scaled to
    0..255 and rounded. `"digits32"` is the same enlarged to 32x32 by linear interpolation, for networks whose
    strides need room; it shows no more than the 8x8 pixels did. Any other name, `NAME[/CONFIG][:VERSION]`, is
    a TFDS set that was prepared in ArrayRecord (`cnnjax data prepare NAME`); reading it takes no TensorFlow.
    Decoded arrays are cached in the folder `CNNJAX_CACHE`, or else in the user's cache folder.

    The official test split is kept. Where there is none, the official validation split takes its place, or
    a fifth of the images is drawn, and `notes` says so. Every draw keeps the shares of the classes.

    Args:
        name: the set.
        split_seed: the seed of the draws, 0 or more.
        subset: the number of training images to keep, drawn after validation was cut off (None: all).
        validation: the fraction of the training images to cut off for validation, from 0 to less than 1. None: a
            fifth, but no more than 2,000 images, which tell an accuracy to about a point.
        data_dir: where TFDS sets are (None: `TFDS_DATA_DIR`, or else `~/tensorflow_datasets`).

    Raises:
        FileNotFoundError: the set is not prepared in that folder.
        ValueError: an option is out of range, or the set cannot be used; the message says why.
    """
    check_options(split_seed=split_seed, validation=validation)
    root = data_root(data_dir)
    embedded = name in EMBEDDED
    arrays = EMBEDDED[name]() if embedded else tfds.read(name, root)
    official = _official(arrays)
    sizes = {split: len(part) for split, part in official.items()}
    inexact = () if embedded else inexact_notes(name, root, sizes)
    parts = divide(name, official, split_seed=split_seed, validation=validation, subset=subset)
    mean, std = channel_moments(np.asarray(parts.train.images))
    height, width, channels = parts.train.images.shape[1:]
    num_classes = int(arrays["num_classes"])
    return Dataset(
        name=name,
        train=parts.train,
        validation=parts.validation,
        test=parts.test,
        num_classes=num_classes,
        image_shape=(height, width, channels),
        mean=mean,
        std=std,
        class_names=class_names(name, num_classes, None if embedded else find(name, root)),
        notes=inexact + parts.notes,
    )


def _official(arrays: dict[str, np.ndarray]) -> dict[str, Split]:
    """The splits that a set comes with, by their names."""
    found = {"train": Split(arrays["train_images"], arrays["train_labels"])}
    if "test_labels" in arrays:
        found[str(arrays["test_split"])] = Split(arrays["test_images"], arrays["test_labels"])
    return found
