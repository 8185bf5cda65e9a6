import math

import numpy as np
import pytest
from scipy import stats

from cnnjax.report.run_classes import (
    BARS,
    LARGEST,
    WORST,
    class_figures,
    confused_pairs,
    names_of,
    wilson,
)

from ..made_up_run import ANIMALS, judged

COUNTS = [[8, 2, 0], [0, 5, 5], [1, 0, 0]]


def found(counts=COUNTS, **changes):
    counts = np.asarray(counts)
    accuracy = float(np.trace(counts) / counts.sum())
    return {"confusion": counts.tolist(), "accuracy": accuracy, "examples": int(counts.sum())} | changes


def plates(numbers, names=("a", "b", "c")):
    return {plate.name: plate for plate in class_figures(numbers, "test", list(names))}


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(("right", "examples"), [(0, 10), (3, 10), (10, 10), (9120, 10_000)])
def test_wilson(right, examples):
    # Wilson 1927: the shares p whose normal interval at p reaches the observed one; solved here as a quadratic in p.
    z, share = stats.norm.ppf(0.975), right / examples
    roots = np.roots([1 + z**2 / examples, -(2 * share + z**2 / examples), share**2])
    assert wilson(right, examples) == pytest.approx(sorted(roots), abs=1e-9)


def test_names():
    assert names_of({"num_classes": 2, "class_names": ["a", "b"]}) == ["a", "b"]
    assert names_of({"num_classes": 2, "class_names": ["a"]}) == ["0", "1"]
    assert names_of({"num_classes": 3}) == ["0", "1", "2"]


def test_confused_pairs_are_in_order():
    table = confused_pairs(found(), ["a", "b", "c"])
    assert table.to_dict("list") == {
        "true": ["b", "a", "c"],
        "predicted": ["c", "b", "a"],
        "count": [5, 2, 1],
        "share": [0.5, 0.2, 1.0],
    }
    assert confused_pairs(found(np.eye(3, dtype=int)), ["a", "b", "c"]).empty


def test_the_confusion_matrix_says_shares_and_the_table_counts():
    plate = plates(found())["confusion"]
    assert texts(plate.figure.axes[0]) == ["80", "20", "", "", "50", "50", "100", "", ""]
    assert plate.table[["a", "b", "c"]].to_numpy().tolist() == COUNTS and plate.table["true"].tolist() == [
        "a",
        "b",
        "c",
    ]
    labels = [label.get_text() for label in plate.figure.axes[0].get_yticklabels()]
    assert labels == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("share", "text"), [(0.0994, "9.9"), (0.0996, "10"), (0.999, "100"), (0.0004, "0.0")]
)
def test_shares_have_two_digits(share, text):
    right = round(10_000 * (1 - share))
    plate = plates(found([[right, 10_000 - right], [0, 10]]), ["a", "b"])["confusion"]
    assert texts(plate.figure.axes[0])[1] == text


def test_large_matrices_have_no_numbers_and_larger_ones_no_figure():
    plate = plates(found(np.eye(20, dtype=int)), map(str, range(20)))["confusion"]
    assert not texts(plate.figure.axes[0]) and "percent of the true class" not in plate.caption
    size = LARGEST + 1
    assert "confusion" not in plates(found(np.eye(size, dtype=int)), map(str, range(size)))


def test_classes_are_sorted_and_those_without_examples_left_out():
    plate = plates(found([[8, 2, 0], [0, 0, 0], [0, 1, 9]]))["class_accuracy"]
    assert plate.table["class"].tolist() == ["c", "a"]
    assert plate.table["accuracy"].tolist() == [0.9, 0.8]
    assert tuple(plate.table.loc[0, ["low", "high"]]) == pytest.approx(wilson(9, 10))
    assert "Classes without examples that are left out: 1." in plate.caption


def test_of_many_classes_the_worst_are_shown():
    size = BARS + 1
    counts = np.diag(np.arange(size)) + np.eye(size, k=1, dtype=int) * (size - np.arange(size))[:, None]
    counts[-1, 0] = 1
    plate = plates(found(counts), map(str, range(size)))["class_accuracy"]
    labels = [label.get_text() for label in plate.figure.axes[0].get_yticklabels()]
    assert labels == [str(i) for i in range(WORST - 1, -1, -1)]
    assert plate.caption.startswith(f"The {WORST} worst of {size} classes.") and len(plate.table) == size


def test_reliability_is_by_bin(rng):
    sure = rng.uniform(0.2, 1, 500)
    right = rng.uniform(size=500) < sure**1.5
    bins = [np.ceil(sure * 15) == i + 1 for i in range(15)]
    reliability = {
        "confidence": [sure[b].mean() if b.any() else None for b in bins],
        "accuracy": [right[b].mean() if b.any() else None for b in bins],
        "count": [int(b.sum()) for b in bins],
    }
    # Naeini et al. 2015, section 3.
    error = sum(b.mean() * abs(right[b].mean() - sure[b].mean()) for b in bins if b.any())
    plate = plates(found(calibration_error=error, reliability=reliability))["reliability"]
    table = plate.table
    assert table["count"].tolist() == [b.sum() for b in bins if b.any()] and table[
        "share"
    ].sum() == pytest.approx(1)
    assert (table["share"] * (table["accuracy"] - table["confidence"]).abs()).sum() == pytest.approx(error)
    assert f"(Guo et al. 2017): {100 * error:.1f} points." in plate.caption
    assert np.all((table["low"] <= table["accuracy"]) & (table["accuracy"] <= table["high"]))


@pytest.mark.parametrize("error", [None, math.nan])
def test_without_bins_or_an_error(error):
    assert "reliability" not in plates(found(reliability=None))
    bins = {"confidence": [None, 0.9], "accuracy": [None, 0.8], "count": [0, 10]}
    plate = plates(found(reliability=bins, calibration_error=error))["reliability"]
    assert len(plate.table) == 1 and "calibration error" not in plate.caption


def test_one_class():
    assert not plates(found([[3]]), ["a"])


def test_all_figures_can_be_drawn():
    names = [f"${name}$ \\frac a very long name" for name in ANIMALS]
    drawn = plates(judged(classes=10, examples=1000, accuracy=0.9), names)
    assert list(drawn) == ["confusion", "class_accuracy", "reliability"]
    for plate in drawn.values():
        plate.figure.draw_without_rendering()
