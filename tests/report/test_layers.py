import math

import numpy as np
import pandas as pd
import pytest

from cnnjax.report.layers import by_layer, relative

from .synthetic import Study, make

COLUMN = "gradient_log10_second_moment"
WHERE = {"activation": "sigmoid", "architecture": "plain", "depth": "30"}


def line(table: pd.DataFrame, **where: str) -> pd.DataFrame:
    for name, value in where.items():
        table = table[table[name] == value]
    return table


@pytest.mark.parametrize(("step", "number"), [("first", 0), ("last", 480)])
def test_median_and_range_over_seeds(small: Study, step: str, number: int) -> None:
    table = line(by_layer(*small[:2], small.layers, column=COLUMN, step=step), **WHERE)
    runs = small.runs.query(
        "activation == 'sigmoid' and architecture == 'plain' and depth == 30 and selected"
    )
    values = small.layers[small.layers["run"].isin(runs["run"]) & (small.layers["step"] == number)]
    expected = values.pivot(index="layer", columns="run", values=COLUMN).to_numpy()
    np.testing.assert_array_equal(table["median"], np.median(expected, axis=1))
    np.testing.assert_array_equal(table["low"], expected.min(axis=1))
    np.testing.assert_array_equal(table["high"], expected.max(axis=1))
    assert (table["n"] == 3).all()


def test_zero_stays_minus_infinity_and_missing_stays_missing(small: Study) -> None:
    layers = small.layers.copy()
    layers.loc[layers["layer"] == 4, COLUMN] = math.nan
    table = line(by_layer(*small[:2], layers, column=COLUMN), **WHERE)
    assert table["median"].iloc[0] == -math.inf
    assert math.isnan(table["median"].iloc[4]) and table["n"].iloc[4] == 0


def test_end_of_training_leaves_unfinished_runs_out(unfinished: Study) -> None:
    table = by_layer(*unfinished[:2], unfinished.layers, column=COLUMN, step="last")
    done = unfinished.runs[unfinished.runs["status"] != "unfinished"]
    assert set(table["activation"]) == set(done["activation"])


def test_deep_networks_are_thinned_and_placed_by_relative_depth() -> None:
    study = make(axes={"depth": [10, 2000]}, seeds=2, rates=(0.1,), steps=0)
    table = by_layer(*study[:2], study.layers, column=COLUMN)
    assert relative(table)
    deep = line(table, depth="2000")
    assert len(deep) <= 160
    assert deep["layer"].iloc[0] == 0 and deep["layer"].iloc[-1] == 1999
    assert (deep["x"].min(), deep["x"].max()) == (0, 1)
    assert list(line(table, depth="10")["layer"]) == list(range(10))


def test_similar_depths_share_the_index(small: Study) -> None:
    assert not relative(by_layer(*small[:2], small.layers, column=COLUMN))


def test_unknown_step(small: Study) -> None:
    with pytest.raises(ValueError, match="step: expected 'first' or 'last', got 'middle'"):
        by_layer(*small[:2], small.layers, column=COLUMN, step="middle")
