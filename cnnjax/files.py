"""Files that nobody ever sees half written, and folders to which one process writes at a time."""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["holder", "locked", "replacing", "sweep"]

LOCK = ".lock"
# Who asks with `holder` has the lock for some microseconds.
TRIES, PAUSE = 5, 0.01


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that is renamed to it when the block ends without an error.

    Folders on the way are made. After a power cut, too, the file is the old or the new one, never half of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Deletes, below a folder, the temporary files that a killed process left."""
    for leftover in folder.rglob(".*.tmp"):
        leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a folder while the block runs; the system lets go of it when the process dies.

    Raises:
      ValueError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as file:
        for _ in range(TRIES):
            if _taken(file):
                break
            time.sleep(PAUSE)
        else:
            file.seek(0)
            raise ValueError(
                f"process {file.read() or 'unknown'} is at work in {folder}: wait for it, stop it, or choose another "
                "folder with --out"
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def holder(folder: Path) -> int | None:
    """The process that is inside of `locked` for a folder; None where there is none, 0 where it has not said which.

    Other processes are not kept out by asking. Where the system has no such locks, it is the last process that was inside.
    """
    try:
        with (folder / LOCK).open() as file:
            if fcntl is not None and _taken(file, shared=True):
                return None
            said = file.read()
    except FileNotFoundError:
        return None
    return int(said) if said.isdigit() else 0


def _taken(file: IO[str], *, shared: bool = False) -> bool:
    """Whether the lock on a file could be had; it is let go when the file is closed."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
