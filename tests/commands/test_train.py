"""`cnnjax train` and what comes behind it: resume, runs, evaluate, predict, export."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from cnnjax.cli import main
from cnnjax.commands.recipe_options import merged, read, unused
from cnnjax.training import PRESETS, journal

QUICK = [
    "--model",
    "mlp",
    "--options",
    "depth=3",
    "width=16",
    "--duration",
    "20",
    "--record-every",
    "5",
    "--quiet",
]


@pytest.fixture(scope="module", autouse=True)
def as_a_user():
    """Some schedules of Optax promote types."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def folder(as_a_user, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "quick"
    assert main(["train", "digits-smoke", *QUICK, "--out", str(folder)]) == 0
    return folder


def test_a_run_from_one_command(folder):
    info = journal.read_info(folder)
    assert info["command"].startswith("cnnjax train digits-smoke --model mlp")
    assert info["recipe"]["options"] == {"depth": 3, "width": 16}
    # Of the preset, as nothing else was said.
    assert info["recipe"]["schedule"]["name"] == "cosine" and info["recipe"]["batch_size"] == 64
    assert (folder / "report" / "index.html").stat().st_size > 10_000
    assert journal.read_status(folder).state == "finished"


def test_what_comes_behind_it(folder, tmp_path, capsys, monkeypatch):
    assert main(["resume", str(folder)]) == 0
    assert "holds a finished run: nothing is left to do" in capsys.readouterr().out
    (folder / "report" / "index.html").unlink()
    assert main(["report", str(folder)]) == 0
    assert (folder / "report" / "index.html").exists()
    assert main(["runs", str(folder.parent)]) == 0
    assert "test: accuracy" in (said := capsys.readouterr().out) and "quick" in said
    assert main(["evaluate", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] == journal.read_evaluation(folder)["test"]["accuracy"]
    assert main(["evaluate", str(folder), "--split", "validation", "--views", "flip"]) == 0
    assert "accuracy: " in capsys.readouterr().out
    picture = tmp_path / "seven.png"
    Image.fromarray(np.full((20, 30), 200, np.uint8)).save(picture)
    assert main(["predict", str(folder), str(picture)]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{picture}: ") and line.count("%") == 5
    assert main(["export", str(folder), "--out", str(tmp_path / "export")]) == 0
    assert {path.name for path in (tmp_path / "export").iterdir()} >= {
        "model.stablehlo",
        "weights.safetensors",
    }


def test_options_add_to_those_of_the_preset():
    assert read(["digits-smoke", "--options", "depth=14"]).recipe.options == {"depth": 14}
    preset = PRESETS["digits-smoke"]
    found = merged(preset, read(["digits-smoke", "--options", "depth=14"]).recipe)
    assert found.options == {"depth": 14, "width": 8}
    found = merged(
        preset,
        read(["--optimizer.options", "nesterov=true", "--schedule.boundaries", "5", "2 epochs"]).recipe,
    )
    assert found.optimizer.options == {"momentum": 0.9, "nesterov": True}
    assert found.schedule.boundaries == (5, "2 epochs")
    # What belongs to another model or optimizer is left behind.
    found = merged(preset, read(["--model", "mlp", "--optimizer.name", "adam"]).recipe)
    assert (found.options, found.optimizer.options) == ({}, {})
    assert merged(preset, read([]).recipe) == preset


def test_folders_are_numbered(tmp_path):
    assert unused(tmp_path, "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a-2").mkdir()
    assert unused(tmp_path, "a") == tmp_path / "a-3"


def test_a_dry_run_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--batch-size", "40", "--dry-run"]) == 0
    assert (
        "CifarResNet on digits: 224 steps of 40 images (8.0 epochs of 1,150 images) on 8 device(s)"
        in capsys.readouterr().out
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "args, words",
    [
        (["train", "mnist-lenet"], "unknown preset 'mnist-lenet'; did you mean 'mnist-lenet5'?"),
        (["train", "--learing-rate", "3"], "Perhaps you meant: --learning-rate FLOAT"),
        (["train", "--data", "digit"], "no data set 'digit'"),
        (["train", "--model", "lenet5"], "lenet5 cannot take the images of digits"),
        (["train", "--batch-size", "100"], "a batch of 100 cannot be divided among 8 devices: use 96"),
        (["train", "--schedule.warmup", "9 epochs"], "the warm-up of 153 steps is longer than the run"),
        (["train", "--options", "depth"], "takes NAME=VALUE, as in depth=50; got 'depth'"),
        (["train", "--init-partial"], "--init-partial says how --init-from DIR is read"),
        (["train", "--init-from", "nowhere"], "nowhere holds no run"),
        (["resume", "nowhere"], "nowhere holds no run"),
        (["evaluate", "nowhere"], "nowhere holds no run"),
        (["export", "nowhere"], "nowhere holds no run"),
        (["predict", "nowhere"], "name the pictures, too"),
    ],
)
def test_mistakes_are_one_readable_line_and_leave_nothing(args, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(args)
    except SystemExit as exit:
        status = exit.code
    captured = capsys.readouterr()
    assert status == 2 and captured.err.startswith("cnnjax: ") and captured.err.count("\n") == 1
    assert words in captured.err
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_another_process_is_left_alone(folder, tmp_path, capsys):
    from cnnjax.files import locked

    assert main(["train", *QUICK, "--out", str(folder)]) == 2
    assert "holds a run already: go on with it (cnnjax resume" in capsys.readouterr().err
    with locked(folder):
        journal.write_status(folder, "running", 20, 1.0)
        assert main(["resume", str(folder)]) == 2
    assert f"process {os.getpid()} is at work in {folder}" in capsys.readouterr().err
    assert main(["resume", str(folder), "--devices", "1", "--quiet"]) == 0


def test_a_run_that_breaks_is_one_line_and_a_page(tmp_path, capsys):
    broken = ["--learning-rate", "1e12", "--schedule.warmup", "0", "--out", str(tmp_path / "run")]
    assert main(["train", *QUICK, *broken]) == 2
    said = capsys.readouterr().err
    assert "cnnjax: something was not finite in step" in said and "There is no checkpoint from before" in said
    assert (tmp_path / "run" / "report" / "index.html").exists()
    assert journal.read_status(tmp_path / "run").state == "failed"


def started(folder, *options):
    """A run in a process of its own, once its first record is there."""
    command = [sys.executable, "-m", "cnnjax.cli", "train", *QUICK[:-1], "--out", str(folder), *options]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    )
    while process.poll() is None and not (folder / "log.jsonl").exists():
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_saves_and_stops(tmp_path, number):
    process = started(tmp_path / "run", "--duration", "1000000")
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert (
        "saving a checkpoint, then stopping" in said and f"`cnnjax resume {tmp_path / 'run'}` goes on" in said
    )
    status = journal.read_status(tmp_path / "run")
    assert status.state == "stopped" and status.step > 0
    assert [int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdigit()][
        -1
    ] > 0
