import json

import numpy as np
import pandas as pd
import pytest

from cnnjax.study.store import FORMAT, Store, write_table

NAMES = ("curves", "layers")
TABLE = pd.DataFrame({"run": [0, 1], "step": [5, 5]})


def info(**config):
    return {
        "format": FORMAT,
        "config": {"steps": 10, **config},
        "finished": None,
        "started": "t",
        "seconds": None,
        "versions": {"jax": "1"},
        "device": {"kind": "cpu"},
        "run_axis": "map",
        "precision": "float32",
        "commit": None,
        "earlier": [],
    }


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def test_a_folder_of_another_configuration_is_refused_untouched(tmp_path):
    store = Store(tmp_path)
    store.open(info(depth=3))
    before = (tmp_path / "study.json").read_bytes()
    message = r"another configuration \(depth: 3 there, 4 now\); choose another folder with --out"
    with pytest.raises(ValueError, match=message):
        store.open(info(depth=4))
    assert (tmp_path / "study.json").read_bytes() == before


@pytest.mark.parametrize("content, format", [({"format": 0}, 0), ({}, None), ([], None)])
def test_a_folder_of_another_format_is_refused(tmp_path, content, format):
    (tmp_path / "study.json").write_text(json.dumps(content))
    for read in (lambda: Store(tmp_path).info, lambda: Store(tmp_path).open(info())):
        with pytest.raises(ValueError, match=f"has format {format}, this version reads {FORMAT}"):
            read()


def test_a_table_without_its_columns_is_refused(tmp_path):
    write_table(tmp_path / "runs.parquet", TABLE)
    with pytest.raises(ValueError, match="has no column 'cell': it was not written by cnnjax"):
        Store(tmp_path).table("runs")


def test_every_environment_is_remembered_once(tmp_path):
    store = Store(tmp_path)
    for jax in ("1", "1", "2", "1", "2", "2"):
        said = store.open(info() | {"versions": {"jax": jax}})
    assert said["versions"] == {"jax": "2"}
    assert [environment["versions"] for environment in said["earlier"]] == [{"jax": "1"}]
    said = store.open(info() | {"run_axis": "vmap"})
    assert [(e["versions"]["jax"], e["run_axis"]) for e in said["earlier"]] == [("1", "map"), ("2", "map")]


def test_what_a_kill_left_goes_when_the_study_goes_on(tmp_path):
    leftover = tmp_path / "parts" / "p" / ".state.npz.0123.tmp"
    leftover.parent.mkdir(parents=True)
    leftover.write_text("half")
    (tmp_path / "study.json").write_text(json.dumps(info()))
    Store(tmp_path).open(info())
    assert not leftover.exists()


@pytest.mark.parametrize("where", ["parts/p/layers.parquet", "layers.parquet"])
def test_a_truncated_table_is_named_with_its_remedy(tmp_path, where):
    store = Store(tmp_path)
    store.open(info())
    write_table(tmp_path / where, TABLE)
    truncate(tmp_path / where)
    with pytest.raises(ValueError, match="layers.parquet is not a whole Parquet file .*; delete it and run"):
        store.open(info()) if "parts" in where else store.table("layers")
    assert (tmp_path / where).exists()


def test_a_folder_without_study(tmp_path):
    with pytest.raises(ValueError, match="holds no study"):
        Store(tmp_path).info  # noqa: B018
    with pytest.raises(ValueError, match="run the study first"):
        Store(tmp_path).table("runs")


def test_a_damaged_description(tmp_path):
    (tmp_path / "study.json").write_text('{"format": 1, ')
    with pytest.raises(ValueError, match="study.json is damaged"):
        Store(tmp_path).info  # noqa: B018


def test_results_without_a_description_are_not_taken_over(tmp_path):
    store = Store(tmp_path)
    store.open(info())
    store.part("p").finish({"runs": TABLE})
    (tmp_path / "study.json").unlink()
    with pytest.raises(
        ValueError, match="because its study.json is missing; choose another folder with --out"
    ):
        store.open(info(depth=4))


def test_a_part_gives_back_what_it_saved(tmp_path, rng):
    part = Store(tmp_path).part("p")
    state = {"a": rng.normal(size=(2, 3)).astype(np.float32), "b": (np.int32(4), np.zeros(0, np.float32))}
    assert part.restore(state, NAMES) is None
    part.save(5, state, {"curves": TABLE, "layers": TABLE})
    step, restored, tables = part.restore(state, NAMES)
    assert step == 5 and not part.finished
    np.testing.assert_array_equal(restored["a"], state["a"])
    assert restored["b"][0] == 4 and restored["b"][1].shape == (0,)
    pd.testing.assert_frame_equal(tables["layers"], TABLE)


@pytest.mark.parametrize("name", ["state.npz", "layers.parquet"])
def test_a_damaged_part_starts_anew(tmp_path, name):
    part = Store(tmp_path).part("p")
    state = [np.arange(100.0)]
    part.save(5, state, {"curves": TABLE, "layers": TABLE})
    truncate(part.folder / name)
    assert part.restore(state, NAMES) is None


def test_a_state_of_another_shape_is_not_taken(tmp_path):
    part = Store(tmp_path).part("p")
    part.save(5, [np.zeros(3)], {"curves": TABLE, "layers": TABLE})
    assert part.restore([np.zeros(4)], NAMES) is None


def test_merging_fills_up_with_the_runs_that_are_missing(tmp_path):
    store = Store(tmp_path)
    store.open(info())
    runs = pd.DataFrame({"run": [0, 1, 2], "cell": 0, "status": "unfinished"})
    store.part("b").finish({"runs": runs[1:2].assign(status="finished"), "layers": TABLE, "curves": TABLE})
    store.merge(runs, lambda frame: frame.assign(selected=False))
    merged = store.table("runs")
    assert merged["run"].tolist() == [0, 1, 2]
    assert merged["status"].tolist() == ["unfinished", "finished", "unfinished"]
    assert json.loads((tmp_path / "study.json").read_text())["config"] == {"steps": 10}
