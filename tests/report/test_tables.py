import math

import numpy as np
import pandas as pd
import pytest

from cnnjax.report import tables

from .synthetic import Study


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "none"), (math.nan, "none"), (pd.NA, "none"), (True, "yes"), (np.False_, "no"), (10, "10")]
    + [(10.0, "10"), (np.float32(0.1), "0.1"), (1.05, "1.05"), (1e-5, "1e-05"), ("relu", "relu")],
)
def test_label(value: object, text: str) -> None:
    assert tables.label(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(-math.inf, "zero"), (math.nan, "–"), (-0.04, "0.0"), (2.25, "+2.2"), (-12, "−12.0")]
)
def test_decades(value: float, text: str) -> None:
    assert tables.decades(value) == text


def test_axes_keep_order_and_know_numbers(study: Study) -> None:
    found = tables.axes(
        study.info | {"axes": {"norm": [None, "batch"], "gain": [2, 0.5], "data": ["digits"]}}
    )
    assert [(axis.name, axis.labels, axis.numeric) for axis in found] == [
        ("norm", ("none", "batch"), False),
        ("gain", ("2", "0.5"), True),
    ]
    assert found[0].text("none") == "norm none" and found[1].text("2") == "gain 2"


def test_variants_called_by_numbers_are_numbers(study: Study) -> None:
    variants = {"sigma_w2": ["0.5", "1", "1e-05", "-2"], "network": ["1 layer", "2"], "norm": ["none", "1"]}
    found = tables.axes(study.info | {"axes": variants})
    assert [axis.numeric for axis in found] == [True, False, False]
    assert found[0].text("0.5") == "sigma w2 0.5"


def test_chosen_is_one_run_per_cell_and_seed(study: Study) -> None:
    chosen = tables.chosen(study.runs)
    assert len(chosen) == study.runs["cell"].nunique() * 3
    assert chosen["selected"].all()


def test_chosen_falls_back_where_nothing_is_selected(unfinished: Study) -> None:
    chosen = tables.chosen(tables.labeled(unfinished.info, unfinished.runs))
    assert set(chosen["cell"]) == set(unfinished.runs["cell"])
    assert chosen.loc[~chosen["selected"], "learning_rate"].eq(0.1).all()


def test_cells_against_the_definition(study: Study) -> None:
    cells = tables.cells(study.info, study.runs).set_index("cell")
    for number in (0, 9, 33, 47):
        own = study.runs.query("cell == @number and selected")
        assert cells.loc[number, "test_accuracy"] == pytest.approx(np.mean(own["test_accuracy"]))
        # ddof=1: the sample standard deviation.
        assert cells.loc[number, "test_accuracy_sd"] == pytest.approx(np.std(own["test_accuracy"], ddof=1))
        assert cells.loc[number, "gradient_ratio_log10"] == np.median(own["gradient_ratio_log10"])
        assert cells.loc[number, "seeds"] == 3


@pytest.mark.parametrize(("accuracy", "verdict"), [(0.19, "untrainable"), (0.2, "trainable")])
def test_verdict_is_chance_plus_ten_points(small: Study, accuracy: float, verdict: str) -> None:
    runs = small.runs.assign(test_accuracy=accuracy, status="finished")
    assert set(tables.cells(small.info, runs)["verdict"]) == {verdict}


def test_verdict_of_diverged_and_open_cells(small: Study) -> None:
    runs = small.runs.assign(test_accuracy=math.nan, selected=False)
    runs["status"] = np.where(runs["cell"] == 3, "diverged", "unfinished")
    verdicts = tables.cells(small.info, runs).set_index("cell")["verdict"]
    assert verdicts[3] == "untrainable"
    assert set(verdicts.drop(3)) == {""}


def test_diverged_seeds_are_counted_and_left_out_of_the_mean(small: Study) -> None:
    runs = small.runs.copy()
    lost = runs.query("cell == 0 and selected").index[:1]
    runs.loc[lost, ["status", "test_accuracy"]] = ["diverged", math.nan]
    cell = tables.cells(small.info, runs).iloc[0]
    assert (cell["seeds"], cell["diverged"]) == (2, 1)
    assert cell["test_accuracy"] == pytest.approx(
        runs.query("cell == 0 and selected")["test_accuracy"].mean()
    )


@pytest.mark.parametrize(
    ("flows", "expected"),
    [(["stable", "stable", "vanishing"], "stable"), (["stable", "vanishing", None], "vanishing")]
    + [(["exploding", "stable", None], "exploding"), ([None, None, None], "")],
)
def test_flow_of_a_cell_is_the_majority_and_a_tie_is_not_stable(
    small: Study, flows: list[str | None], expected: str
) -> None:
    runs = small.runs.assign(flow=small.runs["seed"].map(dict(enumerate(flows))))
    assert set(tables.cells(small.info, runs)["flow"]) == {expected}


def test_margins_and_agreement_add_up(study: Study) -> None:
    cells = tables.cells(study.info, study.runs)
    margins = tables.margins(study.info, cells)
    for _, own in margins.groupby("axis"):
        assert own["cells"].sum() == 48
        assert (own[["stable", "vanishing", "exploding"]].sum(axis=1) == own["cells"]).all()
        assert own["trainable"].sum() == (cells["verdict"] == "trainable").sum()
    counts = tables.agreement(cells)
    assert counts.to_numpy().sum() == 48
    assert (
        counts.loc["vanishing", "untrainable"]
        == cells.eval("flow == 'vanishing' and verdict == 'untrainable'").sum()
    )


def test_runs_of_another_study(small: Study) -> None:
    with pytest.raises(ValueError, match=r"the runs have depth = 30, but the study's axis lists 10, 20"):
        tables.cells(small.info | {"axes": small.info["axes"] | {"depth": [10, 20]}}, small.runs)
