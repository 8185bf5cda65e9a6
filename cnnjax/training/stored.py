"""A checkpoint on disk: its description, its arrays, and how they differ from those of a model."""

import functools
import json
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

from cnnjax.training import abandoned, hosts
from cnnjax.training.checksums import checksums, leaves, path_of

__all__ = [
    "FORMAT",
    "Damaged",
    "Differences",
    "brief",
    "describe",
    "description",
    "differences",
    "is_described",
    "load",
    "load_some",
    "score",
    "set_aside",
]

FORMAT = 1
_DESCRIPTION, _SCORE = "_CHECKPOINT_METADATA", "metrics/metrics"
_SHOWN = 5


class Damaged(Exception):
    """A checkpoint is not what was written."""


def describe(tree: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """What is written beside the arrays of a tree.

    Raises:
      TypeError: `about` is no JSON.
    """
    json.dumps(dict(about))
    return {"format": FORMAT, "about": dict(about), "checksums": checksums(tree)}


def description(folder: Path) -> dict[str, Any]:
    """What was written beside the arrays: format, about and checksums.

    Raises:
      Damaged: it cannot be read.
      ValueError: a later version has written it.
    """
    told = _description(folder)
    if told["format"] > FORMAT:
        raise ValueError(
            f"the checkpoint in {folder} has format {told['format']}, and this cnnjax reads up to {FORMAT}: use the "
            "version that wrote it, or a later one"
        )
    return told


def _description(folder: Path) -> dict[str, Any]:
    try:
        told = json.loads((folder / _DESCRIPTION).read_bytes())["custom_metadata"]
    except Exception as error:
        raise Damaged(f"its description cannot be read ({type(error).__name__})") from error
    if not isinstance(told, dict) or not {"format", "about", "checksums"} <= told.keys():
        raise Damaged("its description is gone")
    return told


def is_described(folder: Path) -> bool:
    """Whether its description and its score, if there is one, are JSON."""
    try:
        for file in (folder / _DESCRIPTION, folder / _SCORE):
            json.loads(file.read_bytes() if file.exists() else b"{}")
    except (OSError, ValueError):
        return False
    return True


def score(folder: Path) -> float | None:
    """The score of a checkpoint, None if it has none that can be read."""
    try:
        return json.loads((folder / _SCORE).read_bytes())["score"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Differences(NamedTuple):
    """A checkpoint and a model, array by array.

    Attributes:
      same: paths of arrays of one shape and type.
      missing, extra: paths of those in the model only and in the checkpoint only.
      misshapen: paths of those of another shape or type.
      words: a line for each difference.
    """

    same: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    misshapen: tuple[str, ...]
    words: tuple[str, ...]

    def text(self) -> str:
        """The first differences, and how many more there are."""
        more = f", and {len(self.words) - _SHOWN} more" if len(self.words) > _SHOWN else ""
        return "; ".join(self.words[:_SHOWN]) + more


def differences(saved: Mapping[str, Any], like: Any) -> Differences:
    """Compares the arrays of a checkpoint with those of a model.

    Args:
      saved: the checksums of the checkpoint.
      like: a tree of arrays or `jax.ShapeDtypeStruct`.
    """
    expected = {path: [list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves(like)}
    there = {path: sum_[:-1] for path, sum_ in saved.items()}
    paths = sorted({*there, *expected})
    differing = [path for path in paths if there.get(path) != expected.get(path)]
    return Differences(
        same=tuple(path for path in paths if path not in differing),
        missing=tuple(path for path in differing if path not in there),
        extra=tuple(path for path in differing if path not in expected),
        misshapen=tuple(path for path in differing if path in there and path in expected),
        words=tuple(
            f"{path}: {_words(there.get(path))} in the checkpoint, {_words(expected.get(path))} in the model"
            for path in differing
        ),
    )


def _words(what: list[Any] | None) -> str:
    return "nothing" if what is None else f"{what[1]}{what[0]}"


def load(folder: Path, saved: Mapping[str, Any], like: Any, *, partial: bool = False) -> Any:
    """The arrays of a checkpoint, checked; each process reads its part, and all get the same answer.

    Args:
      folder: of the checkpoint.
      saved: its checksums.
      like: a tree of what is to be read, in the layout that it is to have.
      partial: whether the checkpoint holds more.

    Raises:
      Damaged: the arrays cannot be read, by this process or another, or are not what was written.
    """
    tree, failure = None, None
    with abandoned.unheard():
        try:
            tree = _load(folder, like, partial)
        except (MemoryError, jax.errors.JaxRuntimeError):
            raise
        except Exception as error:
            # Orbax raises errors of many kinds for files that are cut off or gone.
            failure = brief(error)
        if failure is not None:
            abandoned.end()
    if hosts.agree(failure is not None):
        raise Damaged(failure or "another process cannot read it")
    found = checksums(tree)
    wrong = [path for path, sum_ in found.items() if saved[path][-1] != sum_[-1]]
    if hosts.agree(bool(wrong)):
        raise Damaged(f"{wrong[0] if wrong else 'what another process read'} is not what was written")
    return tree


def load_some(folder: Path, saved: Mapping[str, Any], like: Any, paths: Collection[str]) -> Any:
    """`like`, a tree of nested dictionaries, with the arrays of these paths from a checkpoint; as `load` otherwise."""
    wanted: dict[str, Any] = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(like):
        if path_of(keys) in paths:
            inner = functools.reduce(lambda tree, key: tree.setdefault(key.key, {}), keys[:-1], wanted)
            inner[keys[-1].key] = leaf
    found = dict(leaves(load(folder, saved, wanted, partial=True)))
    return jax.tree_util.tree_map_with_path(lambda keys, leaf: found.get(path_of(keys), leaf), like)


def _load(folder: Path, like: Any, partial: bool) -> Any:
    context = ocp.Context()
    context.pytree.loading.partial_load = partial
    if jax.process_count() > 1:
        # Orbax would wait for the other processes, which may have failed.
        context.multiprocessing.active_processes = {jax.process_index()}
        context.multiprocessing.primary_host = jax.process_index()
    with context:
        return ocp.load(str(folder), jax.tree.map(_abstract, like))


def _abstract(leaf: Any) -> Any:
    place = getattr(leaf, "sharding", None) or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)


def set_aside(folder: Path) -> None:
    """Renames a damaged checkpoint to "STEP.damaged"."""
    aside = folder.with_name(f"{folder.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)


def brief(error: BaseException) -> str:
    """The first line of an error, without the details that tensorstore adds in brackets."""
    lines = str(error).splitlines() or [type(error).__name__]
    return re.split(r" \[\w+(\[\d+\])?=", lines[0])[0]
