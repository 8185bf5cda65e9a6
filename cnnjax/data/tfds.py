"""Sets prepared by TensorFlow Datasets in ArrayRecord, decoded without TensorFlow."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data.cache import load_or_build
from cnnjax.data.folders import find

_PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_RECORDS_AT_ONCE = 1000


def read(name: str, root: Path) -> dict[str, np.ndarray]:
    """Images and labels of the prepared set `name`, decoded once and then read from the cache.

    Returns `num_classes`, `train_images` `(n, height, width, channels)`, `train_labels` `(n,)` and
    `train_split`, the split's name in TFDS; the same for `test` where there is a test split, or a validation
    split to take its place.

    Raises:
        ValueError: the set is not one of labeled uint8 images of one size, or is damaged, or as `find`.
        FileNotFoundError: as `find`.
    """
    folder = find(name, root)
    key = f"{name.partition(':')[0].replace('/', '-')}-{folder.name}-{_fingerprint(folder)}"
    return load_or_build(key, lambda: _decode(name, folder))


def _fingerprint(folder: Path) -> str:
    """A hash of the names, sizes and times of a set's files: a set that is prepared anew is decoded anew."""
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(folder.iterdir())]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]


def _decode(name: str, folder: Path) -> dict[str, np.ndarray]:
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(folder)
    features = dict(builder.info.features.items())
    image, label = _keys(builder.info.supervised_keys)
    _check_features(name, features, image, label)
    num_classes = features[label].num_classes
    arrays = {"num_classes": np.asarray(num_classes)}
    for role, split in _split_names(name, list(builder.info.splits)).items():
        # Decoding the images here rather than in TFDS saves a third of the time.
        source = builder.as_data_source(split, decoders={image: tfds.decode.SkipDecoding()})
        try:
            images, labels = _decode_split(source, image, label, features[image].shape)
        except Exception as error:  # The readers of records, of examples and of images each raise their own.
            raise ValueError(
                f"the {split} split of {name} in {folder} cannot be read ({error}): prepare it anew"
            ) from error
        if labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(
                f"the {split} split of {name} has labels from {labels.min()} to {labels.max()}, "
                f"expected 0 to {num_classes - 1}"
            )
        arrays |= {f"{role}_images": images, f"{role}_labels": labels, f"{role}_split": np.asarray(split)}
    return arrays


def _keys(supervised: Any) -> tuple[str, str]:
    """The keys of the image and its label: those that the set declares, or the usual ones."""
    match supervised:
        case (str(image), str(label)):
            return image, label
    return "image", "label"


def _check_features(name: str, features: dict[str, Any], image: str, label: str) -> None:
    import tensorflow_datasets as tfds

    found = (features.get(image), features.get(label))
    if not (isinstance(found[0], tfds.features.Image) and isinstance(found[1], tfds.features.ClassLabel)):
        listed = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in features.items())
        raise ValueError(f"{name} is no set of images with class labels; its features are {listed}")
    shape, dtype = features[image].shape, features[image].np_dtype
    if None in shape or dtype != np.uint8 or shape[-1] not in _PIL_MODES:
        raise ValueError(
            f"{name} has images of shape {shape} in {np.dtype(dtype)}, expected uint8 images of one fixed "
            "shape (height, width, channels) with 1, 3 or 4 channels"
        )


def _split_names(name: str, splits: list[str]) -> dict[str, str]:
    """Which split serves for training, and which for test."""
    if "train" not in splits:
        raise ValueError(f"{name} has no split 'train'; its splits are {', '.join(splits)}")
    test = next((split for split in ("test", "validation") if split in splits), None)
    return {"train": "train"} if test is None else {"train": "train", "test": test}


def _decode_split(
    source: Any, image: str, label: str, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    import PIL.Image

    images = np.empty((len(source), *shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    for start in range(0, len(source), _RECORDS_AT_ONCE):
        records = source.__getitems__(range(start, min(start + _RECORDS_AT_ONCE, len(source))))
        for index, record in enumerate(records, start):
            with PIL.Image.open(io.BytesIO(record[image])) as picture:
                images[index] = np.asarray(picture.convert(_PIL_MODES[shape[-1]])).reshape(shape)
            labels[index] = record[label]
    return images, labels
