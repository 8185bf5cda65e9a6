"""Batches on their way to the device while the one before is computed with."""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from cnnjax.data.image_batches import ImageBatch, ImageBatches

T = TypeVar("T")


class Prefetched(Iterator[T], Generic[T]):
    """An iterator over placed batches; made by `prefetch`.

    `waited` is how long `next` has waited for them so far, in seconds.
    """

    def __init__(self, batches: ImageBatches, place: Callable[[ImageBatch], T], *, size: int) -> None:
        self.waited = 0.0
        self._state = batches.state()
        self._ended: BaseException | None = None
        self._line = _Line(free=threading.Semaphore(size))
        # The thread holds no reference to this object, so that it ends with it.
        thread = threading.Thread(
            target=_fill, args=(batches, place, self._line), name="prefetch", daemon=True
        )
        self._finalizer = weakref.finalize(self, _stop, self._line, thread)
        thread.start()

    def __next__(self) -> T:
        if self._ended is not None:
            raise self._ended
        start = time.perf_counter()
        found = self._line.ready.get()
        self.waited += time.perf_counter() - start
        if isinstance(found, _Failure):
            self._ended = found.error
            raise found.error
        self._line.free.release()
        self._state = found.state
        return found.placed

    @property
    def corrupt(self) -> Counter[str]:
        """As `ImageBatches.corrupt`, as of the batches that were handed out."""
        return Counter(self._state["corrupt"])

    def state(self) -> dict[str, Any]:
        """As `ImageBatches.state`, as of the batches that were handed out, not of those on their way."""
        return self._state

    def close(self) -> None:
        """End the thread, which closes the batches that it took from."""
        self._ended = ValueError("these batches were closed: make new ones")
        self._finalizer()


def prefetch(batches: ImageBatches, place: Callable[[ImageBatch], T], *, size: int = 2) -> Prefetched[T]:
    """Take batches ahead of their use, in a thread.

    Args:
        batches: to take from; nobody else may.
        place: brings a batch to where it is used, by `jax.device_put`, say. It is called in that thread.
        size: batches that are on their way, or there and not yet asked for.

    Raises:
        ValueError: `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"size must be 1 or more, got {size}")
    return Prefetched(batches, place, size=size)


class _Ready(NamedTuple):
    placed: Any
    state: dict[str, Any]


class _Failure(NamedTuple):
    error: BaseException


@dataclasses.dataclass(frozen=True)
class _Line:
    """What passes between the thread and its reader."""

    free: threading.Semaphore
    ready: queue.SimpleQueue[_Ready | _Failure] = dataclasses.field(default_factory=queue.SimpleQueue)
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)


def _fill(batches: ImageBatches, place: Callable[[ImageBatch], Any], line: _Line) -> None:
    try:
        while True:
            line.free.acquire()
            if line.stop.is_set():
                return
            placed = place(next(batches))
            line.ready.put(_Ready(placed, batches.state()))
    except BaseException as error:  # The end of the batches, too: it is the reader's to see.
        line.ready.put(_Failure(error))
    finally:
        batches.close()


def _stop(line: _Line, thread: threading.Thread) -> None:
    line.stop.set()
    line.free.release()
    # Garbage may be collected in that very thread.
    if thread is not threading.current_thread():
        thread.join()
