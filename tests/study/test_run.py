"""The engine end to end: against a training loop written out, in blocks, in what it says of itself."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax import data, models, probes
from cnnjax import functional as F
from cnnjax.optim import Optimizer, Schedule
from cnnjax.study import Store, execute, run
from cnnjax.study.chunk import Chunk

from .small import STUDY


def test_equals_a_training_loop_written_out(finished):
    row = finished.table("runs").iloc[-1]
    assert (row["initializer"], row["learning_rate"], row["seed"]) == ("xavier_normal", 0.01, 1)
    dataset = data.load("digits", subset=100)
    moments = jnp.asarray(dataset.mean), jnp.asarray(dataset.std)
    model = models.create("mlp", **STUDY.options, initializer="xavier_normal")
    key = jax.random.key(1)
    rows = data.batch_indices(jax.random.fold_in(key, 1), 0, steps=6, size=100, batch_size=16)
    images = data.normalize(jnp.asarray(dataset.train.images), *moments)
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
    test = data.normalize(jnp.asarray(dataset.test.images), *moments)
    logits = model.apply({"params": params, "batch_stats": stats}, test)
    loss = jnp.mean(F.cross_entropy(jnp.asarray(logits), jnp.asarray(dataset.test.labels)))
    np.testing.assert_allclose(row["test_loss"], loss, rtol=1e-5)


def test_the_first_record_is_the_flow_of_the_first_batch(finished):
    model = models.create("mlp", **STUDY.options, initializer="he_normal")
    dataset = data.load("digits", subset=100)
    moments = jnp.asarray(dataset.mean), jnp.asarray(dataset.std)
    key = jax.random.key(0)
    row = data.batch_indices(jax.random.fold_in(key, 1), 0, steps=1, size=100, batch_size=16)[0]
    images = data.normalize(jnp.asarray(dataset.train.images)[row], *moments)
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


def test_the_recorded_precision_is_that_of_the_programs(tmp_path, monkeypatch):
    found = []

    def stopped(self):
        found.append(jax.config.values["jax_default_matmul_precision"])
        raise KeyboardInterrupt

    monkeypatch.setattr(Chunk, "prepare", stopped)
    with jax.default_matmul_precision("highest"), pytest.raises(KeyboardInterrupt):
        run(STUDY, tmp_path, quiet=True)
    assert found == [Store(tmp_path).info["precision"]] == ["highest"]


def test_exactly_one_rate_of_each_cell_is_selected(finished):
    runs = finished.table("runs")
    assert (runs.groupby("cell")["selected"].sum() == 2).all()
    assert (runs[runs["selected"]].groupby("cell")["learning_rate"].nunique() == 1).all()


def test_a_finished_study_is_left_alone(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")}
    run(STUDY, finished.folder, quiet=True)
    assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")} == before


def test_initialization_only(tmp_path):
    store = run(STUDY.replace(steps=0, grid={"depth": [3, 5]}, learning_rates=[0.1]), tmp_path, quiet=True)
    runs, layers = store.table("runs"), store.table("layers")
    assert (runs["status"] == "finished").all() and runs["test_accuracy"].isna().all()
    assert layers["step"].unique().tolist() == [0] and len(layers) == 2 * (3 + 5)
    assert np.isfinite(runs["gradient_ratio_log10"]).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 101}, "batch_size=101 is more than the 100 training examples of digits"),
        ({"model": "lenet5", "options": {}}, "lenet5.* does not take the 8x8x1 images of digits: .*kernel"),
        ({"options": {"width": 6, "depth": 3, "num_classes": 4}}, "less than the 10 classes of digits"),
        ({"data": "digit"}, "digits"),
        ({"schedule": Schedule(warmup=6)}, "the warm-up of 6 steps is longer than the run, which has 6"),
        ({"optimizer": Optimizer(name="adam", options={"beta": 1})}, "unknown option of adam 'beta'"),
        ({"optimizer": Optimizer(rates={"stm": 0.0})}, "the pattern 'stm' matches no parameter; nearest"),
    ],
)
def test_a_study_that_does_not_fit_fails_before_anything_is_written(tmp_path, fields, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(STUDY.replace(**fields), tmp_path / "none", quiet=True)
    assert not (tmp_path / "none").exists()
