"""`load`: a data set by name, cut into training, validation and test splits."""

from __future__ import annotations

import os

import numpy as np

from cnnjax.data import tfds
from cnnjax.data.dataset import Dataset, Split, channel_moments
from cnnjax.data.embedded import EMBEDDED
from cnnjax.data.folders import data_root, inexact_notes
from cnnjax.data.split import stratified

_TEST_FRACTION = 0.2  # of a set that has no test split of its own
_VALIDATION_FRACTION, _MOST_VALIDATION = 0.2, 2000
# Each draw has a stream of its own, so that changing one option leaves the other draws as they were.
_STREAMS = {"test": 0, "validation": 1, "subset": 2}


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
    if split_seed < 0 or not 0 <= (validation or 0) < 1:
        raise ValueError(f"expected split_seed >= 0, 0 <= validation < 1, got {split_seed}, {validation}")
    root = data_root(data_dir)
    arrays = EMBEDDED[name]() if name in EMBEDDED else tfds.read(name, root)
    train, test, notes = _train_and_test(name, arrays, split_seed)
    if name not in EMBEDDED:
        notes += inexact_notes(name, root, {"train": len(arrays["train_labels"]), "test": len(test)})
    if validation is None:
        size = min(round(_VALIDATION_FRACTION * len(train)), _MOST_VALIDATION)
    else:
        size = round(validation * len(train))
    held_out, train = _draw("validation", train, size, split_seed)
    if subset is not None:
        if not 1 <= subset <= len(train):
            raise ValueError(f"{name} has {len(train)} images left for training: subset cannot be {subset}")
        notes += (f"trained on {subset} of {len(train)} training images",)
        train, _ = _draw("subset", train, subset, split_seed)
    mean, std = channel_moments(np.asarray(train.images))
    height, width, channels = train.images.shape[1:]
    return Dataset(
        name=name,
        train=train,
        validation=held_out,
        test=test,
        num_classes=int(arrays["num_classes"]),
        image_shape=(height, width, channels),
        mean=mean,
        std=std,
        notes=notes,
    )


def _train_and_test(
    name: str, arrays: dict[str, np.ndarray], seed: int
) -> tuple[Split, Split, tuple[str, ...]]:
    """The splits for training and test, and what to say about the latter."""
    train = Split(arrays["train_images"], arrays["train_labels"])
    if "test_labels" not in arrays:
        test, train = _draw("test", train, round(_TEST_FRACTION * len(train)), seed)
        note = f"{name} has no official test split: {len(test)} images were drawn by split_seed={seed}"
        return train, test, (note,)
    test = Split(arrays["test_images"], arrays["test_labels"])
    if (split := str(arrays["test_split"])) != "test":
        return (
            train,
            test,
            (f"{name} has no labeled test split: its official {split} split is the test split",),
        )
    return train, test, ()


def _draw(purpose: str, split: Split, size: int, seed: int) -> tuple[Split, Split]:
    """Draw `size` examples of a split; return them and the others."""
    rng = np.random.default_rng([seed, _STREAMS[purpose]])
    drawn, others = stratified(np.asarray(split.labels), size, rng)
    return Split(split.images[drawn], split.labels[drawn]), Split(split.images[others], split.labels[others])
