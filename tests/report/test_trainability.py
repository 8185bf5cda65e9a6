import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from cnnjax.probes import critical_line, mean_field
from cnnjax.report import figures, trainability

from .synthetic import Study, gaussian

SIGMA_W2 = [0.5, 1.0, 1.76, 2.5]
DEPTHS = [4, 16, 64]


@pytest.fixture(scope="module")
def grid() -> Study:
    return gaussian(SIGMA_W2, DEPTHS)


def line(figure: Figure) -> tuple[np.ndarray, np.ndarray]:
    (found,) = (item for item in figure.axes[0].lines if item.get_gid() == "bound")
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


def test_the_line_is_six_times_xi_c(grid: Study) -> None:
    x, y = line(figures.trainability_map(*grid[:2]))
    for value in SIGMA_W2[:2] + SIGMA_W2[3:]:
        expected = 6 * mean_field("tanh", sigma_w2=value, sigma_b2=0.05).xi_c
        assert y[x == value] == pytest.approx([expected])
    assert x[0] < 0.5 and x[-1] > 2.5


def test_the_line_leaves_the_map_at_the_critical_point(grid: Study) -> None:
    figure = figures.trainability_map(*grid[:2])
    x, y = line(figure)
    (peak,) = y[np.isclose(x, critical_line("tanh", 0.05), rtol=1e-12)]
    assert np.isfinite(peak) and peak == y.max() > 10 * figure.axes[0].get_ylim()[1]


def test_the_table_holds_numbers(grid: Study) -> None:
    table = trainability.by_depth(*grid[:2])
    assert sorted(set(table["sigma_w2"])) == SIGMA_W2 and sorted(set(table["depth"])) == DEPTHS
    # papers.md of the study: 6 xi_c = 21.8 at sigma_w2 = 1, sigma_b2 = 0.05.
    assert table.loc[table["sigma_w2"] == 1, "bound"].to_numpy() == pytest.approx(21.8, abs=0.05)
    own = grid.runs.query("cell == 5 and selected")
    assert table.set_index("cell").loc[5, "train_accuracy"] == pytest.approx(own["train_accuracy"].mean())


def test_each_tile_holds_its_sigma_w2_and_depth(grid: Study) -> None:
    axes = figures.trainability_map(*grid[:2]).axes[0]
    boxes = {patch.get_gid(): patch.get_bbox() for patch in axes.patches}
    for _, cell in trainability.by_depth(*grid[:2]).iterrows():
        assert boxes[f"cell-{cell['cell']}"].contains(cell["sigma_w2"], cell["depth"])
    assert axes.get_yscale() == "log" and axes.get_xscale() == "linear"
    assert [text.get_text() for text in axes.get_yticklabels()] == ["4", "16", "64"]


def test_untrainable_and_diverged_cells_are_marked_as_in_the_accuracy_map(grid: Study) -> None:
    runs = grid.runs.copy()
    runs["test_accuracy"] = np.where(runs["cell"] == 2, 0.1, 0.9)
    runs.loc[runs["cell"] == 7, ["status", "test_accuracy", "train_accuracy"]] = [
        "diverged",
        math.nan,
        math.nan,
    ]
    both = [draw(grid.info, runs).axes[0] for draw in (figures.trainability_map, figures.accuracy_map)]
    marks = [{patch.get_gid() for patch in axes.patches if "untrainable" in patch.get_gid()} for axes in both]
    assert marks[0] == marks[1] == {"untrainable-2", "untrainable-7"}
    assert [text.get_text() for text in both[0].texts].count("div.") == 1


def test_many_cells_have_no_numbers_and_few_ticks() -> None:
    many = gaussian(np.linspace(0.5, 4, 20).round(2).tolist(), list(range(5, 105, 5)), seeds=1, rates=(0.1,))
    axes = figures.trainability_map(*many[:2]).axes[0]
    assert not axes.texts and len(axes.get_xticks()) <= 12 and len(axes.get_yticks()) <= 14
    assert len({patch.get_gid() for patch in axes.patches if "cell-" in patch.get_gid()}) == 400


def test_no_line_where_the_second_moment_has_no_fixed_point() -> None:
    study = gaussian([1.0, 4.0], [4, 16], options={"activation": "gelu"})
    table = trainability.by_depth(*study[:2])
    assert table["bound"].isna().to_numpy().tolist() == [False, False, True, True]
    x, y = line(figures.trainability_map(*study[:2]))
    assert np.isnan(y[x == 4.0]).all() and np.isfinite(y[x == 1.0]).all()


def test_studies_without_such_a_map(grid: Study, small: Study) -> None:
    with pytest.raises(ValueError, match="expected a study over two axes, depth and one that sets the gain"):
        figures.trainability_map(*small[:2])
    with pytest.raises(ValueError, match=r"'synthetic' trains nothing \(steps=0\)"):
        figures.trainability_map(grid.info | {"steps": 0}, grid.runs)
    unknown = gaussian(SIGMA_W2, DEPTHS, options={"activation": "tahn"})
    with pytest.raises(ValueError, match="unknown activation 'tahn'"):
        figures.trainability_map(*unknown[:2])
    beyond = gaussian([3.0, 4.0], [4, 16], options={"activation": "relu"})
    with pytest.raises(
        ValueError, match="relu has no fixed point at sigma_b2 = 0.05 and any sigma_w2 of 'synthetic'"
    ):
        figures.trainability_map(*beyond[:2])
