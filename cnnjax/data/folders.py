"""Where prepared TFDS sets lie, and what is said when one does not.

A prepared set is a folder `data_dir/name[/config]/version`.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from pathlib import Path

# Often used; any other image classification set that TFDS knows works, too.
KNOWN_SETS = (
    "digits",
    "digits32",
    "mnist",
    "fashion_mnist",
    "kmnist",
    "emnist",
    "cifar10",
    "cifar100",
    "svhn_cropped",
    "stl10",
    "eurosat",
    "imagenet_resized",
)

_NAME = re.compile(r"(?P<path>\w+(/\w[\w.-]*)?)(:(?P<version>\d+\.\d+\.\d+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def data_root(data_dir: str | os.PathLike[str] | None) -> Path:
    """`data_dir`, or where TFDS keeps its sets: the folder `TFDS_DATA_DIR`, or `~/tensorflow_datasets`."""
    folder = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(folder).expanduser()


def find(name: str, root: Path) -> Path:
    """The folder of set `name[/config][:version]` below `root`, of its newest version unless one is named.

    Raises:
        ValueError: the name is not of that form, or the set is not in ArrayRecord.
        FileNotFoundError: the set, or this configuration or version of it, is not there.
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise ValueError(f"a data set is named NAME, NAME/CONFIG or NAME:1.2.3, got {name!r}")
    versions = _versions(root / parts["path"])
    wanted = parts["version"] or next(reversed(versions), None)
    if wanted not in versions:
        raise FileNotFoundError(_missing(name, parts["path"], list(versions), root))
    folder = versions[wanted]
    if not any(folder.glob("*array_record*")):
        raise ValueError(
            f"{folder} does not hold {name} in ArrayRecord, the format that is read without TensorFlow: "
            f"move that folder away, then run `{prepare_command(name, root)}`"
        )
    return folder


def inexact_notes(name: str, root: Path, sizes: dict[str, int]) -> tuple[str, ...]:
    """What the file `<name>_inexact.json` beside the sets says about images that are not the official ones.

    It holds their indices by split: `{"inexact_train": [...], "inexact_test": [...]}`.
    """
    file = root / f"{re.split('[/:]', name)[0]}_inexact.json"
    if not file.exists():
        return ()
    indices = json.loads(file.read_text())
    counts = {split: len(indices.get(f"inexact_{split}", ())) for split in sizes}
    return tuple(
        f"{count} of the {sizes[split]} {split} images of this copy of {name} are not bit-exact ({file.name})"
        for split, count in counts.items()
        if count
    )


def prepare_command(name: str, root: Path) -> str:
    """The shell command that prepares `name` in `root`."""
    command = f"cnnjax data prepare {name}"
    return command if root == data_root(None) else f"TFDS_DATA_DIR={root} {command}"


def nearest(name: str, known: list[str]) -> str:
    """A hint ` Did you mean ...?`, or nothing where no known name is close."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close and close[0] != name else ""


def _versions(folder: Path) -> dict[str, Path]:
    """Prepared versions in `folder`, the newest last."""
    found = [
        info.parent for info in folder.glob("*/dataset_info.json") if _VERSION.fullmatch(info.parent.name)
    ]
    found.sort(key=lambda path: [int(number) for number in path.name.split(".")])
    return {path.name: path for path in found}


def _missing(name: str, path: str, versions: list[str], root: Path) -> str:
    if versions:
        return f"no {name!r} in {root}, which has version {', '.join(versions)}: name that, or none"
    if configs := sorted(folder.name for folder in root.glob(f"{path}/*") if _versions(folder)):
        return f"{name!r} in {root} has configurations ({', '.join(configs)}): write {path}/{configs[0]}, say"
    known = [*KNOWN_SETS, *(info.parts[-3] for info in root.glob("*/*/dataset_info.json"))]
    if hint := nearest(name, known):
        return f"no data set {name!r} in {root}.{hint} (If not: `{prepare_command(name, root)}` prepares it there.)"
    return f"no data set {name!r} in {root}: `{prepare_command(name, root)}` prepares it there"
