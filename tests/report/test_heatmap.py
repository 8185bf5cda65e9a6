import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from cnnjax.report import figures, heatmap, tables

from .synthetic import Study, make


def marked(figure: Figure) -> set[int]:
    gids = [patch.get_gid() or "" for patch in figure.axes[0].patches]
    return {int(gid.removeprefix("untrainable-")) for gid in gids if gid.startswith("untrainable-")}


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_exactly_the_untrainable_cells_are_hatched(study: Study) -> None:
    best = study.runs[study.runs["selected"]].groupby("cell")["test_accuracy"].mean()
    # Ten classes: chance 0.1, plus ten points.
    expected = set(best.index[best < 0.2])
    assert expected and marked(figures.accuracy_map(*study[:2])) == expected


def test_hatched_cell_lies_where_its_labels_say(study: Study) -> None:
    figure = figures.accuracy_map(*study[:2])
    axes = figure.axes[0]
    patch = next(patch for patch in axes.patches if (patch.get_gid() or "").startswith("untrainable-"))
    cell = int((patch.get_gid() or "").removeprefix("untrainable-"))
    run = study.runs[study.runs["cell"] == cell].iloc[0]
    x, y = (round(value + 0.5) for value in patch.get_xy())
    assert axes.get_yticklabels()[y].get_text() == f"{run['architecture']}, depth {run['depth']}"
    assert axes.get_xticklabels()[x].get_text() == run["initializer"]


def test_diverged_cell_is_hatched_without_a_number(small: Study) -> None:
    runs = small.runs.copy()
    runs.loc[runs["cell"] == 2, ["status", "test_accuracy"]] = ["diverged", math.nan]
    figure = figures.accuracy_map(small.info, runs)
    assert 2 in marked(figure)
    assert texts(figure).count("diverged") == 1


def test_partly_diverged_open_and_lost_cells(small: Study) -> None:
    runs = small.runs.copy()
    first = runs.query("cell == 0 and selected").index[0]
    runs.loc[first, ["status", "test_accuracy"]] = ["diverged", math.nan]
    runs.loc[runs["cell"] == 1, ["status", "test_accuracy"]] = ["unfinished", math.nan]
    runs.loc[runs["cell"] == 2, ["status", "test_accuracy"]] = ["out of memory", math.nan]
    found = texts(figures.accuracy_map(small.info, runs))
    assert sum(text.endswith("†") for text in found) == 1
    assert found.count("open") == found.count("memory") == 1


def test_texts_are_mean_and_deviation(small: Study) -> None:
    own = 100 * small.runs.query("cell == 0 and selected")["test_accuracy"]
    assert f"{own.mean():.1f} ± {np.std(own, ddof=1):.1f}" in texts(figures.accuracy_map(*small[:2]))


def test_gradient_map_shows_zero_as_zero(study: Study) -> None:
    cells = tables.cells(*study[:2])
    found = texts(figures.gradient_map(*study[:2]))
    assert found.count("zero") == np.isneginf(cells["gradient_ratio_log10"]).sum() > 0


@pytest.mark.parametrize("sizes", [(13, 3, 2), (4, 4, 3, 3), (2,), (6, 4), (10, 10)])
def test_split_uses_each_axis_once_and_stays_narrow(sizes: tuple[int, ...]) -> None:
    grid = tuple(tables.Axis(f"axis{i}", tuple(map(str, range(n))), True) for i, n in enumerate(sizes))
    down, across = heatmap.split(grid)
    assert sorted(axis.name for axis in (*down, *across)) == sorted(axis.name for axis in grid)
    assert math.prod(len(axis.labels) for axis in across) <= 12


def test_narrow_cells_drop_the_spread() -> None:
    axes = {"depth": list(range(1, 13)), "gain": list(range(1, 13))}
    study = make(axes=axes, seeds=2, rates=(0.1,))
    assert not heatmap.roomy(study.info)
    assert not any("±" in text for text in texts(figures.accuracy_map(*study[:2])))
