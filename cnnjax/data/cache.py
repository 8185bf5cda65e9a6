"""Decoded arrays on disk, so that a set is decoded once: npz files without pickle, renamed into place."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cnnjax.files import replacing


def cache_dir() -> Path:
    """The folder named by `CNNJAX_CACHE`, or `cnnjax` in the platform's cache folder of the user."""
    if chosen := os.environ.get("CNNJAX_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "cnnjax"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "cnnjax"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cnnjax"


def load_or_build(key: str, build: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays stored under `key`, or those of `build()`, which are then stored.

    A file that cannot be read (it was truncated, say) is built again. A folder that cannot be written to
    costs a warning, never the data.
    """
    path = cache_dir() / "data" / f"{key}.npz"
    if (arrays := _read(path)) is not None:
        return arrays
    arrays = build()
    try:
        _write(path, arrays)
    except OSError as error:
        warnings.warn(
            f"{key} will be decoded again next time, since {path} cannot be written ({error}): "
            "set CNNJAX_CACHE to a folder that can",
            stacklevel=2,
        )
    return arrays


def _read(path: Path) -> dict[str, np.ndarray] | None:
    try:
        # numpy leaves a file open that it opened itself and found damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception:  # No file, no zip file, a wrong checksum: damage shows in many ways.
        return None


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
