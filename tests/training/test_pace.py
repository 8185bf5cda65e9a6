"""What gathers between records, and how many steps a call takes."""

import json

import numpy as np
import pytest

from cnnjax.training.pace import CALL_SECONDS, Pace, Pending
from cnnjax.training.step import StepMetrics


def metrics(losses, finite=None):
    losses = np.asarray(losses, np.float32)
    return StepMetrics(
        losses, losses / 2, losses * 2, np.ones(len(losses), bool) if finite is None else finite
    )


def test_a_record_is_the_mean_of_its_steps_however_they_came():
    whole, parts = Pending(), Pending()
    whole.add(metrics([1, 2, 4, 5]), 2.0, 0.5)
    parts.add(metrics([1]), 0.5, 0.5)
    # As a checkpoint between two records keeps it.
    parts = Pending.of(json.loads(json.dumps(parts.kept())))
    parts.add(metrics([2, 4, 5]), 1.5, 0.0)
    record = whole.record(batch_size=8)
    assert record == parts.record(batch_size=8)
    assert record["loss"] == 3 and record["accuracy"] == 1.5 and record["gradient_norm"] == 6
    assert record["images_per_second"] == 16 and record["input_wait"] == 0.25 and record["skipped"] == 0
    assert parts.latest(2)["loss"] == 4.5


def test_steps_that_were_left_out_count_in_no_mean():
    pending = Pending()
    pending.add(metrics([1, np.nan, 3], np.array([True, False, True])), 1.0, 0.0)
    record = pending.record(batch_size=10)
    assert record["loss"] == 2 and record["skipped"] == 1 and record["images_per_second"] == 30
    pending = Pending()
    pending.add(metrics([np.nan], np.array([False])), 1.0, 0.0)
    assert "loss" not in pending.record(batch_size=10)


@pytest.mark.parametrize("seconds_a_step", [1e-4, 0.02, 0.7, 5.0])
def test_a_call_comes_to_take_as_long_as_it_should(seconds_a_step):
    pace = Pace(500)
    pace.took(pace.steps, 60.0)
    for _ in range(8):
        pace.took(pace.steps, pace.steps * seconds_a_step)
    assert pace.steps == min(max(round(CALL_SECONDS / seconds_a_step), 1), 500)


def test_several_processes_do_not_look_at_their_clocks():
    pace = Pace(500, fixed=True)
    pace.took(500, 100.0)
    assert pace.steps == 500
