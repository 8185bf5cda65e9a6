"""A study's own measures: a number for each run, or a vector."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from cnnjax.study import Study, run
from cnnjax.study.store import Part


def kernel_norm(model, variables, images, labels, key):
    return jnp.linalg.norm(variables["params"]["head"]["linear"]["kernel"])


def logits_of_the_first(model, variables, images, labels, key):
    return model.apply(variables, images)[0]


def draw(model, variables, images, labels, key):
    return jax.random.normal(key)


STUDY = Study(
    name="measured",
    question="?",
    model="mlp",
    options={"width": 6, "depth": 3, "norm": "batch"},
    grid={"initializer": ["he_normal", "xavier_normal"]},
    seeds=2,
    steps=2,
    record_every=1,
    batch_size=16,
    subset=100,
    measures={"norm": kernel_norm, "logits": logits_of_the_first, "draw": draw},
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return run(STUDY, tmp_path_factory.mktemp("measured"), quiet=True)


def test_a_number_is_a_column_of_runs_and_a_vector_rows_of_measures(store):
    runs, measures = store.table("runs"), store.table("measures")
    assert "logits" not in runs
    assert measures.groupby("measure")["index"].max().to_dict() == {"draw": 0, "logits": 9, "norm": 0}
    for name in ("norm", "draw"):
        np.testing.assert_array_equal(runs[name], measures[measures["measure"] == name]["value"])
    assert runs["draw"].nunique() == 2, "a draw depends on the seed alone"


def test_measures_are_of_the_network_at_initialization(store):
    row = store.table("layers").query("step == 0 and path == 'head'").set_index("run")["kernel_log10_norm"]
    np.testing.assert_allclose(np.log10(store.table("runs")["norm"]), row, rtol=1e-5)


def test_stopped_and_gone_on_it_has_the_same_measures(store, tmp_path, monkeypatch):
    save, calls = Part.save, []

    def interrupted(self, *arguments):
        save(self, *arguments)
        calls.append(1)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Part, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(STUDY, tmp_path, quiet=True)
    again = run(STUDY, tmp_path, quiet=True)
    for name in ("runs", "measures"):
        pd.testing.assert_frame_equal(again.table(name), store.table(name), check_exact=True)
    (tmp_path / "measures.parquet").unlink()
    pd.testing.assert_frame_equal(run(STUDY, tmp_path, quiet=True).table("measures"), store.table("measures"))


def test_measures_without_training(store, tmp_path):
    runs = run(STUDY.replace(steps=0), tmp_path, quiet=True).table("runs")
    np.testing.assert_allclose(runs["norm"], store.table("runs")["norm"], rtol=1e-6)


@pytest.mark.parametrize(
    ("measures", "message"),
    [
        ({"seed": kernel_norm}, "a measure cannot be called 'seed', which is a column"),
        (
            {"matrix": lambda model, variables, images, labels, key: images[0, :, :, 0]},
            r"measure 'matrix' must give a number or a vector; got shape \(8, 8\)",
        ),
    ],
)
def test_measures_that_do_not_fit(tmp_path, measures, message):
    with pytest.raises(ValueError, match=message):
        run(STUDY.replace(measures=measures), tmp_path / "none", quiet=True)
    assert not (tmp_path / "none").exists()
