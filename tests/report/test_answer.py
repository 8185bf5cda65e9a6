"""Every number of the paragraph, counted again from the raw tables."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from cnnjax.report import answer

from .synthetic import Study, make


def text(study: Study) -> str:
    return " ".join(answer.paragraph(*study[:2]))


def by_cell(runs: pd.DataFrame) -> pd.DataFrame:
    """Majority flow, median ratio, mean and deviation of accuracy by cell, written without the package."""
    rows = {}
    for cell, own in runs[runs["selected"]].groupby("cell"):
        accuracy = own["test_accuracy"].to_numpy()
        rows[cell] = {
            "flow": own["flow"].mode()[0],
            "ratio": np.median(own["gradient_ratio_log10"]),
            "mean": accuracy.mean(),
            "sd": accuracy.std(ddof=1),
            "architecture": own["architecture"].iloc[0],
        }
    return pd.DataFrame(rows).T


def test_flow_counts(study: Study) -> None:
    counts = by_cell(study.runs)["flow"].value_counts()
    assert (
        f"stable scale in {counts['stable']} of 48 cells, vanishes in {counts['vanishing']} and explodes in "
        f"{counts['exploding']}." in text(study)
    )


def test_shares_of_the_leading_axis(study: Study) -> None:
    cells = by_cell(study.runs)
    assert "differs most by architecture (" in text(study)
    for name, own in cells.groupby("architecture"):
        assert f"{name}: {(own['flow'] == 'stable').sum()} of {len(own)}" in text(study)


def test_range_of_the_gradient(study: Study) -> None:
    ratios = by_cell(study.runs)["ratio"].astype(float)
    found = re.search(
        r"ranges from zero \(underflow, in (\d+) cells\) to ([\d.]+) orders of magnitude above", text(study)
    )
    assert found
    assert int(found[1]) == np.isneginf(ratios).sum()
    assert found[2] == f"{ratios.max():.1f}"


def test_range_without_zeros() -> None:
    study = make(axes={"depth": [10, 20], "architecture": ["plain", "plain + bn"], "activation": ["tanh"]})
    ratios = by_cell(study.runs)["ratio"].astype(float)
    assert (
        f"ranges from {-ratios.min():.1f} orders of magnitude below the last hidden layer's (depth 20, plain)"
        in text(study)
    )


def test_range_where_all_cells_are_alike(study: Study) -> None:
    alike = Study(study.info, study.runs.assign(gradient_ratio_log10=0.01), study.curves, study.layers)
    assert "median over seeds) is the size of the last hidden layer's in every cell." in text(alike)


def test_best_and_worst_accuracy_with_spread(study: Study) -> None:
    cells = by_cell(study.runs)
    for end in ("idxmin", "idxmax"):
        number = getattr(cells["mean"].astype(float), end)()
        run = study.runs[study.runs["cell"] == number].iloc[0]
        place = f"{run['activation']}, {run['initializer']}, {run['architecture']}, depth {run['depth']}"
        mean, spread = 100 * cells.loc[number, "mean"], 100 * cells.loc[number, "sd"]
        assert f"{mean:.1f} ± {spread:.1f} % ({place}; n = 3)" in text(study)
    assert "± is the standard deviation over seeds" in text(study)


def test_untrainable_cells_and_diverged_runs(study: Study) -> None:
    failed = (by_cell(study.runs)["mean"] < 0.2).sum()
    diverged = (study.runs["status"] == "diverged").sum()
    assert diverged > 0
    assert f"below 20 %, which is chance + 10 points, or every run diverged): {failed} of 48 cells." in text(
        study
    )
    assert f"Diverged: {diverged} of 288 runs, all learning rates counted." in text(study)


def test_flow_and_trainability_are_kept_apart(study: Study) -> None:
    cells = by_cell(study.runs)
    stable, trained = cells["flow"] == "stable", cells["mean"] >= 0.2
    assert (
        f"different things: {(stable & trained).sum()} of {stable.sum()} stable cells trained and "
        f"{(~stable & trained).sum()} of {(~stable).sum()} vanishing or exploding cells trained, so the two agree in "
        f"{(stable == trained).sum()} of 48 ({100 * (stable == trained).mean():.0f} %)." in text(study)
    )


def test_partial_study_counts_what_there_is(unfinished: Study) -> None:
    done = unfinished.runs[unfinished.runs["status"] != "unfinished"]
    assert f"of {done['cell'].nunique()} cells initialized so far" in text(unfinished)
    assert f"of {len(done)} runs" in text(unfinished)


def test_cells_that_are_not_finite_are_counted(study: Study) -> None:
    runs = study.runs.copy()
    runs.loc[runs["cell"] == 0, "flow"] = "not finite"
    words = " ".join(answer.paragraph(study.info, runs))
    assert "and is not finite in 1." in words and "vanishing, exploding or not finite cells" in words


def test_one_seed_claims_no_spread() -> None:
    found = text(make(axes={"activation": ["relu", "sigmoid"]}, seeds=1))
    assert "±" not in found
    assert "There is one seed, so nothing is said about the spread between seeds." in found


def test_initialization_only() -> None:
    found = text(make(axes={"depth": [10, 30]}, steps=0))
    assert "Nothing was trained" in found
    assert "accuracy" not in found and "±" not in found


def test_nothing_known_yet(small: Study) -> None:
    runs = small.runs.assign(
        status="unfinished", selected=False, flow=None, gradient_ratio_log10=math.nan, test_accuracy=math.nan
    )
    found = " ".join(answer.paragraph(small.info, runs))
    assert "No cell has been initialized yet." in found and "No accuracy is known yet." in found


@pytest.mark.parametrize("axes", [{}, {"depth": [20]}])
def test_single_cell(axes: dict[str, list[int]]) -> None:
    found = text(make(axes=axes))
    assert "in 1 of 1 cell," in found
    assert re.search(r"the test accuracy is [\d.]+ ± [\d.]+ % \(n = 3\)\.", found)


def test_size(study: Study) -> None:
    assert answer.size(*study[:2]) == (
        "48 cells (3 activations × 2 initializers × 4 architectures × 2 depths), 3 seeds, 2 learning rates: 288 runs"
    )


def test_size_of_an_axis_that_ends_in_a_digit() -> None:
    info, runs = make(axes={"sigma_w2": [1, 2, 3]})[:2]
    assert answer.size(info, runs).startswith("3 cells (3 values of sigma w2)")
