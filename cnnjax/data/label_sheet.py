"""The sheet beside images that may show several classes: a row for each image, a column for each class."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

SHEET = "labels.csv"
"""Its name, in the folder of a split."""

_VALUES = {"0": False, "1": True}


class Sheet(NamedTuple):
    """The images of a split by their paths from its folder on, and whether each shows each class, `(n, classes)` in bool."""

    files: tuple[str, ...]
    classes: tuple[str, ...]
    labels: np.ndarray


def read_sheet(path: Path) -> Sheet:
    """Reads a sheet: a head `file,CLASS,CLASS,...`, and rows of a path and a 0 or 1 for each class.

    Raises:
        ValueError: it is none; the message says where.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            head, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table of comma-separated values: {error}") from error
    if head[:1] != ["file"] or len(head) < 2 or len(set(head)) < len(head) or "" in head:
        raise ValueError(
            f"expected {path} to begin with file,CLASS,CLASS,... and different names, got {','.join(head) or 'nothing'}"
        )
    for number, row in enumerate(rows, 1):
        _check_row(path, number, row, head)
    files = tuple(row[0] for row in rows)
    if repeated := [file for file, count in Counter(files).items() if count > 1]:
        raise ValueError(f"{path} has more than one row for {repeated[0]}")
    labels = np.array([[_VALUES[cell.strip()] for cell in row[1:]] for row in rows], bool)
    return Sheet(files, tuple(head[1:]), labels.reshape(len(rows), len(head) - 1))


def _check_row(path: Path, number: int, row: list[str], head: list[str]) -> None:
    if len(row) != len(head):
        raise ValueError(
            f"row {number} of {path} has {len(row)} cells, expected {len(head)} as in its head: {','.join(row)}"
        )
    for name, cell in zip(head[1:], row[1:], strict=True):
        if cell.strip() not in _VALUES:
            raise ValueError(f"row {number} of {path} ({row[0]}): {name} must be 0 or 1, got {cell!r}")
