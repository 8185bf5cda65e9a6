"""The engine under faults: stopped and killed, with lost tables, with runs that diverge, out of memory."""

import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from cnnjax.study import Store, run
from cnnjax.study.chunk import Chunk
from cnnjax.study.store import Part, write_table

from .small import STUDY, TABLES, assert_close, assert_same, tables


@pytest.mark.parametrize(
    "stop_after", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_stopped_between_writing_tables_and_state_it_ends_with_the_same_tables(
    finished, tmp_path, monkeypatch, stop_after
):
    save, calls = Part.save, []

    def interrupted(self, step, state, tables):
        if len(calls) == stop_after:
            for name, table in tables.items():
                table.to_parquet(self.folder / f"{name}.parquet") if self.folder.exists() else None
            raise KeyboardInterrupt
        calls.append(step)
        save(self, step, state, tables)

    with monkeypatch.context() as patch:
        patch.setattr(Part, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(STUDY, tmp_path, quiet=True)
    assert_same(tables(run(STUDY, tmp_path, quiet=True)), tables(finished))


@pytest.mark.parametrize(
    "written",
    [0, *(pytest.param(table, marks=pytest.mark.slow) for table in (1, 2, 3))],
)
def test_stopped_while_a_part_ends_it_ends_with_the_same_tables(finished, tmp_path, monkeypatch, written):
    def interrupted(self, tables):
        for name, table in list(tables.items())[:written]:
            write_table(self.folder / f"{name}.parquet", table)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Part, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(STUDY, tmp_path, quiet=True)
    assert_same(tables(run(STUDY, tmp_path, quiet=True)), tables(finished))


def test_stopped_when_asked_it_keeps_the_segment_and_ends_with_the_same_tables(finished, tmp_path):
    answers = iter([False, False, True])
    with pytest.raises(KeyboardInterrupt):
        run(STUDY, tmp_path, quiet=True, stop=lambda: next(answers))
    assert Store(tmp_path).table("curves")["step"].max() == 2
    assert_same(tables(run(STUDY, tmp_path, quiet=True)), tables(finished))


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_a_lost_table_of_a_finished_study_is_made_again(finished, tmp_path, name, damage):
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    damage(tmp_path / f"{name}.parquet")
    assert_same(tables(run(STUDY, tmp_path, quiet=True)), tables(finished))


def test_a_lost_table_of_a_part_is_computed_again(finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    for path in [tmp_path / "layers.parquet", *tmp_path.glob("parts/*/layers.parquet")]:
        path.unlink()
    assert_same(tables(run(STUDY, tmp_path, quiet=True)), tables(finished))


def test_an_interrupted_study_has_its_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(Part, "finish", lambda self, tables: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(STUDY, tmp_path, quiet=True)
    assert set(Store(tmp_path).table("runs")["status"]) == {"unfinished"}
    assert Store(tmp_path).table("curves")["step"].max() == STUDY.steps


def test_killed_it_ends_with_the_same_tables(tmp_path):
    script = textwrap.dedent(
        """
        import sys, jax
        jax.config.update("jax_num_cpu_devices", 2)
        from cnnjax.study import Study, run
        grid = {"activation": ["relu", "tanh"]}
        options = {"width": 6, "depth": 3}
        study = Study(name="k", question="?", model="mlp", options=options, grid=grid, seeds=2, steps=40, record_every=1,
                      batch_size=16, subset=100)
        run(study, sys.argv[1], quiet=True)
        """
    )

    def start(folder):
        return subprocess.Popen([sys.executable, "-c", script, str(folder)])

    whole = start(tmp_path / "whole")
    assert whole.wait() == 0
    for kill in range(2):
        process = start(tmp_path / "killed")
        wanted = "state.npz" if kill == 0 else "runs.parquet"
        while process.poll() is None and not list(tmp_path.glob(f"killed/parts/*/{wanted}")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert start(tmp_path / "killed").wait() == 0
    for name in TABLES:
        one, other = (pd.read_parquet(tmp_path / run / f"{name}.parquet") for run in ("whole", "killed"))
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_a_run_that_diverges_is_recorded_and_the_others_go_on(tmp_path):
    options = {**STUDY.options, "norm": None, "activation": "identity"}
    study = STUDY.replace(learning_rates=[0.01, 1e9], grid={"initializer": ["he_normal"]}, options=options)
    runs = run(study, tmp_path, quiet=True).table("runs")
    lost = runs["learning_rate"] == 1e9
    assert (runs[lost]["status"] == "diverged").all() and (runs[~lost]["status"] == "finished").all()
    assert runs[lost]["diverged_step"].between(1, 6).all()
    assert runs[lost]["diverged_layer"].isin(["stem", "stack[0]/layer", "head"]).all()
    assert np.isfinite(runs[~lost]["test_loss"]).all()
    # A broken network answers with the first class: no accuracy, and never the best one.
    assert runs[lost][["validation_accuracy", "test_accuracy"]].isna().all(axis=None)
    assert runs[~lost]["selected"].all()


@pytest.mark.parametrize(("fitting", "status"), [(2, "finished"), (0, "out of memory")])
def test_what_does_not_fit_is_split_and_then_recorded(finished, tmp_path, monkeypatch, fitting, status):
    prepare = Chunk.prepare

    def limited(self):
        if len(self.runs) > fitting:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte")
        return prepare(self)

    monkeypatch.setattr(Chunk, "prepare", limited)
    study = STUDY.replace(grid={"initializer": ["he_normal"]})
    runs = run(study, tmp_path, quiet=True).table("runs")
    assert runs["run"].tolist() == list(range(4)) and set(runs["status"]) == {status}
    if status == "finished":
        whole = finished.table("runs").iloc[:4]
        np.testing.assert_allclose(runs["test_loss"], whole["test_loss"], rtol=1e-5)


def test_stopped_after_a_split_it_stays_split(finished, tmp_path, monkeypatch):
    prepare, study = Chunk.prepare, STUDY.replace(grid={"initializer": ["he_normal"]})

    def limited(self):
        if len(self.runs) > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte")
        if self.runs[0].run > 0:
            raise KeyboardInterrupt
        return prepare(self)

    with monkeypatch.context() as patch:
        patch.setattr(Chunk, "prepare", limited)
        with pytest.raises(KeyboardInterrupt):
            run(study, tmp_path, quiet=True)
    runs = run(study, tmp_path, quiet=True).table("runs")
    assert runs["run"].tolist() == list(range(4))
    np.testing.assert_allclose(runs["test_loss"], finished.table("runs")["test_loss"][:4], rtol=1e-5)


@pytest.mark.parametrize("done", [2, STUDY.steps], ids=["in the second segment", "in the last evaluation"])
@pytest.mark.slow
def test_memory_that_runs_out_after_a_segment_was_stored(finished, tmp_path, monkeypatch, done):
    score, stored = Chunk._score, []

    def limited(self, blocks):
        if len(self.runs) > 2 and self._done == done:
            with np.load(self.part.folder / "state.npz") as state:
                stored.append(int(state["step"]))
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte")
        return score(self, blocks)

    monkeypatch.setattr(Chunk, "_score", limited)
    store = run(STUDY.replace(grid={"initializer": ["he_normal"]}), tmp_path, quiet=True)
    assert stored == [done]
    assert len(list((tmp_path / "parts").iterdir())) == 2
    undisturbed = {
        name: table[table["run"] < 4].reset_index(drop=True) for name, table in tables(finished).items()
    }
    assert_close(tables(store), undisturbed)


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path, monkeypatch):
    def broken(self):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(Chunk, "prepare", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        run(STUDY, tmp_path, quiet=True)


def test_a_network_that_is_not_finite_at_the_start_has_diverged(tmp_path):
    options = {**STUDY.options, "norm": None, "activation": "identity"}
    study = STUDY.replace(
        steps=0, grid={"gain": [1.0, 1e20]}, options=options, learning_rates=[0.1], record_every=1
    )
    runs = run(study, tmp_path, quiet=True).table("runs").set_index("gain")
    assert (runs.loc[1.0, "status"] == "finished").all() and (runs.loc[1e20, "status"] == "diverged").all()
    assert (runs.loc[1e20, "flow"] == "not finite").all() and (runs.loc[1e20, "diverged_step"] == 0).all()
