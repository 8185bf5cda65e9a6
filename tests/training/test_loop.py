"""A run: it learns, it ends with the same numbers however often it was stopped, and it says what is wrong."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from cnnjax import data, models
from cnnjax.files import locked
from cnnjax.training import Augmentation, Optimizer, Trainer
from cnnjax.training.checkpoints import Checkpoints
from cnnjax.training.loop import Broken, Plan, train
from cnnjax.training.parallel import make_mesh

PLAN = Plan(steps=24, batch_size=32, every=4, evaluate_every=12, checkpoint_every=8)


def trainer(rate=0.05, **options):
    return Trainer(
        model=models.create("mlp", depth=3, width=16, norm="batch"),
        optimizer=Optimizer(options={"momentum": 0.9}).make(rate),
        num_classes=10,
        augmentation=Augmentation(crop=1),
        averaging=0.9,
        **options,
    )


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(jax.devices()[:1])


@pytest.fixture(scope="module")
def whole(digits, mesh, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return train(trainer(), digits, PLAN, folder, mesh=mesh), folder


def records(folder):
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    timeless = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in found]
    return timeless


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_it_learns_and_records(whole):
    state, folder = whole
    found = records(folder)
    assert [row["step"] for row in found] == [4, 8, 12, 16, 20, 24]
    assert found[-1]["loss"] < found[0]["loss"] and found[-1]["gradient_norm"] > 0
    assert [row["step"] for row in found if "validation_accuracy" in row] == [12, 24]
    assert found[-1]["validation_accuracy"] > 0.3
    assert int(state.step) == 24
    with Checkpoints(folder / "checkpoints") as checkpoints:
        assert checkpoints.steps[-1] == 24


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "at", [pytest.param(4, marks=pytest.mark.slow), 8, pytest.param(12, marks=pytest.mark.slow), 20]
)
def test_killed_anywhere_it_ends_with_the_same_numbers(whole, digits, mesh, tmp_path, at):
    def kill(record):
        if record["step"] == at:
            raise Killed

    with pytest.raises(Killed):
        train(trainer(), digits, PLAN, tmp_path, mesh=mesh, tell=kill)
    # What was being written when the process died.
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 2')
    assert_same(train(trainer(), digits, PLAN, tmp_path, mesh=mesh), whole[0])
    assert records(tmp_path) == records(whole[1])


def test_stopped_when_asked_it_goes_on_from_there(whole, digits, mesh, tmp_path):
    asked = iter([False, True, *[False] * 9])
    state = train(trainer(), digits, PLAN, tmp_path, mesh=mesh, stop=lambda: next(asked))
    assert int(state.step) == 8
    told = []
    assert_same(train(trainer(), digits, PLAN, tmp_path, mesh=mesh, tell=told.append), whole[0])
    assert [record["step"] for record in told] == [12, 16, 20, 24]
    # Once more, and nothing is left to do.
    assert_same(train(trainer(), digits, PLAN, tmp_path, mesh=mesh, tell=told.append), whole[0])
    assert len(told) == 4 and records(tmp_path) == records(whole[1])


def test_it_goes_on_with_other_devices(whole, digits, mesh, tmp_path):
    asked = iter([False, False, True])
    train(trainer(), digits, PLAN, tmp_path, mesh=mesh, stop=lambda: next(asked))
    state = train(trainer(), digits, PLAN, tmp_path, mesh=make_mesh())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state.params, whole[0].params
    )


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was_good(digits, mesh, tmp_path):
    plan = dataclasses.replace(PLAN, checkpoint_every=4)

    def rate(step):
        return jax.numpy.where(step < 6, 0.01, jax.numpy.inf)

    with pytest.raises(Broken, match="the loss was not finite in step 8: lower the learning rate") as error:
        train(trainer(rate=rate), digits, plan, tmp_path, mesh=mesh)
    assert error.value.step == 8
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps == [4]
    assert [row["step"] for row in records(tmp_path)] == [4]


def test_what_cannot_be_run_is_named(whole, digits, mesh, tmp_path):
    with pytest.raises(ValueError, match="cannot be divided among 8 devices"):
        train(trainer(), digits, dataclasses.replace(PLAN, batch_size=30), tmp_path)
    with pytest.raises(ValueError, match="evaluate_every must be a multiple of every.*got 6 and 4"):
        dataclasses.replace(PLAN, evaluate_every=6)
    with pytest.raises(ValueError, match="steps must be 1 or more, got 0"):
        dataclasses.replace(PLAN, steps=0)
    with pytest.raises(ValueError, match="a batch of 2000 needs as many examples, got 1150"):
        train(trainer(), digits, dataclasses.replace(PLAN, batch_size=2000), tmp_path, mesh=mesh)
    with locked(tmp_path), pytest.raises(ValueError, match="is at work in"):
        train(trainer(), digits, PLAN, tmp_path, mesh=mesh)
    other = dataclasses.replace(trainer(), model=models.create("mlp", depth=4, width=16, norm="batch"))
    with pytest.raises(ValueError, match="belongs to another model"):
        train(other, digits, PLAN, whole[1], mesh=mesh)
