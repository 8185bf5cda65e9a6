"""Checkpoints that can be trusted: asynchronous, whole or not there, and checked when they are read (orbax)."""

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

FORMAT = 1
_FORMAT, _CHECKSUMS, _ABOUT = "format", "checksums", "about"


class Restored(NamedTuple):
    """What `Checkpoints.restore` found.

    Attributes:
      step: of the checkpoint.
      tree: its arrays.
      about: what was saved beside them.
      passed_over: newer checkpoints that are damaged, with the reason.
    """

    step: int
    tree: Any
    about: dict[str, Any]
    passed_over: tuple[str, ...]


class Checkpoints:
    """The checkpoints of a run in a folder: the last ones and the best ones. Use it as a context.

    A checkpoint is written beside the computation, under a temporary name that is changed once everything is there; it holds
    the checksum of every array, so that a damaged one is told from a whole one.

    Args:
      folder: of the checkpoints, made if it is not there.
      last: how many of the newest are kept.
      best: how many of those with the highest score are kept besides.

    Raises:
      ValueError: fewer than one are to be kept.
    """

    def __init__(self, folder: Path, *, last: int = 2, best: int = 1) -> None:
        if last < 1 or best < 0:
            raise ValueError(
                f"keep 1 of the last checkpoints or more and 0 of the best or more, got {last} and {best}"
            )
        policies = ocp.training.preservation_policies
        kept: list[Any] = [policies.LatestN(last)]
        if best:
            kept.append(policies.BestN(get_metric_fn=_score, n=best, keep_checkpoints_without_metrics=False))
        self.folder = folder.absolute()
        self._set_aside = tuple(_unreadable(self.folder))
        preserved: Any = policies.AnyPreservationPolicy(kept)
        self._inner = ocp.training.Checkpointer(
            str(self.folder), preservation_policy=preserved, cleanup_tmp_directories=True
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def steps(self) -> list[int]:
        """The steps of the checkpoints that are whole, oldest first."""
        return [checkpoint.step for checkpoint in self._inner.checkpoints]

    def save(
        self, step: int, tree: Any, *, score: float | None = None, about: Mapping[str, Any] | None = None
    ) -> None:
        """Begins to write a checkpoint; the arrays may be donated as soon as this returns.

        Args:
          step: of the run, later than those before.
          tree: of arrays.
          score: by which the best are chosen, the higher the better; None is never among the best.
          about: what else belongs to it, as JSON.
        """
        told = {_FORMAT: FORMAT, _ABOUT: dict(about or {}), _CHECKSUMS: _checksums(tree)}
        metrics: Any = None if score is None else {"score": float(score)}
        self._inner.save_async(step, tree, force=True, metrics=metrics, custom_metadata=told)

    def wait(self) -> None:
        """Returns when everything is written."""
        self._inner.wait()

    def close(self) -> None:
        """Waits, and lets go of the folder."""
        self._inner.wait()
        self._inner.close()

    def restore(self, like: Any, *, step: int | None = None) -> Restored:
        """The newest checkpoint that is whole, or that of a step.

        Args:
          like: a tree of the same structure, of arrays or `jax.ShapeDtypeStruct`; where these have shardings, the arrays are
            laid out so, whatever devices they were written from.
          step: None for the newest.

        Raises:
          FileNotFoundError: there is none that is whole (with the reasons), or none of that step.
          ValueError: it was written by a later version, or holds other arrays: those are named.
        """
        self.wait()
        passed_over = list(self._set_aside)
        for known in reversed(self.steps):
            if step is not None and known != step:
                continue
            try:
                found = self._read(known, like)
            except (_Damaged, OSError) as error:
                passed_over.append(f"the checkpoint of step {known} is damaged: {error}")
                continue
            return Restored(known, *found, tuple(passed_over))
        what = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        reasons = f" ({'; '.join(passed_over)})" if passed_over else ""
        raise FileNotFoundError(f"{self.folder} holds {what} that is whole{reasons}")

    def _read(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        told = self._told(step)
        if told[_FORMAT] > FORMAT:
            raise ValueError(
                f"the checkpoint of step {step} in {self.folder} has format {told[_FORMAT]}, and this cnnjax reads up "
                f"to {FORMAT}: use the version that wrote it, or a later one"
            )
        self._check_same(step, told[_CHECKSUMS], like)
        try:
            tree = self._inner.load(step, jax.tree.map(_abstract, like))
        except Exception as error:
            # Orbax raises errors of many kinds for files that are cut off or gone.
            raise _Damaged(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
        found = _checksums(tree)
        if wrong := [path for path, sum_ in told[_CHECKSUMS].items() if found[path][-1] != sum_[-1]]:
            raise _Damaged(f"{wrong[0]} is not what was written")
        return tree, told[_ABOUT]

    def _told(self, step: int) -> dict[str, Any]:
        try:
            told = self._inner.metadata(step).custom_metadata
        except Exception as error:
            raise _Damaged(f"its description cannot be read ({type(error).__name__})") from error
        if not isinstance(told, dict) or not {_FORMAT, _ABOUT, _CHECKSUMS} <= told.keys():
            raise _Damaged("its description is gone")
        return told

    def _check_same(self, step: int, saved: Mapping[str, Any], like: Any) -> None:
        expected = {path: [list(leaf.shape), str(leaf.dtype)] for path, leaf in _leaves(like)}
        there = {path: sum_[:-1] for path, sum_ in saved.items()}
        differing = [
            f"{path}: {_words(there.get(path))} in the checkpoint, {_words(expected.get(path))} in the model"
            for path in sorted({*there, *expected})
            if there.get(path) != expected.get(path)
        ]
        if differing:
            more = f", and {len(differing) - 5} more" if len(differing) > 5 else ""
            raise ValueError(
                f"the checkpoint of step {step} in {self.folder} belongs to another model: {'; '.join(differing[:5])}{more}"
            )


def _unreadable(folder: Path) -> Iterator[str]:
    """Renames checkpoints whose description is no JSON, at which orbax would not even open the folder; says which."""
    for checkpoint in sorted(folder.glob("*")):
        if not checkpoint.name.isdigit():
            continue
        try:
            for file in (checkpoint / "_CHECKPOINT_METADATA", checkpoint / "metrics" / "metrics"):
                json.loads(file.read_bytes() if file.exists() else b"{}")
        except ValueError:
            checkpoint.rename(checkpoint.with_name(f"{checkpoint.name}.damaged"))
            yield f"the checkpoint of step {checkpoint.name} is damaged: its description cannot be read"


class _Damaged(Exception):
    """A checkpoint is not what was written."""


def _score(metrics: Any) -> float:
    return metrics["score"]


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _checksums(tree: Any) -> dict[str, list[Any]]:
    """Shape, type and CRC-32 of each array; of one that lies on several hosts, zero."""

    def crc(leaf: Any) -> int:
        whole = getattr(leaf, "is_fully_addressable", True)
        return zlib.crc32(np.ascontiguousarray(np.asarray(leaf)).tobytes()) if whole else 0

    return {path: [list(leaf.shape), str(leaf.dtype), crc(leaf)] for path, leaf in _leaves(tree)}


def _abstract(leaf: Any) -> Any:
    place = getattr(leaf, "sharding", None) or SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)


def _words(what: list[Any] | None) -> str:
    return "nothing" if what is None else f"{what[1]}{what[0]}"
