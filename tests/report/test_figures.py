import sys

import matplotlib
import pytest

from cnnjax.report import figures, style

from .synthetic import Study

BY_LAYER = [
    "gradient_by_layer",
    "activation_by_layer",
    "saturation_by_layer",
    "dead_by_layer",
    "correlation_by_layer",
]


def draw(name: str, study: Study) -> matplotlib.figure.Figure:
    function = getattr(figures, name)
    if name in BY_LAYER:
        return function(*study[:2], study.layers)
    return function(*study[:2], study.curves) if name.endswith("by_step") else function(*study[:2])


@pytest.mark.parametrize("name", figures.__all__)
def test_every_figure_leaves_no_trace_and_stays_small(study: Study, name: str) -> None:
    before = dict(matplotlib.rcParams)
    files = style.render(draw(name, study))
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
    assert files["png"].startswith(b"\x89PNG")
    assert len(files["svg"]) < 300_000


def test_same_tables_give_the_same_bytes(small: Study) -> None:
    first, second = (style.render(figures.gradient_by_layer(*small[:2], small.layers)) for _ in range(2))
    assert first == second


def test_ten_thousand_layers_make_a_small_figure() -> None:
    from .synthetic import make

    study = make(axes={"depth": [10, 100, 10_000]}, seeds=2, rates=(0.1,), steps=0)
    figure = figures.gradient_by_layer(*study[:2], study.layers)
    assert len(style.render(figure)["svg"]) < 100_000
    assert max(len(line.get_xdata()) for line in figure.axes[0].lines) <= 160
