"""Ctrl-C is answered at once, also while compiled code runs."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def answered(message: str) -> Iterator[Callable[[], bool]]:
    """Prints `message` to stderr as soon as Ctrl-C is pressed while the block runs; from the main thread.

    Python raises KeyboardInterrupt only when it is its turn again: after what XLA computes or compiles just then, which can
    take seconds. Raised within a callback of the garbage collector it is lost; so the block gets a function that says
    whether Ctrl-C was pressed.
    """
    with _answering(message, (signal.SIGINT,)) as received:
        yield lambda: bool(received)


@contextlib.contextmanager
def saving(message: str) -> Iterator[Callable[[], int | None]]:
    """Keeps Ctrl-C and SIGTERM from ending the block, which is to end by itself soon; from the main thread.

    Prints `message` to stderr as soon as one of them comes. A second Ctrl-C raises KeyboardInterrupt. The block gets a
    function that gives the number of the signal that came, or None.
    """
    signals = (signal.SIGINT, signal.SIGTERM)

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.getsignal(number) for number in signals}
    with _answering(message, signals) as received:
        for number in signals:
            # Where a shell has it ignored, in a background job, it stays so.
            if before[number] != signal.SIG_IGN:
                signal.signal(number, handle)
        try:
            yield lambda: received[0] if received else None
        finally:
            for number in signals:
                signal.signal(number, before[number])


@contextlib.contextmanager
def _answering(message: str, signals: tuple[int, ...]) -> Iterator[list[int]]:
    """Prints `message` at each of the signals, and gives the list of those that came."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    received: list[int] = []
    thread = threading.Thread(target=_answer, args=(reader, message, signals, received), daemon=True)
    thread.start()
    try:
        yield received
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        thread.join()
        os.close(reader)


def _answer(reader: int, message: str, signals: tuple[int, ...], received: list[int]) -> None:
    while byte := os.read(reader, 1):
        if byte[0] in signals:
            received.append(byte[0])
            print(f"\n{message}", file=sys.stderr, flush=True)
