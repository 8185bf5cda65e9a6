"""Batches taken ahead: their order, state, errors and end."""

import gc
import threading
import time
from collections import Counter

import numpy as np
import pytest

from cnnjax.data import ImageBatch, prefetch


class Numbers:
    """Batches that are their number, the `bad`th of which cannot be had."""

    def __init__(self, count=1000, *, bad=None, seconds=0.0):
        self.taken, self.count, self.bad, self.seconds, self.closed = 0, count, bad, seconds, 0

    def __next__(self):
        time.sleep(self.seconds)
        if self.taken == self.bad:
            raise ValueError("this one is bad")
        if self.taken == self.count:
            raise StopIteration
        self.taken += 1
        return ImageBatch(np.array(self.taken), np.array(0), np.array(1.0))

    def state(self):
        return {"batches": self.taken, "corrupt": {"an image": self.taken}}

    def close(self):
        self.closed += 1


def placed(batch):
    return int(batch.images)


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_batches_come_in_order_and_end():
    numbers = Numbers(5)
    found = prefetch(numbers, placed)
    assert list(found) == [1, 2, 3, 4, 5]
    with pytest.raises(StopIteration):
        next(found)
    assert found.state()["batches"] == 5


@pytest.mark.parametrize("size", [1, 3])
def test_so_many_are_on_their_way_and_the_state_is_that_of_those_handed_out(size):
    numbers = Numbers()
    found = prefetch(numbers, placed, size=size)
    for consumed in range(4):
        wait_for(lambda: numbers.taken == consumed + size)  # noqa: B023
        time.sleep(0.02)
        assert numbers.taken == consumed + size
        assert found.state()["batches"] == consumed and found.corrupt == Counter({"an image": consumed})
        assert next(found) == consumed + 1
    found.close()


def test_the_wait_of_the_reader_is_measured():
    slow = prefetch(Numbers(3, seconds=0.05), placed)
    list(slow)
    assert 0.1 < slow.waited < 5
    ready = prefetch(Numbers(3), placed, size=4)
    time.sleep(0.1)
    list(ready)
    assert ready.waited < 0.05


@pytest.mark.parametrize("where", ["batch", "place"])
def test_errors_reach_the_reader_in_their_turn(where):
    def place(batch):
        if where == "place" and batch.images == 3:
            raise ValueError("this one is bad")
        return placed(batch)

    found = prefetch(Numbers(bad=2 if where == "batch" else None), place)
    assert [next(found), next(found)] == [1, 2]
    for _ in range(2):
        with pytest.raises(ValueError, match="this one is bad"):
            next(found)
    assert found.state()["batches"] == 2


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_closing_ends_the_thread_and_closes_the_batches():
    numbers = Numbers(seconds=0.01)
    found = prefetch(numbers, placed)
    next(found)
    found.close()
    found.close()
    assert numbers.closed == 1 and not threads()
    with pytest.raises(ValueError, match="these batches were closed: make new ones"):
        next(found)


def test_what_nobody_holds_any_more_is_closed():
    numbers = Numbers()
    found = prefetch(numbers, placed)
    next(found)
    del found
    gc.collect()
    assert numbers.closed == 1 and not threads()


def test_no_room():
    with pytest.raises(ValueError, match="size must be 1 or more, got 0"):
        prefetch(Numbers(), placed, size=0)
