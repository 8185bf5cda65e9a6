import math

import numpy as np
import pytest

from cnnjax.report import captions
from cnnjax.report.curves import CURVES, by_step, draw_by_step
from cnnjax.report.layout import choose

from .synthetic import Study


def test_median_over_seeds_at_the_selected_rate(small: Study) -> None:
    table = by_step(*small[:2], small.curves, column="loss")
    own = table[
        (table["activation"] == "relu") & (table["architecture"] == "plain") & (table["depth"] == "10")
    ]
    runs = small.runs.query("cell == 0 and selected")["run"]
    expected = small.curves[small.curves["run"].isin(runs)].pivot(index="step", columns="run", values="loss")
    np.testing.assert_allclose(own["median"], np.median(expected.to_numpy(), axis=1))
    assert not table["diverged"].any()


@pytest.mark.parametrize("stop", ["values are missing", "rows are missing", "values are infinite"])
def test_diverged_cell_ends_in_a_cross(small: Study, stop: str) -> None:
    runs, curves = small.runs.copy(), small.curves.copy()
    lost = runs.query("cell == 0")["run"]
    runs.loc[runs["cell"] == 0, "status"] = "diverged"
    after = curves["run"].isin(lost) & (curves["step"] > 200)
    curves.loc[after, "loss"] = math.inf if stop == "values are infinite" else math.nan
    curves = curves[~after] if stop == "rows are missing" else curves
    table = by_step(small.info, runs, curves, column="loss")
    assert table.groupby(["activation", "architecture", "depth"], observed=True)["diverged"].any().sum() == 1
    figure = draw_by_step(small.info, table, choose(small.info, runs), CURVES["loss"])
    crosses = [line for axes in figure.axes for line in axes.lines if line.get_gid() == "diverged"]
    assert len(crosses) == 1
    assert crosses[0].get_xdata()[0] == 200
    caption = captions.by_step(table, choose(small.info, runs), "")
    assert "A cross ends the line" in caption and "without a line" not in caption


def test_a_cell_that_diverged_at_once_is_named_in_the_caption(small: Study) -> None:
    runs, curves = small.runs.copy(), small.curves.copy()
    runs.loc[runs["cell"] == 0, "status"] = "diverged"
    curves.loc[curves["run"].isin(runs.query("cell == 0")["run"]), "loss"] = math.nan
    table = by_step(small.info, runs, curves, column="loss")
    caption = captions.by_step(table, choose(small.info, runs), "")
    assert "A cell without a line diverged before its first point." in caption and "cross" not in caption
