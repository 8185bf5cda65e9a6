import json
import math
import os

import numpy as np
import pandas as pd
import pytest

from cnnjax.files import locked
from cnnjax.training import journal

from ..made_up_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return journal.read_run(make_run(tmp_path_factory.mktemp("runs") / "a"))


def test_what_was_written_is_read(run):
    assert run.info["data"]["class_names"][3] == "cat" and run.info["format"] == journal.FORMAT
    assert run.log["step"].tolist() == list(range(100, 6401, 100))
    assert run.log["validation_accuracy"].notna().sum() == 10
    assert tuple(run.log.columns) == journal.LOG_COLUMNS
    assert run.status.state == "finished" and run.status.step == 6400
    assert run.status.best == run.log["validation_accuracy"].max()
    assert run.evaluation["test"]["examples"] == 10_000


def test_layers_are_a_row_each(run):
    assert len(run.layers) == 9 * 20
    look = run.layers[run.layers["step"] == 800]
    assert look["layer"].tolist() == list(range(20)) and look["path"].iloc[-1] == "head"
    record = json.loads((run.folder / "layers.jsonl").read_text().splitlines()[1])
    for column in journal.LAYER_COLUMNS:
        assert look[column].tolist() == record[column]


def test_a_folder_with_run_json_alone(tmp_path):
    journal.write_info(tmp_path, {"name": "new"})
    run = journal.read_run(tmp_path)
    assert len(run.log) == len(run.layers) == 0
    assert tuple(run.log.columns) == journal.LOG_COLUMNS
    assert (run.status, run.evaluation) == (None, None)


def test_numbers_that_are_not_finite_and_missing_ones(tmp_path):
    journal.write_info(tmp_path, {})
    journal.append(tmp_path / "log.jsonl", {"step": 1, "loss": math.nan, "extra": 3})
    journal.append(tmp_path / "log.jsonl", {"step": 2, "loss": np.float32(math.inf), "accuracy": None})
    journal.append(
        tmp_path / "layers.jsonl", {"step": 1, "layers": ["a", "b"], "dead": np.array([0.5, -np.inf])}
    )
    run = journal.read_run(tmp_path)
    assert math.isnan(run.log["loss"][0]) and run.log["loss"][1] == math.inf
    assert run.log["accuracy"].isna().all() and run.log["extra"][0] == 3
    assert run.layers["dead"].tolist() == [0.5, -math.inf] and run.layers["saturated"].isna().all()


def test_the_status_says_when(tmp_path):
    journal.write_status(tmp_path, "failed", 7, 1.5, error="out of memory")
    status = journal.read_status(tmp_path)
    assert status is not None
    assert (status.state, status.step, status.best, status.error) == ("failed", 7, None, "out of memory")
    age = pd.Timestamp.now(tz="UTC") - pd.Timestamp(status.updated)
    assert abs(age.total_seconds()) < 60
    with pytest.raises(
        ValueError, match="state must be one of running, stopped, finished, failed; got 'done'"
    ):
        journal.write_status(tmp_path, "done", 7, 1.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="step must be an integer, got 7.0"):
        journal.write_status(tmp_path, "stopped", 7.0, 1.5)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("state", ["running", "stopped", "finished", "failed"])
def test_a_run_is_killed_when_it_says_that_it_runs_and_nobody_is_there(tmp_path, state):
    journal.write_status(tmp_path, state, 7, 1.5)
    status = journal.read_status(tmp_path)
    assert journal.state(tmp_path, status) == ("killed" if state == "running" else state)
    with locked(tmp_path):
        assert journal.state(tmp_path, status) == state
        assert journal.state(tmp_path, None) == "running"
    assert journal.state(tmp_path, None) == "killed"


def test_logs_are_cut_behind_the_checkpoint(tmp_path):
    for name in ("log.jsonl", "layers.jsonl"):
        for step in (0, 5, 10, 15):
            journal.append(tmp_path / name, {"step": step, "layers": []})
        with (tmp_path / name).open("a") as file:
            file.write('{"step": 3, "lo')
    before = (tmp_path / "log.jsonl").read_text().splitlines()
    journal.cut(tmp_path, 10)
    for name in ("log.jsonl", "layers.jsonl"):
        assert (tmp_path / name).read_text().splitlines() == before[:3]
    journal.append(tmp_path / "log.jsonl", {"step": 15})
    assert journal.read_log(tmp_path)["step"].tolist() == [0, 5, 10, 15]


def test_without_logs_there_is_nothing_to_cut(tmp_path):
    journal.cut(tmp_path, 10)
    assert os.listdir(tmp_path) == []


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    journal.append(tmp_path / "log.jsonl", {"step": 1})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 2, "loss": 0.')
    assert journal.read_log(tmp_path)["step"].tolist() == [1]


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step"\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"line 2 of .*/log.jsonl is no record: delete the line, or resume"):
        journal.read_log(tmp_path)


@pytest.mark.parametrize(
    ("look", "message"),
    [
        ({"step": 4}, "look into the layers, at step 4, that names none"),
        ({"step": 4, "layers": ["a"], "dead": [1, 2]}, "look into 1 layers, at step 4, with another number"),
    ],
)
def test_a_damaged_look_is_named(tmp_path, look, message):
    journal.append(tmp_path / "layers.jsonl", look)
    with pytest.raises(ValueError, match=message):
        journal.read_layers(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.json", "", r"run.json is no whole JSON file \(Expecting value"),
        ("run.json", "[1]", "run.json holds list where an object is expected"),
        ("run.json", '{"format": 2}', "run.json has format 2, and this version of cnnjax reads format 1"),
        ("status.json", '{"state": "runn', "status.json is no whole JSON file"),
        ("status.json", '{"state": "running"}', r"status.json is damaged \(.*step.*resume the run"),
        ("evaluation.json", "\xff", "evaluation.json is no whole JSON file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, text, message):
    journal.write_info(tmp_path, {})
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        journal.read_run(tmp_path)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(
        ValueError, match=r"holds no run \(no run.json\): name the folder that `cnnjax train`"
    ):
        journal.read_run(tmp_path)


def test_what_is_no_number_is_not_written(tmp_path):
    with pytest.raises(TypeError, match="set cannot be written as JSON"):
        journal.append(tmp_path / "log.jsonl", {"step": 1, "loss": {1}})
    assert not (tmp_path / "log.jsonl").exists()
