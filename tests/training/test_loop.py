"""A run: it learns, it ends with the same numbers however often it was stopped, and it says what is wrong."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from cnnjax import data, models
from cnnjax.files import locked
from cnnjax.optim import Optimizer
from cnnjax.training import journal
from cnnjax.training.augmentation import Augmentation
from cnnjax.training.checkpoints import Checkpoints
from cnnjax.training.loop import Broken, train
from cnnjax.training.placement import Placement
from cnnjax.training.plan import Plan
from cnnjax.training.settings import check_same
from cnnjax.training.step import Trainer
from cnnjax.training.watcher import Watcher

PLAN = Plan(steps=24, batch_size=32, record_every=5, evaluate_every=12, checkpoint_every=8, probe_every=10)
ONE = Placement(devices=1)
TIMES = ("seconds", "images_per_second", "input_wait")


def trainer(rate=0.05, **options):
    chosen = dict(
        model=models.create("mlp", depth=3, width=16, norm="batch"),
        optimizer=Optimizer(options={"momentum": 0.9}).make(rate),
        augmentation=Augmentation(crop=1),
        averaging=0.9,
    )
    return Trainer(num_classes=10, **{**chosen, **options})


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return train(trainer(), digits, PLAN, folder, placement=ONE), folder


def records(folder):
    found = [json.loads(line) for line in (folder / journal.LOG).read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in found]


def looks(folder):
    return (folder / journal.LAYERS).read_text()


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def stopping(*steps):
    """A watcher that stops at the first call that ends at one of these steps, or behind it."""
    left, done = list(steps), []

    def stop():
        if left and done and done[-1] >= left[0]:
            left.pop(0)
            return True
        return False

    return Watcher(beat=lambda step, steps, means: done.append(step), stop=stop)


def test_it_learns_and_records(whole):
    state, folder = whole
    found = records(folder)
    assert [row["step"] for row in found] == [5, 10, 12, 15, 20, 24]
    assert found[-1]["loss"] < found[0]["loss"] and found[-1]["gradient_norm"] > 0
    assert [row["step"] for row in found if "validation_accuracy" in row] == [12, 24]
    assert found[-1]["validation_accuracy"] > 0.3
    assert int(state.step) == 24
    layers = journal.read_layers(folder)
    assert sorted(set(layers["step"])) == [0, 10, 20] and len(layers) == 3 * 3
    status = journal.read_status(folder)
    assert (status.state, status.step) == ("finished", 24)
    assert status.best == max(row.get("validation_accuracy", 0) for row in found)
    evaluation = journal.read_evaluation(folder)
    assert evaluation["validation"]["accuracy"] == found[-1]["validation_accuracy"]
    assert np.sum(evaluation["test"]["confusion"]) == evaluation["test"]["examples"] == 359
    with Checkpoints(folder / "checkpoints") as checkpoints:
        assert checkpoints.steps[-1] == 24


class Killed(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("at", [5, 12, 20])
def test_killed_anywhere_it_ends_with_the_same_numbers(whole, digits, tmp_path, at):
    def kill(record):
        if record["step"] == at:
            raise Killed

    with pytest.raises(Killed):
        train(trainer(), digits, PLAN, tmp_path, placement=ONE, watcher=Watcher(record=kill))
    assert journal.read_status(tmp_path).state == "failed"
    # What was being written when the process died.
    with (tmp_path / journal.LOG).open("a") as file:
        file.write('{"step": 2')
    assert_same(train(trainer(), digits, PLAN, tmp_path, placement=ONE), whole[0])
    assert records(tmp_path) == records(whole[1]) and looks(tmp_path) == looks(whole[1])


def test_killed_before_its_first_checkpoint_it_begins_anew(whole, digits, tmp_path):
    def kill(step, steps, means):
        raise Killed

    with pytest.raises(Killed):
        train(trainer(), digits, PLAN, tmp_path, placement=ONE, watcher=Watcher(beat=kill))
    assert_same(train(trainer(), digits, PLAN, tmp_path, placement=ONE), whole[0])
    assert records(tmp_path) == records(whole[1]) and looks(tmp_path) == looks(whole[1])


def test_stopped_between_two_records_it_goes_on_from_there(whole, digits, tmp_path):
    state = train(trainer(), digits, PLAN, tmp_path, placement=ONE, watcher=stopping(1))
    assert 1 <= int(state.step) < 5
    assert journal.read_status(tmp_path).state == "stopped"
    state = train(trainer(), digits, PLAN, tmp_path, placement=ONE, watcher=stopping(6))
    assert 6 <= int(state.step) < 10
    assert_same(train(trainer(), digits, PLAN, tmp_path, placement=ONE), whole[0])
    assert records(tmp_path) == records(whole[1]) and looks(tmp_path) == looks(whole[1])
    told = []
    # Once more, and nothing is left to do.
    assert_same(
        train(trainer(), digits, PLAN, tmp_path, placement=ONE, watcher=Watcher(record=told.append)), whole[0]
    )
    assert told == []


# tests/training/test_checkpoints.py restores onto other devices in every run.
@pytest.mark.slow
def test_it_goes_on_by_other_placements(whole, digits, tmp_path):
    train(trainer(), digits, PLAN, tmp_path, placement=ONE, watcher=stopping(8))
    state = train(trainer(), digits, PLAN, tmp_path, placement=Placement(by="pmap"))
    assert int(state.step) == 24
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state.params, whole[0].params
    )


def rate_that_breaks(step):
    return jax.numpy.where(step < 6, 0.01, jax.numpy.inf)


def test_what_is_not_finite_stops_the_run_and_keeps_what_was_good(digits, tmp_path):
    plan = dataclasses.replace(PLAN, checkpoint_every=4)
    with pytest.raises(
        Broken, match="not finite in step 7: .*The checkpoint of step 4 in .* is whole: begin another run"
    ) as error:
        train(trainer(rate=rate_that_breaks), digits, plan, tmp_path, placement=ONE)
    assert error.value.step == 7
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps == [4]
    assert [row["step"] for row in records(tmp_path)] == [5]
    status = journal.read_status(tmp_path)
    assert status.state == "failed" and "step 7" in status.error


@pytest.mark.slow
def test_or_it_is_left_out(digits, tmp_path):
    told = []
    state = train(
        trainer(rate=rate_that_breaks, on_nonfinite="skip"),
        digits,
        PLAN,
        tmp_path,
        placement=ONE,
        watcher=Watcher(note=told.append),
    )
    assert int(state.step) == 24 and int(state.skipped) == 18
    assert sum(row["skipped"] for row in records(tmp_path)) == 18
    assert "step 7 was not finite: its update was left out" in told


def test_a_damaged_checkpoint_is_passed_over_and_said_so(whole, digits, tmp_path):
    train(trainer(), digits, PLAN, tmp_path, placement=ONE, watcher=stopping(17))
    newest = max(
        (path for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()),
        key=lambda p: int(p.name),
    )
    for file in newest.rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(file.read_bytes()[:500])
    told = []
    state = train(trainer(), digits, PLAN, tmp_path, placement=ONE, watcher=Watcher(note=told.append))
    assert_same(state, whole[0])
    assert records(tmp_path) == records(whole[1])
    assert any(
        f"the checkpoint of step {newest.name} is damaged" in text and "that of step 16 is taken" in text
        for text in told
    )


def test_what_cannot_be_run_is_named(whole, digits, tmp_path):
    with pytest.raises(ValueError, match="cannot be divided among 8 devices"):
        train(trainer(), digits, dataclasses.replace(PLAN, batch_size=30), tmp_path)
    with pytest.raises(ValueError, match="a batch of 2000 needs as many examples, got 1150"):
        train(trainer(), digits, dataclasses.replace(PLAN, batch_size=2000), tmp_path, placement=ONE)
    with locked(tmp_path), pytest.raises(ValueError, match="is at work in"):
        train(trainer(), digits, PLAN, tmp_path, placement=ONE)
    other = trainer(model=models.create("mlp", depth=4, width=16, norm="batch"))
    with pytest.raises(ValueError, match="belongs to another model"):
        train(other, digits, PLAN, whole[1], placement=ONE)
    with pytest.raises(ValueError, match="begun with other settings .seed: 0 before, 1 now"):
        train(trainer(), digits, dataclasses.replace(PLAN, seed=1), whole[1], placement=ONE)


def test_settings_are_compared_by_their_names(tmp_path):
    before = {"rate": 0.1, "optimizer": {"name": "sgd", "options": {}}}
    check_same(before, json.loads(json.dumps(before)), tmp_path)
    with pytest.raises(
        ValueError, match="optimizer.name: 'sgd' before, 'adam' now; rate: 0.1 before, 0.2 now"
    ):
        check_same(before, {"rate": 0.2, "optimizer": {"name": "adam", "options": {}}}, tmp_path)
    with pytest.raises(ValueError, match="optimizer.options.momentum: None before, 0.9 now"):
        check_same(
            before, {"rate": 0.1, "optimizer": {"name": "sgd", "options": {"momentum": 0.9}}}, tmp_path
        )
