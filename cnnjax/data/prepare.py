"""The one step that needs TensorFlow: downloading a TFDS set and writing it in ArrayRecord."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

from cnnjax.data.embedded import EMBEDDED
from cnnjax.data.folders import KNOWN_SETS, data_root, find, nearest


def prepare(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> Path:
    """Make the TFDS set `name` ready for `load`, and return its folder; do nothing if it is there already.

    Args:
        name: `NAME[/CONFIG]`, as TFDS names it.
        data_dir: where to put it (None: `TFDS_DATA_DIR`, or else `~/tensorflow_datasets`).
        say: is called with each sentence that explains what happens (`print`, say).

    Raises:
        ImportError: TensorFlow cannot be imported.
        ValueError: TFDS knows no such set, or it is there in another format.
    """
    root = data_root(data_dir)
    if name in EMBEDDED:
        raise ValueError(f"{name} is part of scikit-learn: it needs no preparation")
    try:
        folder = find(name, root)
    except FileNotFoundError:
        folder = _download(name, root, say)
    say(f"{name} is ready in {folder}")
    return folder


def _download(name: str, root: Path, say: Callable[[str], object]) -> Path:
    try:
        importlib.import_module("tensorflow")
    except ImportError as error:
        raise ImportError(
            f"preparing {name} needs TensorFlow, which cannot be imported ({error}): "
            "pip install 'cnnjax[prepare]'. It is needed for this step only; training never imports it."
            f"{nearest(name, list(KNOWN_SETS))}"
        ) from error
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    say(f"TFDS downloads {name} and writes it in ArrayRecord below {root}; only this step needs TensorFlow")
    try:
        builder = tfds.builder(name, data_dir=root, file_format="array_record")
    except DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        raise ValueError(f"TFDS knows no data set {name!r}.{nearest(name, known)}") from error
    builder.download_and_prepare()
    return Path(builder.data_dir)
