"""The engine with the runs of a device all at once against one after the other."""

import jax
import pytest

from cnnjax.study import Study, run

from .small import assert_close, tables

pytestmark = pytest.mark.slow

# 12 runs in two of each device: the third seed of a rate shares one with the first seed of the next rate.
STUDY = Study(
    name="axis",
    question="?",
    model="plain",
    options={"width": 4, "depth": 3, "norm": "batch"},
    grid={"initializer": ["he_normal", "xavier_normal"]},
    learning_rates=[0.1, 1e20],
    seeds=3,
    steps=4,
    record_every=2,
    batch_size=16,
    subset=100,
)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return {
        axis: run(STUDY, tmp_path_factory.mktemp(axis), run_axis=axis, quiet=True) for axis in ("map", "vmap")
    }


def test_runs_all_at_once_have_the_tables_of_runs_one_after_the_other(stores):
    assert len(jax.devices()) == 8
    assert_close(tables(stores["vmap"]), tables(stores["map"]))


def test_a_run_that_diverges_leaves_the_one_beside_it_alone(stores):
    runs = stores["vmap"].table("runs")
    lost = runs["learning_rate"] == 1e20
    assert set(runs["status"][lost]) == {"diverged"} and set(runs["status"][~lost]) == {"finished"}
    assert runs["diverged_layer"][lost].notna().all()
    assert runs["test_loss"][~lost].notna().all()


@pytest.mark.parametrize("axis", ["map", "vmap"])
def test_the_study_says_how_its_runs_were_computed(stores, axis):
    assert stores[axis].info["run_axis"] == axis
