"""What is due when."""

import pytest

from cnnjax.training.plan import KINDS, Plan

PLAN = Plan(steps=100, batch_size=8, record_every=10, evaluate_every=25, checkpoint_every=40, probe_every=30)


def test_nothing_that_is_due_is_passed_over():
    stops, step = [], 0
    while step < PLAN.steps:
        step = PLAN.next_due(step)
        stops.append(step)
    expected = [s for s in range(1, 101) if any(s % n == 0 for n in (10, 25, 40, 30)) or s == 100]
    assert stops == expected
    due = {kind: [step for step in range(1, 101) if PLAN.due(kind, step)] for kind in KINDS}
    assert due["evaluate"] == [25, 50, 75, 100]
    assert due["checkpoint"] == [40, 80, 100]
    assert due["probe"] == [30, 60, 90]
    # An evaluation stands in a record.
    assert due["record"] == sorted({*range(10, 101, 10), 25, 75})


def test_without_looks():
    plan = Plan(steps=7, batch_size=8, record_every=100, evaluate_every=100, checkpoint_every=100)
    assert plan.next_due(0) == 7
    assert not any(plan.due("probe", step) for step in range(8))
    assert all(plan.due(kind, 7) for kind in ("record", "evaluate", "checkpoint"))


@pytest.mark.parametrize(
    "error, options, text",
    [
        (ValueError, {"steps": 0}, "steps must be 1 or more, got 0"),
        (ValueError, {"record_every": 0}, "record_every must be 1 or more, got 0"),
        (ValueError, {"probe_every": -1}, "probe_every must be 0 or more, got -1"),
        (TypeError, {"batch_size": 2.5}, "batch_size must be an integer, got 2.5"),
        (TypeError, {"seed": True}, "seed must be an integer, got True"),
    ],
)
def test_what_is_no_length(error, options, text):
    with pytest.raises(error, match=text):
        Plan(**{"steps": 10, "batch_size": 8, **options})
