"""Runs in folders: begun, gone on with, taken up again."""

import dataclasses

import jax
import numpy as np
import pytest

from cnnjax.optim import Optimizer, Schedule
from cnnjax.training import (
    InitFrom,
    Placement,
    Recipe,
    Watcher,
    begin,
    evaluate,
    go_on,
    journal,
    logits_of,
    trained,
)
from cnnjax.training.run import check_new

pytestmark = pytest.mark.usefixtures("optax_promotes")

RECIPE = Recipe(
    model="mlp",
    options={"depth": 3, "width": 16},
    duration=24,
    batch_size=32,
    learning_rate=0.05,
    schedule=Schedule(name="cosine", warmup=4),
    optimizer=Optimizer(options={"momentum": 0.9}),
    averaging=0.9,
    evaluate_every=12,
    checkpoint_every=12,
    placement=Placement(devices=1),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, optax_promotes):
    folder = tmp_path_factory.mktemp("runs") / "first"
    begin(folder, RECIPE, name="first", command="cnnjax train first")
    return folder


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_the_folder_says_what_was_done(folder):
    info = journal.read_info(folder)
    assert Recipe.of(info["recipe"]) == RECIPE
    assert (info["name"], info["command"]) == ("first", "cnnjax train first")
    assert (info["steps"], info["steps_per_epoch"], info["data"]["train"]) == (24, 35, 1150)
    assert info["parameters"] == 64 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10
    assert info["data"]["class_names"] == [str(digit) for digit in range(10)]
    assert info["versions"]["jax"] == jax.__version__ and info["device"]["count"] == 1
    assert journal.read_log(folder)["learning_rate"].iloc[-1] < 0.001


def test_stopped_it_goes_on_to_the_same_end(folder, tmp_path):
    beats = []
    watcher = Watcher(beat=lambda *beat: beats.append(beat), stop=lambda: beats[-1][0] >= 3)
    begin(tmp_path / "run", RECIPE, name="first", watcher=watcher)
    assert journal.read_status(tmp_path / "run").state == "stopped"
    go_on(tmp_path / "run")
    assert_same(trained(tmp_path / "run").state, trained(folder).state)


def test_the_network_is_taken_up_again(folder):
    last, best = trained(folder), trained(folder, which="best")
    assert last.step == 24 and best.step in (12, 24) and trained(folder, which=12).step == 12
    # What is evaluated are the averages.
    assert_same(last.variables["params"], last.state.average["params"])
    report = evaluate(last, "validation")
    assert report["accuracy"] == journal.read_evaluation(folder)["validation"]["accuracy"]
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)
    normalized = (images / np.float32(255) - last.data.mean) / last.data.std
    expected = last.model.apply(last.variables, normalized.astype(np.float32))
    np.testing.assert_allclose(logits_of(last, images), expected, rtol=1e-4, atol=1e-4)


def test_a_folder_is_never_used_twice_by_accident(folder, tmp_path):
    with pytest.raises(ValueError, match="holds a run already: go on with it .cnnjax resume"):
        begin(folder, RECIPE, name="second")
    (tmp_path / ".lock").write_text("1")
    (tmp_path / ".run.json.0.tmp").write_text("{")
    check_new(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty, and holds no run"):
        begin(tmp_path, RECIPE, name="second")
    with pytest.raises(ValueError, match="notes.txt is a file: choose another folder with --out"):
        begin(tmp_path / "notes.txt" / "run", RECIPE, name="second")
    with pytest.raises(ValueError, match="cannot be divided among"):
        begin(tmp_path / "new", dataclasses.replace(RECIPE, batch_size=33, placement=Placement()), name="x")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="holds no run"):
        go_on(tmp_path)


def test_parameters_of_another_run_all_or_some(folder, tmp_path):
    told = []
    watcher = Watcher(note=told.append)
    same = dataclasses.replace(RECIPE, duration=2, schedule=Schedule(), seed=1)
    begin(
        tmp_path / "same",
        dataclasses.replace(same, learning_rate=1e-30),
        name="x",
        init_from=InitFrom(folder=folder),
        watcher=watcher,
    )
    assert_same(trained(tmp_path / "same").state.params, trained(folder).state.params)
    wider = dataclasses.replace(same, options={"depth": 4, "width": 16}, learning_rate=1e-30)
    with pytest.raises(ValueError, match="params"):
        begin(tmp_path / "all", wider, name="x", init_from=InitFrom(folder=folder))
    begin(
        tmp_path / "some", wider, name="x", init_from=InitFrom(folder=folder, partial=True), watcher=watcher
    )
    assert len(told) >= 2


def test_what_a_folder_does_not_have(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint of step 7"):
        trained(folder, which=7)
    with pytest.raises(ValueError, match="is neither 'last' nor 'best' nor a step"):
        trained(folder, which="newest")
    begin(tmp_path / "run", dataclasses.replace(RECIPE, duration=5, validation=0.0), name="x")
    with pytest.raises(FileNotFoundError, match="it was never evaluated"):
        trained(tmp_path / "run", which="best")
    with pytest.raises(ValueError, match="the validation split of digits is empty"):
        evaluate(trained(tmp_path / "run"), "validation")
