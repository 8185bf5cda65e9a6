"""Ctrl-C is answered at once, also while compiled code runs."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def answered(message: str) -> Iterator[Callable[[], bool]]:
    """Prints `message` to stderr as soon as Ctrl-C is pressed while the block runs; from the main thread.

    Python raises KeyboardInterrupt only when it is its turn again: after what XLA computes or compiles just then, which can
    take seconds. Raised within a callback of the garbage collector it is lost; so the block gets a function that says
    whether Ctrl-C was pressed.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    pressed = threading.Event()
    thread = threading.Thread(target=_answer, args=(reader, message, pressed), daemon=True)
    thread.start()
    try:
        yield pressed.is_set
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        thread.join()
        os.close(reader)


def _answer(reader: int, message: str, pressed: threading.Event) -> None:
    while byte := os.read(reader, 1):
        if byte[0] == signal.SIGINT:
            pressed.set()
            print(f"\n{message}", file=sys.stderr, flush=True)
