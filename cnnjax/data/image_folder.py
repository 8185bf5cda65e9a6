"""Sets that are folders of image files: a folder for each class, or a sheet of labels beside the files."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

from cnnjax.data.examples import Encoded
from cnnjax.data.label_sheet import SHEET, read_sheet

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp"),
)
"""Files that count as images, in any case of letters."""

_FOLDERS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImageFolder:
    """Image files below a folder.

    `files` are their paths from `root` on, `(n,)` as bytes, because millions of strings would take a worker process
    hundreds of megabytes; `labels` are `(n,)` in int32, or `(n, classes)` in bool.
    """

    root: Path
    files: np.ndarray
    labels: np.ndarray
    channels: int = 3

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Encoded:
        return Encoded((self.root / self.name(index)).read_bytes(), self.labels[index])

    @property
    def blank(self) -> np.ndarray | np.int32:
        """See `Examples`."""
        return np.zeros(self.labels.shape[1:], self.labels.dtype)[()]

    def name(self, index: int) -> str:
        """The path of a file from `root` on."""
        return os.fsdecode(bytes(self.files[index]))

    def take(self, indices: np.ndarray) -> ImageFolder:
        """The files at these positions, in this order."""
        return dataclasses.replace(self, files=self.files[indices], labels=self.labels[indices])


Splits = tuple[dict[str, ImageFolder], tuple[str, ...], tuple[str, ...]]


def read_folder(root: Path) -> Splits:
    """The splits of `ROOT/SPLIT/CLASS/.../FILE`, the names of the classes, and notes.

    The splits are `train` and, where they are there, `validation` (or `val`) and `test`. The classes are the sorted
    names of the folders in `train`, the images of a class the files below its folder in the order of their paths. A
    `test` without a folder for each class has no labels: it is left out, and a note says so.

    Where images may show several classes, each split holds a `label_sheet.SHEET` instead, with the paths of its images
    and the names of the classes. Images that are not in it are left out, and a note says so.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is laid out otherwise; the message says what is missing or unknown.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"no folder {root}: name a folder that holds train/CLASS/IMAGE, or train/{SHEET} and images"
        )
    folders = {split: _split_folder(root, split) for split in _FOLDERS}
    if (train := folders["train"]) is None:
        there = ", ".join(sorted(entry.name for entry in root.iterdir())) or "nothing"
        raise ValueError(
            f"expected images as {root}/train/CLASS/IMAGE, or with a {SHEET} in {root}/train, but {root} holds {there}"
        )
    return (_read_sheets if (train / SHEET).is_file() else _read_classes)(root, train, folders)


def _read_classes(root: Path, train: Path, folders: dict[str, Path | None]) -> Splits:
    """Splits with a folder for each class."""
    classes = _classes(train)
    if len(classes) < 2:
        raise ValueError(
            f"expected a folder for each of 2 or more classes in {train}, got {', '.join(classes) or 'none'}"
        )
    notes = ()
    if folders["test"] is not None and not _classes(folders["test"]):
        folders = folders | {"test": None}
        notes = (f"the test folder of {root.name} has no folder for each class: it is left out",)
    found = {split: _read_split(root, folder, classes) for split, folder in folders.items() if folder}
    counts = np.bincount(found["train"].labels, minlength=len(classes))
    if bare := [name for name, count in zip(classes, counts, strict=True) if not count]:
        raise ValueError(f"{train} has no image ({', '.join(sorted(SUFFIXES))}) in {_listed(bare)}")
    return found, classes, notes


def _read_sheets(root: Path, train: Path, folders: dict[str, Path | None]) -> Splits:
    """Splits with a sheet of labels."""
    notes = ()
    if folders["test"] is not None and not (folders["test"] / SHEET).is_file():
        folders = folders | {"test": None}
        notes = (f"the test folder of {root.name} has no {SHEET}: it is left out",)
    classes = read_sheet(train / SHEET).classes
    found = {}
    for split, folder in folders.items():
        if folder is not None:
            found[split], unlisted = _read_listed(root, folder, classes)
            if unlisted:
                note = f"{unlisted:,} images below {folder.name} of {root.name} are not in its {SHEET}: they are left out"
                notes += (note,)
    if bare := [
        name for name, there in zip(classes, found["train"].labels.any(axis=0), strict=True) if not there
    ]:
        raise ValueError(f"{train / SHEET} has no image that shows {_listed(bare)}: leave such columns out")
    return found, classes, notes


def _read_listed(root: Path, folder: Path, classes: tuple[str, ...]) -> tuple[ImageFolder, int]:
    """The images that a folder's sheet lists, and how many others there are."""
    path = folder / SHEET
    if not path.is_file():
        raise ValueError(
            f"{folder} has no {SHEET}, as train has: list its images there, or take the folder away"
        )
    sheet = read_sheet(path)
    if sheet.classes != classes:
        raise ValueError(
            f"expected the columns of {path} to be those of train ({_listed(list(classes))}), got "
            f"{_listed(list(sheet.classes))}"
        )
    if not sheet.files:
        raise ValueError(f"{path} lists no images")
    there = set(_images(root, folder))
    files = [os.path.normpath(os.path.join(folder.name, file)) for file in sheet.files]
    if missing := [file for file in files if file not in there]:
        raise ValueError(
            f"{path} lists images ({', '.join(sorted(SUFFIXES))}) that are not there: {_listed(missing)}"
        )
    paths = np.array([os.fsencode(file) for file in files])
    return ImageFolder(root=root, files=paths, labels=sheet.labels), len(there) - len(files)


def _split_folder(root: Path, split: str) -> Path | None:
    there = [root / name for name in _FOLDERS[split] if (root / name).is_dir()]
    if len(there) > 1:
        raise ValueError(
            f"{root} has both {there[0].name} and {there[1].name}: keep the one for {split} there"
        )
    return there[0] if there else None


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and _shows(entry.name)))


def _read_split(root: Path, folder: Path, classes: tuple[str, ...]) -> ImageFolder:
    there = _classes(folder)
    if unknown := sorted(set(there) - set(classes)):
        raise ValueError(f"{folder} has folders that are no class of train: {_listed(unknown)}")
    files = {name: _images(root, folder / name) for name in there}
    labels = np.repeat([classes.index(name) for name in there], [len(files[name]) for name in there])
    if not len(labels):
        raise ValueError(
            f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}) in the folders of its classes"
        )
    paths = [os.fsencode(path) for name in there for path in files[name]]
    return ImageFolder(root=root, files=np.array(paths), labels=labels.astype(np.int32))


def _images(root: Path, folder: Path) -> list[str]:
    """The paths of all images below a folder, sorted, from `root` on."""
    found = []
    for place, _, files in os.walk(folder, followlinks=True):
        below = os.path.relpath(place, root)
        shown = (file for file in files if _shows(file) and os.path.splitext(file)[1].lower() in SUFFIXES)
        found += [os.path.join(below, file) for file in shown]
    return sorted(found)


def _shows(name: str) -> bool:
    return not name.startswith(".")


def _listed(names: list[str]) -> str:
    """The first few of many names."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
