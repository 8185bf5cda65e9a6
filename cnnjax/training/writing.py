"""Writing checkpoints with orbax: in the background, with errors that are told once and in time."""

import errno
import logging
import os
import time
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from cnnjax.training.stored import brief

__all__ = ["begin", "finish", "why_not_written", "writer"]

# How long the processes wait for one that is still writing.
WRITING_SECONDS = 900
_POLL_SECONDS = 0.02
_REMEDIES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EFBIG: "raise the limit for the size of files (ulimit -f)",
    errno.EACCES: "make the folder writable",
    errno.EPERM: "make the folder writable",
    errno.EROFS: "make the folder writable",
}


class _Log(logging.Filter):
    """Orbax logs every error with its traceback, several times: they are raised once, and kept here."""

    last: BaseException | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        if "orbax" not in Path(record.pathname).parts:
            return True
        if record.exc_info and record.exc_info[1]:
            self.last = record.exc_info[1]
        return False


_LOG = _Log()
logging.getLogger("absl").addFilter(_LOG)


def writer(folder: Path, last: int, best: int) -> ocp.training.Checkpointer:
    """Orbax's own keeper of a folder, which removes what is half written and keeps the last and the best."""
    policies = ocp.training.preservation_policies
    kept: list[Any] = [policies.LatestN(last)]
    if best:
        kept.append(
            policies.BestN(
                get_metric_fn=lambda metrics: metrics["score"], n=best, keep_checkpoints_without_metrics=False
            )
        )
    preserved: Any = policies.AnyPreservationPolicy(kept)
    context = ocp.Context()
    context.asynchronous.timeout_secs = WRITING_SECONDS
    return ocp.training.Checkpointer(
        str(folder), context=context, preservation_policy=preserved, cleanup_tmp_directories=True
    )


def begin(writer: ocp.training.Checkpointer, step: int, tree: Any, **options: Any) -> None:
    """Begins to write; the options are those of orbax."""
    _LOG.last = None
    writer.save_async(step, tree, force=True, **options)


def finish(writer: ocp.training.Checkpointer) -> None:
    """Waits until everything is written.

    Of an error on this process orbax tells only when the other processes, which wait for it, have given up.

    Raises:
      Exception: of many kinds, that something could not be written.
    """
    while jax.process_count() > 1 and writer.is_saving_in_progress():
        if _LOG.last is not None:
            raise _LOG.last
        time.sleep(_POLL_SECONDS)
    writer.wait()


def why_not_written(error: BaseException) -> tuple[str, str]:
    """The reason why a file could not be written, and what to do."""
    cause: BaseException | None = error
    while cause is not None:
        for number, remedy in _REMEDIES.items():
            # Much of what writes is not Python, and tells the reason in words.
            if getattr(cause, "errno", None) == number or os.strerror(number) in str(cause):
                return os.strerror(number), remedy
        cause = cause.__cause__ or cause.__context__
    return brief(error), "mend this"
