import math

import numpy as np
from matplotlib.figure import Figure

from cnnjax.report import figures, style
from cnnjax.report.layout import choose

from .synthetic import Study, make


def zeros(figure: Figure) -> int:
    return sum(line.get_gid() == "exact-zero" for axes in figure.axes for line in axes.lines)


def test_zero_gradients_lie_in_a_strip_of_their_own(small: Study) -> None:
    figure = figures.gradient_by_layer(*small[:2], small.layers)
    assert zeros(figure) == 1
    axes = next(axes for axes in figure.axes if any(line.get_gid() == "exact-zero" for line in axes.lines))
    strip = next(line for line in axes.lines if line.get_gid() == "exact-zero")
    curves = [line.get_ydata() for line in axes.lines if line is not strip]
    assert strip.get_ydata()[0] < min(np.nanmin(curve) for curve in curves)
    assert figure.axes[0].get_yticklabels()[0].get_text() == "zero"


def test_no_strip_without_zeros(small: Study) -> None:
    figure = figures.activation_by_layer(*small[:2], small.layers)
    assert zeros(figure) == 0
    assert "zero" not in [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_band_needs_two_seeds() -> None:
    axes = {"activation": ["relu", "tanh"]}
    many, one = make(axes=axes), make(axes=axes, seeds=1)
    assert figures.gradient_by_layer(*many[:2], many.layers).axes[0].collections
    assert not figures.gradient_by_layer(*one[:2], one.layers).axes[0].collections


def test_missing_layers_are_gaps(small: Study) -> None:
    layers = small.layers.copy()
    layers.loc[layers["layer"] == 4, "gradient_log10_second_moment"] = math.nan
    figure = figures.gradient_by_layer(*small[:2], layers)
    assert np.isnan(figure.axes[0].lines[0].get_ydata()[4])


def test_everything_missing_is_still_drawn(small: Study) -> None:
    layers = small.layers.assign(gradient_log10_second_moment=math.nan)
    files = style.render(figures.gradient_by_layer(*small[:2], layers))
    assert files["png"].startswith(b"\x89PNG")


def test_lines_differ_in_color_and_marker(study: Study) -> None:
    figure = figures.gradient_by_layer(*study[:2], study.layers)
    drawn = [line for line in figure.axes[0].lines if line.get_gid() is None]
    assert (
        len(drawn)
        == len({line.get_color() for line in drawn})
        == len({line.get_marker() for line in drawn})
        == 4
    )


def test_rows_of_another_depth_have_their_own_axis(small: Study) -> None:
    figure = figures.gradient_by_layer(*small[:2], small.layers)
    layout = choose(*small[:2])
    ends = {axes.get_xlim()[1] for axes in figure.axes[: len(layout.panels())]}
    assert [round(end) for end in sorted(ends)] == [9, 30]
