"""The readers that orbax abandons when one array of a checkpoint cannot be read, ended without a word."""

import contextlib
import gc
import inspect
import logging
import sys
import threading
import time
import warnings
from collections.abc import Iterator

__all__ = ["end", "unheard"]

_SECONDS = 5.0
"""How long abandoned readers are waited for."""
# What is replaced belongs to the whole process.
_LOCK = threading.Lock()


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Within it, abandoned readers say nothing: read a checkpoint in it, and `end` them in it when that has failed.

    Orbax reads all arrays at once. When one fails, it closes its event loop over the others, and each of them would print a
    traceback whenever it is collected: pages of them on the terminal, about a checkpoint that was passed over long ago.
    """
    with _LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        logger, hook = logging.getLogger("asyncio"), sys.unraisablehook
        disabled = logger.disabled

        def unraisable(what: "sys.UnraisableHookArgs") -> None:
            if not (inspect.iscoroutine(what.object) or "loop is closed" in str(what.exc_value)):
                hook(what)

        logger.disabled, sys.unraisablehook = True, unraisable
        try:
            yield
        finally:
            logger.disabled, sys.unraisablehook = disabled, hook


def end() -> None:
    """Collects the abandoned readers, once what they wait for has come from the disk; the error must be let go of before."""
    until = time.monotonic() + _SECONDS
    while _are_left() and time.monotonic() < until:
        gc.collect()
        time.sleep(0.01)


def _are_left() -> bool:
    return any(inspect.iscoroutine(it) and "orbax" in it.cr_code.co_filename for it in gc.get_objects())
