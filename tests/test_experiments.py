"""Every experiment runs to its page at toy size, and its whole grid fits together."""

import runpy
from pathlib import Path

import pandas as pd
import pytest

import cnnjax.cli
from cnnjax.cli import main
from cnnjax.commands.run import load_study
from cnnjax.study import Store, plan

FILES = sorted((Path(__file__).parents[1] / "experiments").glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
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


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_says_what_it_asks_and_costs(file):
    for heading in ("Papers:", "Command:", "Cost:", "Expected:"):
        assert heading in file.read_text()
