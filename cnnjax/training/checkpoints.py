"""Checkpoints that can be trusted: asynchronous, whole or not there, and checked when they are read (orbax)."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import jax
from orbax.checkpoint import v1 as ocp

from cnnjax.training import hosts, stored, writing
from cnnjax.training.checksums import leaves

__all__ = ["Checkpoints", "Restored", "Taken"]

T = TypeVar("T")


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


class Taken(NamedTuple):
    """What `Checkpoints.restore_params` did with each array, by path.

    Attributes:
      step: of the checkpoint.
      taken: those that came from the checkpoint.
      missing: in the model only.
      extra: in the checkpoint only.
      misshapen: of another shape or type in the checkpoint, with both.
      passed_over: newer checkpoints that are damaged, with the reason.
    """

    step: int
    taken: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    misshapen: tuple[str, ...]
    passed_over: tuple[str, ...]


class Checkpoints:
    """The checkpoints of a run in a folder: the last ones and the best ones. Use it as a context.

    A checkpoint is written beside the computation, under a temporary name that is changed once everything is there; it holds
    the checksum of every array, so that a damaged one is told from a whole one. Reading changes nothing in the folder, which
    may be that of a run at work. The first `save` removes what a killed process left half written, and renames the damaged
    ones to "STEP.damaged".

    Several processes share one folder. They save, restore and close together, each its part of the arrays; the first one
    alone renames and removes. Where one of them cannot read a checkpoint, it is damaged for all. Where one of them cannot
    write, it raises; use `hosts.failing_together`, so that the others do not wait for it.

    Args:
      folder: of the checkpoints, made by the first `save` if it is not there.
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
        self.folder = folder.absolute()
        self._kept = (last, best)
        self._writer: ocp.training.Checkpointer | None = None
        self._writing: int | None = None
        self._damaged: list[int] = []

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
        """The steps of the checkpoints that are written to their end, oldest first."""
        return sorted(int(path.name) for path in self.folder.glob("*") if path.name.isdigit())

    @property
    def best(self) -> int | None:
        """The step with the highest score, the newest of equals; None if there are no scores."""
        scores = [(stored.score(self._at(step)), step) for step in self.steps]
        return max(((score, step) for score, step in scores if score is not None), default=(0.0, None))[1]

    def about(self, step: int | None = None) -> dict[str, Any]:
        """What was saved beside the arrays, which are not looked at.

        Args:
          step: None for the newest checkpoint of which this can be read.

        Raises:
          FileNotFoundError: there is none.
          ValueError: it was written by a later version.
        """
        for known in reversed(self.steps):
            if step in (None, known):
                with contextlib.suppress(stored.Damaged):
                    return stored.description(self._at(known))["about"]
        raise FileNotFoundError(f"{self._nothing(step)} whose description can be read")

    def save(
        self, step: int, tree: Any, *, score: float | None = None, about: Mapping[str, Any] | None = None
    ) -> None:
        """Begins to write a checkpoint; the arrays may be donated as soon as this returns.

        Args:
          step: of the run, later than those before.
          tree: of arrays.
          score: by which the best are chosen, the higher the better; None is never among the best.
          about: what else belongs to it, as JSON.

        Raises:
          OSError: this checkpoint or the one before could not be written.
          ValueError: there is one of this step.
        """
        self.wait()
        told = stored.describe(tree, about or {})
        metrics: Any = None if score is None else {"score": float(score)}
        self._writing = step
        with self._failing():
            self._writer = self._writer or self._open()
        if step in self.steps:
            raise ValueError(
                f"{self.folder} holds a checkpoint of step {step} already: restore it, or remove it"
            )
        with self._failing():
            writing.begin(self._writer, step, tree, metrics=metrics, custom_metadata=told)

    def wait(self) -> None:
        """Returns when everything is written.

        Raises:
          OSError: the checkpoint could not be written.
        """
        if self._writer is not None:
            with self._failing():
                writing.finish(self._writer)

    def close(self) -> None:
        """Waits, and lets go of the folder.

        Raises:
          OSError: the last checkpoint could not be written.
        """
        self.wait()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

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
        found, (tree, about), passed_over = self._newest(step, lambda known: self._read(known, like))
        return Restored(found, tree, about, passed_over)

    def restore_params(
        self, like: Any, *, step: int | None = None, partial: bool = False
    ) -> tuple[Any, Taken]:
        """Some of the arrays of a checkpoint, whatever else it holds: the start of another training.

        Args:
          like: nested dictionaries of arrays, `{"params": ..., "batch_stats": ...}`, in the layout that they are to have.
            Only what the checkpoint holds under the same first names is looked at.
          step: None for the newest that is whole.
          partial: whether arrays that are missing there, or of another shape or type, stay as they are in `like`. If not,
            every difference is an error.

        Returns:
          The tree and what became of each array.

        Raises:
          FileNotFoundError: as `restore`.
          ValueError: it was written by a later version; there are differences, or nothing fits: the arrays are named.
        """
        found, (tree, taken), passed_over = self._newest(
            step, lambda known: self._read_params(known, like, partial)
        )
        return tree, taken._replace(step=found, passed_over=passed_over)

    def _newest(self, step: int | None, read: Callable[[int], T]) -> tuple[int, T, tuple[str, ...]]:
        """The newest step, or the given one, whose checkpoint `read` finds whole, with what it returns."""
        # The next save sets aside what is found damaged now.
        self.close()
        passed_over = []
        for known in reversed(json.loads(hosts.from_first(json.dumps(self.steps)))):
            if step not in (None, known):
                continue
            try:
                return known, read(known), tuple(passed_over)
            except stored.Damaged as error:
                passed_over.append(f"the checkpoint of step {known} is damaged: {error}")
                self._damaged.append(known)
        reasons = f" ({'; '.join(passed_over)})" if passed_over else ""
        raise FileNotFoundError(f"{self._nothing(step)} that is whole{reasons}")

    def _nothing(self, step: int | None) -> str:
        return f"{self.folder} holds no checkpoint{'' if step is None else f' of step {step}'}"

    def _at(self, step: int) -> Path:
        return self.folder / str(step)

    def _read(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        told = stored.description(self._at(step))
        found = stored.differences(told["checksums"], like)
        if found.words:
            raise ValueError(
                f"the checkpoint of step {step} in {self.folder} belongs to another model: {found.text()}"
            )
        return stored.load(self._at(step), told["checksums"], like), told["about"]

    def _read_params(self, step: int, like: Any, partial: bool) -> tuple[Any, Taken]:
        told = stored.description(self._at(step))
        names = {path.partition("/")[0] for path, _ in leaves(like)}
        saved = {path: sum_ for path, sum_ in told["checksums"].items() if path.partition("/")[0] in names}
        found = stored.differences(saved, like)
        if found.words and not (partial and found.same):
            what = "has nothing that fits" if partial else "differs from the model"
            todo = "" if partial else "; partial=True takes what fits"
            raise ValueError(f"the checkpoint of step {step} in {self.folder} {what}: {found.text()}{todo}")
        tree = stored.load_some(self._at(step), saved, like, set(found.same))
        return tree, Taken(step, found.same, found.missing, found.extra, found.misshapen, ())

    def _open(self) -> ocp.training.Checkpointer:
        if hosts.is_first():
            for step in self.steps:
                # Orbax would count a damaged one among those to keep, or would not even open the folder.
                if step in self._damaged or not stored.is_described(self._at(step)):
                    stored.set_aside(self._at(step))
        self._damaged.clear()
        hosts.barrier(f"checkpoints in {self.folder}")
        return writing.writer(self.folder, *self._kept)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Whatever goes wrong with writing becomes one OSError."""
        try:
            yield
        except Exception as error:
            self._give_up()
            raise OSError(self._failure(error)) from error

    def _give_up(self) -> None:
        """Lets go of the folder and of what is half written in it."""
        writer, self._writer = self._writer, None
        # With several processes it would wait for the others, which wait for this one.
        if writer is not None and jax.process_count() == 1:
            with contextlib.suppress(Exception):
                writer.close()
        if hosts.is_first():
            for half in self.folder.glob(f"{self._writing}.orbax-checkpoint-tmp*"):
                shutil.rmtree(half, ignore_errors=True)

    def _failure(self, error: BaseException) -> str:
        reason, remedy = writing.why_not_written(error)
        steps = ", ".join(map(str, self.steps))
        rest = f"those of step {steps} are intact" if steps else "there is none before it"
        return (
            f"the checkpoint of step {self._writing} could not be written to {self.folder}: {reason}; {rest}: {remedy}, "
            "and resume the run"
        )
