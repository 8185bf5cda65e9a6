"""Every experiment runs to its page at toy size, and its whole grid fits together."""

import dataclasses
import math
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import pandas as pd
import pytest

import cnnjax.cli
from cnnjax.cli import main
from cnnjax.commands.run import load_study
from cnnjax.study import RunDevices, Store, execute, plan, read_verdicts

PAPERS = sorted((Path(__file__).parents[1] / "experiments" / "papers").glob("*.py"))
# `transfer` is no study: it is tested in test_transfer.py.
FILES = sorted(f for f in (Path(__file__).parents[1] / "experiments").glob("*.py") if f.stem != "transfer")


# Programs as the demo has them, too.
ALIKE = (
    "activations",
    "architectures",
    "depth",
    "equal_depth",
    "initializers",
    "normalization",
    "remedies",
    "trainability",
)
# Five strides leave nothing of 28x28 pixels.
TOO_SMALL = {("architectures", "mnist")}
LARGER = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, marks=[pytest.mark.slow] if file.stem in ALIKE else []) for file in FILES],
    ids=[file.stem for file in FILES],
)
def test_quick(file, tmp_path):
    assert main(["run", str(file), "--quick", "--quiet", "--out", str(tmp_path)]) == 0
    store = Store(tmp_path)
    study = load_study(file)
    assert (store.table("runs")["status"] == "finished").all()
    assert set(store.info["axes"]) == set(study.grid)
    assert store.table("layers")["gradient_log10_second_moment"].notna().all()
    assert (tmp_path / "report" / "index.html").stat().st_size > 10_000


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_runs_by_itself(file, monkeypatch):
    studies = []
    monkeypatch.setattr(cnnjax.cli, "main_of_study", studies.append)
    names = runpy.run_path(str(file), run_name="__main__")
    assert studies == [names["STUDY"]]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_whole_grid_can_be_planned(file):
    study = load_study(file)
    runs = pd.Series([run.run for program in plan(study) for run in program.runs])
    assert runs.is_unique and len(runs) >= 32


@pytest.mark.parametrize("file", PAPERS, ids=lambda file: file.stem)
def test_papers_have_claims_at_both_tiers(file):
    for tier in ("STUDY", "FULL"):
        study = load_study(file, tier)
        assert plan(study) and study.claims and not any(claim.excluded for claim in study.claims)
    assert study.name == f"{file.stem}-full"
    for heading in ("Claim as published", "Settings:", "Smaller here:", "Command:", "Found:"):
        assert heading in file.read_text() or (file.stem, heading) == ("hanin2018", "Smaller here:")


def test_a_paper_is_judged(tmp_path, capsys):
    assert (
        main(["run", str(PAPERS[0].with_name("hanin2018.py")), "--quick", "--quiet", "--out", str(tmp_path)])
        == 0
    )
    assert "3 claims: 3 not tested" in capsys.readouterr().out
    assert {verdict.verdict for verdict in read_verdicts(tmp_path)} == {"not tested"}


@pytest.mark.parametrize(
    "file, data",
    [
        # The 22 networks of that study take long to trace; tests/models has them at this size.
        pytest.param(file, data, marks=[pytest.mark.slow] if file.stem == "architectures" else [])
        for file in FILES
        for data in LARGER
        if (file.stem, data) not in TOO_SMALL
    ],
    ids=lambda value: getattr(value, "stem", value),
)
def test_every_program_takes_the_images_of_larger_data(file, data):
    shape = LARGER[data]
    for program in plan(load_study(file)):
        images = jax.ShapeDtypeStruct((program.batch_size, *shape), jnp.float32)
        # As the engine does, which knows the data.
        program = dataclasses.replace(program, options={"num_classes": 10, **program.options})
        model = program.make_model(program.runs[0].initializer)
        logits, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
        assert logits.shape == (program.batch_size, 10), program.title
        named = (variables["params"].get(name) for name in ("stem", "c1", "conv1", "conv1_1"))
        first = jax.tree.leaves(next(layer for layer in named if layer is not None))
        assert any(shape[-1] in leaf.shape or math.prod(shape) in leaf.shape for leaf in first), program.title


def test_an_architecture_without_room_for_its_strides_is_named(tmp_path, capsys):
    file = next(file for file in FILES if file.stem == "architectures")
    assert main(["run", str(file), "--data", "digits", "--quiet", "--out", str(tmp_path)]) == 2
    assert "lenet5() does not take the 8x8x1 images of digits: in layer c3/linear" in capsys.readouterr().err


@pytest.mark.slow
def test_larger_data_is_run_and_reported(tfds_dir, tmp_path, monkeypatch):
    # Eight virtual devices would score the 20,000 images of the other splits eight times.
    one = RunDevices(jax.devices()[:1])
    monkeypatch.setattr(execute, "RunDevices", lambda run_axis: one)
    file = next(file for file in FILES if file.stem == "activations")
    options = "--quick --data mnist --subset 200 --steps 2 --learning-rates 0.03 --axis initializer he_normal"
    assert main(["run", str(file), *options.split(), "--quiet", "--out", str(tmp_path)]) == 0
    store = Store(tmp_path)
    assert (store.info["data"], store.info["config"]["subset"]) == ("mnist", 200)
    runs = store.table("runs")
    assert runs["activation"].tolist() == ["sigmoid", "relu"] and set(runs["status"]) == {"finished"}
    # An accuracy is a share of the 10,000 test images.
    right = runs["test_accuracy"] * 10_000
    assert (right - right.round()).abs().max() < 1e-2
    assert "trained on 200 of" in (tmp_path / "report" / "index.html").read_text()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_says_what_it_asks_and_costs(file):
    for heading in ("Papers:", "Command:", "Cost:", "Expected:"):
        assert heading in file.read_text()
