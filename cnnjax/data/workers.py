"""What every worker process does first."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def obey_parent(index: int, count: int) -> None:
    """Make this process end when the one that started it does, and not before.

    Ctrl-C and a job's SIGTERM reach all processes of a group: the one that trains, which is to save first, must still
    get its batches. If that one is killed, nobody tells its workers. Takes grain's number of the worker, of how many.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
