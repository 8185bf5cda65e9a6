"""Sets prepared by TensorFlow Datasets in ArrayRecord, read record by record."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data.cache import load_or_build
from cnnjax.data.examples import Encoded
from cnnjax.data.tfds import Description, cache_key, check_labels, describe, unreadable

_RECORDS_AT_ONCE = 1000


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Records:
    """The records `indices`, `(n,)`, of a split of the set `title` in `folder`; `blank` as in `Examples`."""

    title: str
    folder: Path
    split: str
    indices: np.ndarray
    channels: int
    blank: Any

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Encoded:
        source, found = self._source
        record = source[int(self.indices[index])]
        return Encoded(record[found.image], found.labeled(record[found.label]))

    def name(self, index: int) -> str:
        """The number of a record in its split."""
        return f"record {self.indices[index]} of {self.split} of {self.title}"

    def take(self, indices: np.ndarray) -> Records:
        """The records at these positions, in this order."""
        return dataclasses.replace(self, indices=self.indices[indices])

    @property
    def labels(self) -> np.ndarray:
        """As in `Examples`. All records of the split are read for them once, and then never again.

        Raises:
            ValueError: a record cannot be read, or its label is no class.
        """
        key = f"{cache_key(self.title, self.folder)}-{self.split}-labels"
        return load_or_build(key, lambda: {"labels": self._read_labels()})["labels"][self.indices]

    def _read_labels(self) -> np.ndarray:
        found = describe(self.title, self.folder)
        source, size = found.source(self.split), found.splits[self.split]
        labels = []
        try:
            for start in range(0, size, _RECORDS_AT_ONCE):
                some = range(start, min(start + _RECORDS_AT_ONCE, size))
                labels += [found.labeled(record[found.label]) for record in source.__getitems__(some)]
        except Exception as error:  # The readers of records and of examples each raise their own.
            raise unreadable(self.title, self.split, self.folder, error) from error
        if not found.multi:
            check_labels(self.title, self.split, np.stack(labels), found.num_classes)
        return np.stack(labels)

    @functools.cached_property
    def _source(self) -> tuple[Any, Description]:
        """TFDS's data source, and what it is one of."""
        found = describe(self.title, self.folder)
        return found.source(self.split), found

    def __getstate__(self) -> dict[str, Any]:
        # Files are opened anew by the process that reads.
        return {key: value for key, value in self.__dict__.items() if key != "_source"}


def read_records(title: str, folder: Path) -> tuple[dict[str, Records], int]:
    """The splits of the set `title` in a folder, of which "test" and "validation" are the same as in `tfds.read`, and
    the number of classes.

    A test split without labels, which TFDS writes as -1, is as good as none.

    Raises:
        ValueError: it is no set of labeled uint8 images with 1, 3 or 4 channels, or has no split "train".
    """
    found = describe(title, folder)
    splits = {
        split: _records(title, folder, found, split)
        for split in ("train", "test", "validation")
        if split in found.splits
    }
    if "test" in splits and not found.multi and splits["test"][0].label < 0:
        del splits["test"]
    if "test" in splits:
        splits.pop("validation", None)
    return splits, found.num_classes


def _records(title: str, folder: Path, found: Description, split: str) -> Records:
    return Records(
        title=title,
        folder=folder,
        split=split,
        indices=np.arange(found.splits[split]),
        channels=found.channels,
        blank=found.labeled([] if found.multi else 0),
    )
