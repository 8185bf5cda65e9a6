"""`open_stream`: a set that is too large for memory, by name or folder."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnnjax.data.class_names import class_names
from cnnjax.data.dataset import LabelKind, channel_moments
from cnnjax.data.draws import check_options, divide
from cnnjax.data.embedded import EMBEDDED
from cnnjax.data.examples import Examples
from cnnjax.data.folders import data_root, find, inexact_notes
from cnnjax.data.image_batches import batches
from cnnjax.data.image_folder import read_folder
from cnnjax.data.records import read_records

# Of a sample of the training images, on the scale 0..1: fb.resnet.torch (Gross and Wilber, 2016), and with it
# torchvision and timm.
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_IMAGENET_NAMES = ("imagenet", "ilsvrc")
_MOST_MEASURED, _MEASURED_AT_ONCE = 1000, 50


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StreamedDataset:
    """An image classification set that stays on the disk; `batches` reads its parts.

    `image_shape` is what images are brought to. The other fields are those of `Dataset`.
    """

    name: str
    train: Examples
    validation: Examples
    test: Examples
    num_classes: int
    image_shape: tuple[int, int, int]
    mean: np.ndarray
    std: np.ndarray
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def label_kind(self) -> LabelKind:
        """See `Dataset`."""
        return "multi" if np.ndim(self.train.blank) else "single"


def open_stream(
    name: str | os.PathLike[str],
    *,
    image_size: int,
    validation: float | None = None,
    split_seed: int = 0,
    subset: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> StreamedDataset:
    """Open a set whose images are read while they are used, and may be of any size.

    It is a folder of images, `ROOT/train/CLASS/FILE` with `validation` (or `val`) and `test` beside `train`, or a set
    that was prepared by TFDS in ArrayRecord. Where images may show several classes, `ROOT/train/labels.csv` has a head
    `file,CLASS,CLASS,...` and rows of a path from there on and a 0 or 1 for each class.

    The parts are as those of `load`: a test split is kept; where there is none, the validation split takes its place, or a
    fifth of the images is drawn. Validation images are cut off from training, unless a folder has both other splits.
    `notes` say what was done.

    To draw from a TFDS set, the labels of all its training records are read: minutes for ImageNet, the first time.

    `mean` and `std` are the usual constants where the name of a set of RGB images begins with "imagenet" or "ilsvrc",
    and else those of up to 1,000 training images, evenly spaced, cropped to their center.

    Args:
        name: the path of a folder, or the name of a TFDS set as in `load`. A string is a path if it is one of a folder
            and has a slash, or begins with a dot or `~`.
        image_size: height and width that images are brought to, in pixels, be they larger or smaller.
        validation, split_seed, subset, data_dir: as in `load`.

    Raises:
        FileNotFoundError: the folder or the set is not there.
        ValueError: an option is out of range, or the set cannot be used; the message says why.
    """
    check_options(split_seed=split_seed, validation=validation)
    if image_size < 1:
        raise ValueError(f"image_size must be 1 or more, got {image_size}")
    folder = _as_folder(name)
    found = _of_tfds(os.fspath(name), data_dir) if folder is None else _of_folder(folder)
    parts = divide(found.name, found.parts, split_seed=split_seed, validation=validation, subset=subset)
    mean, std = _moments(found.name, parts.train, image_size)
    return StreamedDataset(
        name=found.name,
        train=parts.train,
        validation=parts.validation,
        test=parts.test,
        num_classes=len(found.class_names),
        image_shape=(image_size, image_size, parts.train.channels),
        mean=mean,
        std=std,
        class_names=found.class_names,
        notes=found.notes + parts.notes,
    )


class _Found(NamedTuple):
    name: str
    parts: Mapping[str, Examples]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


def _as_folder(name: str | os.PathLike[str]) -> Path | None:
    """The folder that is meant, or None for the name of a set."""
    path = Path(name).expanduser()
    if not isinstance(name, str) or name.startswith((".", "~")) or path.is_absolute():
        return path
    separators = {"/", os.sep} & set(name)
    return path if separators and path.is_dir() else None


def _of_folder(folder: Path) -> _Found:
    parts, names, notes = read_folder(folder)
    return _Found(folder.resolve().name, parts, names, notes)


def _of_tfds(name: str, data_dir: str | os.PathLike[str] | None) -> _Found:
    if name in EMBEDDED:
        raise ValueError(f"{name} is small and has no images on the disk: read it with load({name!r})")
    root = data_root(data_dir)
    folder = find(name, root)
    parts, num_classes = read_records(name, folder)
    notes = inexact_notes(name, root, {split: len(part) for split, part in parts.items()})
    return _Found(name, parts, class_names(name, num_classes, folder), notes)


def _moments(name: str, train: Examples, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation `(channels,)` in float32, on the scale 0..1."""
    if train.channels == 3 and name.lower().startswith(_IMAGENET_NAMES):
        mean, std = np.array(_IMAGENET, np.float32)
        return mean, std
    rows = np.unique(np.linspace(0, len(train) - 1, min(_MOST_MEASURED, len(train))).astype(int))
    sample = batches(
        train.take(rows), batch_size=_MEASURED_AT_ONCE, image_size=image_size, seed=None, on_corrupt="skip"
    )
    images = np.concatenate([images[weights > 0] for images, _, weights in sample])
    if not len(images):
        raise ValueError(
            f"none of {len(rows)} training images of {name} can be read, such as {train.name(int(rows[0]))}"
        )
    return channel_moments(images)
