"""The engine end to end: against a training loop written out, killed, diverging, out of memory."""

import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

from cnnjax import data, models, probes
from cnnjax import functional as F
from cnnjax.study import Store, Study, execute, run
from cnnjax.study.chunk import Chunk
from cnnjax.study.store import Part, write_table

TABLES = ("runs", "curves", "layers")
STUDY = Study(
    name="small",
    question="?",
    model="mlp",
    options={"width": 6, "depth": 3, "norm": "batch"},
    grid={"initializer": ["he_normal", "xavier_normal"]},
    learning_rates=[0.1, 0.01],
    seeds=2,
    steps=6,
    record_every=2,
    batch_size=16,
    subset=100,
)


def tables(store):
    return {name: store.table(name) for name in TABLES}


def assert_same(one, other):
    for name in TABLES:
        pd.testing.assert_frame_equal(one[name], other[name], check_exact=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(STUDY, tmp_path_factory.mktemp("small"), quiet=True, command="the command")


def test_equals_a_training_loop_written_out(finished):
    row = finished.table("runs").iloc[-1]
    assert (row["initializer"], row["learning_rate"], row["seed"]) == ("xavier_normal", 0.01, 1)
    dataset = data.load("digits", subset=100)
    model = models.create("mlp", **STUDY.options, initializer="xavier_normal")
    key = jax.random.key(1)
    rows = data.batch_indices(jax.random.fold_in(key, 1), 0, steps=6, size=100, batch_size=16)
    images = data.normalize(jnp.asarray(dataset.train.images), dataset.mean, dataset.std)
    variables = jax.jit(model.init)(key, images[:16])
    params, stats = variables["params"], variables["batch_stats"]
    optimizer = optax.sgd(0.01, momentum=0.9)

    @jax.jit
    def step(params, stats, memory, row):
        def objective(params):
            variables = {"params": params, "batch_stats": stats}
            logits, new = model.apply(variables, images[row], train=True, mutable=["batch_stats"])
            labels = jnp.asarray(dataset.train.labels)[row]
            return jnp.mean(F.cross_entropy(logits, labels)), new["batch_stats"]

        (loss, stats), gradients = jax.value_and_grad(objective, has_aux=True)(params)
        updates, memory = optimizer.update(gradients, memory)
        return optax.apply_updates(params, updates), stats, memory, loss

    memory, losses = optimizer.init(params), []
    for i in range(6):
        params, stats, memory, loss = step(params, stats, memory, rows[i])
        losses.append(loss)
    curve = finished.table("curves").query(f"run == {row['run']}")
    np.testing.assert_allclose(curve["loss"], np.mean(np.reshape(losses, (3, 2)), axis=1), rtol=1e-5)
    test = data.normalize(jnp.asarray(dataset.test.images), dataset.mean, dataset.std)
    logits = model.apply({"params": params, "batch_stats": stats}, test)
    loss = jnp.mean(F.cross_entropy(logits, jnp.asarray(dataset.test.labels)))
    np.testing.assert_allclose(row["test_loss"], loss, rtol=1e-5)


def test_the_first_record_is_the_flow_of_the_first_batch(finished):
    model = models.create("mlp", **STUDY.options, initializer="he_normal")
    dataset = data.load("digits", subset=100)
    key = jax.random.key(0)
    row = data.batch_indices(jax.random.fold_in(key, 1), 0, steps=1, size=100, batch_size=16)[0]
    images = data.normalize(jnp.asarray(dataset.train.images)[row], dataset.mean, dataset.std)
    variables = jax.jit(model.init)(key, images)
    labels = jnp.asarray(dataset.train.labels)[row]
    expected = jax.jit(lambda v: probes.gradient_flow(model, v, images, labels))(variables).frame()
    stored = finished.table("layers").query("run == 0 and step == 0").reset_index(drop=True)
    assert stored["path"].tolist() == expected["path"].tolist()
    for column in set(probes.COLUMNS) - {"update_to_kernel_log10"}:
        np.testing.assert_allclose(stored[column], expected[column], rtol=1e-3, atol=1e-4, err_msg=column)
    # The first step of SGD with momentum is -learning_rate times the gradient.
    difference = stored["update_to_kernel_log10"] - stored["gradient_to_kernel_log10"]
    np.testing.assert_allclose(difference, np.log10(0.1), atol=1e-5)


def test_splits_are_scored_in_blocks(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "EVALUATION_BLOCK", 100)
    other = run(STUDY, tmp_path, quiet=True).table("runs")
    for column in ("validation_loss", "validation_accuracy", "test_loss", "test_accuracy"):
        np.testing.assert_allclose(other[column], finished.table("runs")[column], rtol=1e-5)


def test_records_at_every_segment_and_at_the_last_step(finished):
    layers = finished.table("layers")
    assert sorted(layers["step"].unique()) == [0, 2, 4, 5]
    assert len(layers) == 8 * 4 * 3
    assert finished.table("curves").groupby("run")["step"].apply(list).tolist() == [[2, 4, 6]] * 8


def test_describes_itself(finished):
    info = finished.info
    assert info["command"] == "the command" and info["axes"] == {
        "initializer": ["he_normal", "xavier_normal"]
    }
    assert info["versions"]["jax"] == jax.__version__ and info["device"]["count"] == 8
    assert info["finished"] and info["precision"] == "float32" and info["seconds"] > 0


def test_exactly_one_rate_of_each_cell_is_selected(finished):
    runs = finished.table("runs")
    assert (runs.groupby("cell")["selected"].sum() == 2).all()
    assert (runs[runs["selected"]].groupby("cell")["learning_rate"].nunique() == 1).all()


def test_a_finished_study_is_left_alone(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")}
    run(STUDY, finished.folder, quiet=True)
    assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")} == before


@pytest.mark.parametrize("stop_after", [0, 1, 2])
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


@pytest.mark.parametrize("written", [0, 1, 2, 3])
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
        paths = [tmp_path / run / f"{name}.parquet" for run in ("whole", "killed")]
        pd.testing.assert_frame_equal(*map(pd.read_parquet, paths), check_exact=True)


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


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path, monkeypatch):
    def broken(self):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(Chunk, "prepare", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        run(STUDY, tmp_path, quiet=True)


def test_initialization_only(tmp_path):
    store = run(STUDY.replace(steps=0, grid={"depth": [3, 5]}, learning_rates=[0.1]), tmp_path, quiet=True)
    runs, layers = store.table("runs"), store.table("layers")
    assert (runs["status"] == "finished").all() and runs["test_accuracy"].isna().all()
    assert layers["step"].unique().tolist() == [0] and len(layers) == 2 * (3 + 5)
    assert np.isfinite(runs["gradient_ratio_log10"]).all()


def test_a_network_that_is_not_finite_at_the_start_has_diverged(tmp_path):
    options = {**STUDY.options, "norm": None, "activation": "identity"}
    study = STUDY.replace(
        steps=0, grid={"gain": [1.0, 1e20]}, options=options, learning_rates=[0.1], record_every=1
    )
    runs = run(study, tmp_path, quiet=True).table("runs").set_index("gain")
    assert (runs.loc[1.0, "status"] == "finished").all() and (runs.loc[1e20, "status"] == "diverged").all()
    assert (runs.loc[1e20, "flow"] == "not finite").all() and (runs.loc[1e20, "diverged_step"] == 0).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 101}, "batch_size=101 is more than the 100 training examples of digits"),
        ({"model": "lenet5", "options": {}}, "lenet5.* does not take the 8x8x1 images of digits: .*kernel"),
        ({"options": {"width": 6, "depth": 3, "num_classes": 4}}, "less than the 10 classes of digits"),
        ({"data": "digit"}, "digits"),
    ],
)
def test_a_study_that_does_not_fit_fails_before_anything_is_written(tmp_path, fields, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(STUDY.replace(**fields), tmp_path / "none", quiet=True)
    assert not (tmp_path / "none").exists()
