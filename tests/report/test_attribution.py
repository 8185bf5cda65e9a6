import math

import pandas as pd
import pytest

from cnnjax.report import figures

COLUMNS = ["kind", "layer", "replacement", "gradient_log10_second_moment", "change"]
ROWS = [
    ("none", "all", "", -12.0, 0.0),
    ("activation", "all", "constant factor", -12.5, -0.5),
    ("activation", "stem", "constant factor", -12.1, -0.1),
    ("activation", "stack[0]/layer", "constant factor", -12.4, -0.4),
    ("kernel", "all", "isometry", -4.0, 8.0),
    ("kernel", "stack[0]/layer", "isometry", -8.0, 4.0),
    ("kernel", "head", "rescaled", -11.0, 1.0),
]


def table(rows: list[tuple] = ROWS) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


def test_bars_are_the_changes_of_whole_kinds() -> None:
    axes = figures.attribution(table()).axes[0]
    assert {bar.get_gid(): bar.get_width() for bar in axes.patches} == {
        "all-activation": -0.5,
        "all-kernel": 8.0,
    }
    assert [text.get_text() for text in axes.texts] == ["−0.5", "+8"]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "activations:\nconstant factor",
        "kernels:\nisometry",
    ]


def test_dots_lie_at_their_layers() -> None:
    axes = figures.attribution(table()).axes[1]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["stem", "stack[0]/layer", "head"]
    # The first layer is on top.
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    dots = {line.get_gid(): line for line in axes.lines}
    kernels = dots["layers-kernel"]
    assert [names[round(y)] for y in kernels.get_ydata()] == ["stack[0]/layer", "head"]
    assert list(kernels.get_xdata()) == [4.0, 1.0]
    assert dots["layers-activation"].get_marker() != kernels.get_marker()


def test_without_layers_there_is_one_panel() -> None:
    assert len(figures.attribution(table([ROWS[0], ROWS[1]])).axes) == 1


def test_the_untouched_gradient_is_named() -> None:
    figure = figures.attribution(table())
    assert figure.get_supxlabel().endswith("grows; untouched it is 10⁻¹²")
    nothing = [("none", "all", "", -math.inf, 0.0), ("kernel", "all", "isometry", -3.0, math.inf)]
    dead = figures.attribution(table(nothing))
    assert dead.get_supxlabel().endswith("untouched it is zero")
    (bar,) = dead.axes[0].patches
    assert math.isfinite(bar.get_width()) and bar.get_width() > 0 and dead.axes[0].texts[0].get_text() == "∞"


def test_a_hundred_layers_are_thinned_to_legible_names() -> None:
    rows = [
        *ROWS[:2],
        *(("activation", f"stack[{i}]/layer", "constant factor", -12.0, 0.1) for i in range(100)),
    ]
    figure = figures.attribution(table(rows))
    assert 30 <= len(figure.axes[1].get_yticks()) <= 36
    assert figure.get_figheight() < 5


def test_other_tables() -> None:
    with pytest.raises(
        ValueError, match="the table of probes.attribute_gradient, with kind, layer, .* it lacks change"
    ):
        figures.attribution(table().drop(columns="change"))
    with pytest.raises(ValueError, match="the untouched network alone"):
        figures.attribution(table(ROWS[:1]))
