import numpy as np
import pytest

from cnnjax.report import figures
from cnnjax.report.rivals import by_initializer, pair

from .synthetic import Study, make


@pytest.fixture(scope="module")
def rivals() -> Study:
    return make(axes={"initializer": ["xavier_normal", "he_normal"], "depth": [10, 22, 30], "width": [16]})


def test_two_panels_with_a_line_for_each_initializer(rivals: Study) -> None:
    figure = figures.initializer_curves(*rivals[:2], rivals.curves)
    assert [axes.get_title() for axes in figure.axes] == ["depth 22", "depth 30"]
    for axes, depth in zip(figure.axes, (22, 30), strict=True):
        curves = [line for line in axes.lines if len(line.get_xdata()) == 24]
        assert len(curves) == len(axes.collections) == 2
        for line, name in zip(curves, rivals.info["axes"]["initializer"], strict=True):
            runs = rivals.runs.query(f"initializer == '{name}' and depth == {depth} and selected")["run"]
            own = rivals.curves[rivals.curves["run"].isin(runs)]
            expected = 1 - own.pivot(index="step", columns="run", values="accuracy").median(axis=1)
            np.testing.assert_allclose(line.get_ydata(), expected)


def test_the_band_is_the_range_over_seeds(rivals: Study) -> None:
    table = by_initializer(*rivals[:2], rivals.curves, pair(rivals.info))
    runs = rivals.runs.query("initializer == 'he_normal' and depth == 30 and selected")["run"]
    errors = 1 - rivals.curves[rivals.curves["run"].isin(runs)].pivot(
        index="step", columns="run", values="accuracy"
    )
    own = table[(table["initializer"] == "he_normal") & (table["depth"] == "30")]
    np.testing.assert_allclose(own["low"], errors.min(axis=1))
    np.testing.assert_allclose(own["high"], errors.max(axis=1))


def test_other_depths(rivals: Study) -> None:
    figure = figures.initializer_curves(*rivals[:2], rivals.curves, depths=[10])
    assert [axes.get_title() for axes in figure.axes] == ["depth 10"]


def test_other_studies(rivals: Study, small: Study) -> None:
    with pytest.raises(ValueError, match="'synthetic' has no depth 50; it has 10, 22, 30"):
        figures.initializer_curves(*rivals[:2], rivals.curves, depths=[22, 50])
    with pytest.raises(
        ValueError,
        match="over the axes initializer and depth alone; 'synthetic' has activation, architecture, depth",
    ):
        figures.initializer_curves(*small[:2], small.curves)
