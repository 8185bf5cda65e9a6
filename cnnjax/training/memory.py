"""Whether a step fits into memory, and what would where it does not."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from cnnjax import machine


class OutOfMemory(ValueError):
    """A step needs more memory than there is; the text says which batch, or which use of remat, would fit."""


def needed(compiled: Any) -> int:
    """Bytes that a call of a compiled function takes on each device: arguments, results and what lies between them.

    Args:
      compiled: from `jax.jit(...).lower(...).compile()`; arguments that are donated count once.

    Returns:
      The bytes; 0 where the compiler does not tell.
    """
    found = compiled.memory_analysis()
    if found is None:
        return 0
    held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return held + found.temp_size_in_bytes


def limit(device: Any) -> int | None:
    """Bytes that a device grants a program, or None where it does not say; for a CPU, all that this process may take."""
    if device.platform == "cpu":
        return machine.host_memory()
    return (device.memory_stats() or {}).get("bytes_limit")


def advise(
    lower: Callable[[int, bool], Any],
    *,
    batch_size: int,
    can_remat: bool,
    limit: int,
    multiple_of: int,
) -> str:
    """What a step needs, what there is, and what would fit: a smaller batch, remat, or both.

    Nothing runs, but each size is compiled, from the half down to the first that fits.

    Args:
      lower: of a batch size and whether to recompute activations (remat) -> the compiled step, from abstract arrays.
      batch_size: that of the run.
      can_remat: whether the model has remat and does not use it yet; otherwise `lower` is asked without it only.
      limit: bytes that there are on each device.
      multiple_of: what a batch size must be a multiple of.

    Returns:
      A sentence, as "a step with a batch of 128 needs 14.2 GiB and the device has 8.0 GiB: a batch of 64 (6.9 GiB) or one of
      128 with remat (5.5 GiB) would fit".
    """
    whole = _need(lower, batch_size, False)
    free, verb, how = limit, "would fit", ""
    if whole <= limit:
        # It was refused all the same.
        free, verb, how = int(whole) - 1, "would need less", ", not all of it free"
    sizes = list(_halved(batch_size, multiple_of))
    found = _first(lower, sizes, False, free)
    if can_remat:
        found += _first(lower, [batch_size], True, free)
        found = found or _first(lower, sizes, True, free)
    text = f"a step with a batch of {batch_size} needs {_amount(whole)} and the device has {_amount(limit)}{how}: "
    if found:
        return f"{text}a batch {' or one '.join(found)} {verb}"
    smallest = f"{[batch_size, *sizes][-1]}{' with remat' if can_remat else ''}"
    return f"{text}not even a batch of {smallest} {verb}; take a smaller model or smaller images"


def explained(error: BaseException) -> bool:
    """Whether an error says that there was too little memory, on the device or the host, in running or in compiling."""
    exhausted = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    return exhausted or isinstance(error, MemoryError)


def _halved(batch_size: int, multiple_of: int) -> Iterator[int]:
    """Half of a batch size, half of that, and so on, each rounded down to a multiple."""
    while size := batch_size // 2 // multiple_of * multiple_of:
        yield size
        batch_size = size


def _need(lower: Callable[[int, bool], Any], size: int, remat: bool) -> float:
    try:
        return needed(lower(size, remat))
    except Exception as error:
        # Compilers for accelerators refuse what does not fit.
        if not explained(error):
            raise
        return math.inf


def _first(lower: Callable[[int, bool], Any], sizes: Sequence[int], remat: bool, limit: int) -> list[str]:
    """The first size that fits, in words, or nothing."""
    for size in sizes:
        need = _need(lower, size, remat)
        if need <= limit:
            return [f"of {size}{' with remat' if remat else ''} ({_amount(need)})"]
    return []


def _amount(size: float) -> str:
    """As one reads it: 6.9 GiB, or 6.9 MiB for little."""
    if math.isinf(size):
        return "more than can be compiled"
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"
