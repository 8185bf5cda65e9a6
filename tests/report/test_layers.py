import math

import numpy as np
import pandas as pd
import pytest

from cnnjax.report import captions, tables
from cnnjax.report.layers import QUANTITIES, by_layer, draw_by_layer, relative, with_theory
from cnnjax.report.layout import choose

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


def test_columns_of_other_depths_share_relative_depth() -> None:
    study = make(axes={"gain": [1, 2, 3, 4, 5], "depth": [4, 40]}, seeds=1, rates=(0.1,), steps=0)
    assert choose(*study[:2]).columns == tables.Axis("depth", ("4", "40"), True)
    assert relative(by_layer(*study[:2], study.layers, column=COLUMN))


def test_similar_depths_share_the_index(small: Study) -> None:
    assert not relative(by_layer(*small[:2], small.layers, column=COLUMN))


def test_unknown_step(small: Study) -> None:
    with pytest.raises(ValueError, match="step: expected 'first' or 'last', got 'middle'"):
        by_layer(*small[:2], small.layers, column=COLUMN, step="middle")


def prediction(study: Study) -> pd.DataFrame:
    """A slope of 0.1 a layer in two segments around layer 4, which theory does not cover, for all cells but the first."""
    cells = study.runs.drop_duplicates("cell").query("cell > 0")
    rows = []
    for _, cell in cells.iterrows():
        for layer in range(cell["depth"]):
            reason = "pooling" if layer == 4 else ""
            segment = -1 if layer == 4 else int(layer > 4)
            rows.append((cell["cell"], layer, segment, reason, math.nan if reason else 0.1 * layer))
    return pd.DataFrame(rows, columns=["cell", "layer", "segment", "reason", COLUMN])


def test_theory_is_put_on_the_last_layer_of_each_segment(small: Study) -> None:
    table = by_layer(*small[:2], small.layers, column=COLUMN)
    table = with_theory(*small[:2], table, prediction(small), column=COLUMN)
    tanh = line(table, **WHERE | {"activation": "relu", "depth": "30", "architecture": "plain + bn"})
    for last, rows in ((3, tanh[tanh["layer"] < 4]), (29, tanh[tanh["layer"] > 4])):
        anchor = rows.set_index("layer").loc[last]
        assert anchor["theory"] == pytest.approx(anchor["median"])
        np.testing.assert_allclose(rows["theory"], anchor["median"] + 0.1 * (rows["layer"] - last))
    assert tanh[tanh["layer"] == 4]["theory"].isna().all()
    first = small.runs.query("cell == 0").iloc[0]
    uncovered = {name: str(first[name]) for name in ("activation", "architecture", "depth")}
    assert line(table, **uncovered)["theory"].isna().all()


def test_theory_is_drawn_dashed_and_named_in_the_caption(small: Study) -> None:
    layout = choose(*small[:2])
    table = by_layer(*small[:2], small.layers, column=COLUMN, layout=layout)
    assert "theory" not in captions.by_layer(table, layout, "")
    table = with_theory(*small[:2], table, prediction(small), column=COLUMN)
    figure = draw_by_layer(table, layout, QUANTITIES["gradient"])
    drawn = [item for axes in figure.axes for item in axes.lines if item.get_gid() == "theory"]
    assert len(drawn) == 8 and sum(np.isfinite(item.get_ydata()).any() for item in drawn) == 7
    caption = captions.by_layer(table, layout, "")
    assert "Dashed: mean-field theory" in caption and "does not cover: pooling." in caption


def test_diverged_runs_are_left_out_of_the_end_alone(study: Study) -> None:
    runs = study.runs.assign(status="diverged")
    column = "gradient_log10_second_moment"
    assert not len(by_layer(study.info, runs, study.layers, column=column, step="last"))
    assert len(by_layer(study.info, runs, study.layers, column=column, step="first"))
