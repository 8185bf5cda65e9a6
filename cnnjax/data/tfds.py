"""Sets prepared by TensorFlow Datasets in ArrayRecord, decoded without TensorFlow."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from cnnjax.data.cache import load_or_build
from cnnjax.data.folders import find
from cnnjax.data.pictures import MODES

SEVERAL = "labels"
"""The key under which sets have several labels of an image."""
_RECORDS_AT_ONCE = 1000


def read(name: str, root: Path) -> dict[str, np.ndarray]:
    """Images and labels of the prepared set `name`, decoded once and then read from the cache.

    Returns `num_classes`, `train_images` `(n, height, width, channels)`, `train_labels` as those of a `Split`, and
    `train_split`, the split's name in TFDS; the same for `test` where there is a test split, or a validation
    split to take its place.

    Raises:
        ValueError: the set is not one of labeled uint8 images of one size, or is damaged, or as `find`.
        FileNotFoundError: as `find`.
    """
    folder = find(name, root)
    return load_or_build(cache_key(name, folder), lambda: _decode(name, folder))


class Description(NamedTuple):
    """What a prepared set says about itself.

    `shape` is `(height, width, channels)` with None where images differ; `multi` says whether an image may show several
    classes; `splits` are their sizes by name; `builder` is TFDS's.
    """

    builder: Any
    image: str
    label: str
    shape: tuple[int | None, ...]
    num_classes: int
    multi: bool
    splits: dict[str, int]

    @property
    def channels(self) -> int:
        """Of its images: 1, 3 or 4."""
        return cast(int, self.shape[-1])

    def labeled(self, value: Any) -> Any:
        """The label of an example as it stands in its record: an int32, or bool `(classes,)`.

        Raises:
            ValueError: one of several is no class of the set.
        """
        if not self.multi:
            return np.int32(value)
        shown = np.asarray(value, np.int64).reshape(-1)
        if wrong := [index for index in shown.tolist() if not 0 <= index < self.num_classes]:
            raise ValueError(f"the label {wrong[0]} is none of 0 to {self.num_classes - 1}")
        return np.isin(np.arange(self.num_classes), shown)

    def source(self, split: str) -> Any:
        """TFDS's data source of a split, which leaves images encoded."""
        import tensorflow_datasets as tfds

        skip = tfds.decode.SkipDecoding()
        features = self.builder.info.features.items()
        encoded = {key: skip for key, feature in features if isinstance(feature, tfds.features.Image)}
        # Decoding the images here rather than in TFDS saves a third of the time.
        return self.builder.as_data_source(split, decoders=encoded)


def describe(name: str, folder: Path) -> Description:
    """What the set `name` in a folder is.

    Raises:
        ValueError: it is not one of labeled uint8 images with 1, 3 or 4 channels, or has no split "train".

    Labels are a ClassLabel, or, where an image may show several, a Sequence of them with the key "labels".
    """
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(folder)
    features = dict(builder.info.features.items())
    image, label = _keys(builder.info.supervised_keys, features)
    _check_features(name, features, image, label)
    splits = {split: info.num_examples for split, info in builder.info.splits.items()}
    if "train" not in splits:
        raise ValueError(f"{name} has no split 'train'; its splits are {', '.join(splits)}")
    multi = not isinstance(features[label], tfds.features.ClassLabel)
    num_classes = (features[label].feature if multi else features[label]).num_classes
    return Description(builder, image, label, features[image].shape, num_classes, multi, splits)


def cache_key(name: str, folder: Path) -> str:
    """What decoded parts of a set are stored under: a set that is prepared anew has another."""
    return f"{name.partition(':')[0].replace('/', '-')}-{folder.name}-{_fingerprint(folder)}"


def unreadable(name: str, split: str, folder: Path, error: Exception) -> ValueError:
    """The error for a split that is damaged."""
    return ValueError(f"the {split} split of {name} in {folder} cannot be read ({error}): prepare it anew")


def check_labels(name: str, split: str, labels: np.ndarray, num_classes: int) -> None:
    """Raises ValueError where labels are no classes of the set."""
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"the {split} split of {name} has labels from {labels.min()} to {labels.max()}, "
            f"expected 0 to {num_classes - 1}"
        )


def _fingerprint(folder: Path) -> str:
    """A hash of the names, sizes and times of a set's files."""
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(folder.iterdir())]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]


def _decode(name: str, folder: Path) -> dict[str, np.ndarray]:
    found = describe(name, folder)
    shape, num_classes = _one_shape(name, found.shape), found.num_classes
    arrays = {"num_classes": np.asarray(num_classes)}
    for role, split in _split_names(found.splits).items():
        try:
            images, labels = _decode_split(found, split, shape)
        except Exception as error:  # The readers of records, of examples and of images each raise their own.
            raise unreadable(name, split, folder, error) from error
        if not found.multi:
            check_labels(name, split, labels, num_classes)
        arrays |= {f"{role}_images": images, f"{role}_labels": labels, f"{role}_split": np.asarray(split)}
    return arrays


def _keys(supervised: Any, features: Mapping[str, Any]) -> tuple[str, str]:
    """The keys of the image and its label: those that the set declares, or the usual ones."""
    match supervised:
        case (str(image), str(label)):
            return image, label
    return "image", "label" if "label" in features else SEVERAL


def _check_features(name: str, features: dict[str, Any], image: str, label: str) -> None:
    import tensorflow_datasets as tfds

    found, labels = features.get(image), features.get(label)
    if label == SEVERAL and isinstance(labels, tfds.features.Sequence):
        labels = labels.feature
    if not (isinstance(found, tfds.features.Image) and isinstance(labels, tfds.features.ClassLabel)):
        listed = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in features.items())
        raise ValueError(f"{name} is no set of images with class labels; its features are {listed}")
    shape, dtype = features[image].shape, features[image].np_dtype
    if dtype != np.uint8 or shape[-1] not in MODES:
        raise ValueError(
            f"{name} has images of shape {shape} in {np.dtype(dtype)}, expected uint8 images "
            "(height, width, channels) with 1, 3 or 4 channels"
        )


def _one_shape(name: str, shape: tuple[int | None, ...]) -> tuple[int, ...]:
    if None in shape:
        raise ValueError(
            f"{name} has images of shape {shape}, expected images of one fixed shape: read them with "
            "open_stream, which makes them one size"
        )
    return cast(tuple[int, ...], shape)


def _split_names(splits: Collection[str]) -> dict[str, str]:
    """Which split serves for training, and which for test."""
    test = next((split for split in ("test", "validation") if split in splits), None)
    return {"train": "train"} if test is None else {"train": "train", "test": test}


def _decode_split(found: Description, split: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    import PIL.Image

    source, labels = found.source(split), []
    images = np.empty((len(source), *shape), np.uint8)
    for start in range(0, len(source), _RECORDS_AT_ONCE):
        records = source.__getitems__(range(start, min(start + _RECORDS_AT_ONCE, len(source))))
        for index, record in enumerate(records, start):
            with PIL.Image.open(io.BytesIO(record[found.image])) as picture:
                images[index] = np.asarray(picture.convert(MODES[shape[-1]])).reshape(shape)
            labels.append(found.labeled(record[found.label]))
    return images, np.stack(labels)
