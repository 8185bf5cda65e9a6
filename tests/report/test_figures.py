import sys

import matplotlib
import numpy as np
import pytest

from cnnjax.report import figures, style

from .synthetic import Study, gaussian, make, singular_values
from .test_attribution import table

BY_LAYER = [
    "gradient_by_layer",
    "activation_by_layer",
    "saturation_by_layer",
    "dead_by_layer",
    "correlation_by_layer",
]


def spectra() -> matplotlib.figure.Figure:
    study = make(axes={"activation": ["relu", "tanh"]}, steps=0)
    values = np.random.default_rng(0).lognormal(size=(2, 3, 100))
    measures = singular_values(study, {"relu": values[0], "tanh": values[1]})
    return figures.singular_values(study.info, study.runs, measures)


def contest() -> matplotlib.figure.Figure:
    study = make(axes={"initializer": ["he_normal", "xavier_normal"], "depth": [10, 22, 30]})
    return figures.initializer_curves(*study[:2], study.curves)


OF_THEIR_OWN = {
    "attribution": lambda: figures.attribution(table()),
    "correlation_map": lambda: figures.correlation_map("tanh", sigma_w2=[1.0, 2.0], sigma_b2=0.05),
    "initializer_curves": contest,
    "phase_diagram": lambda: figures.phase_diagram("gelu", sigma_w2=(0.5, 2.5), sigma_b2=(0.2, 1.0)),
    "singular_values": spectra,
    "trainability_map": lambda: figures.trainability_map(*gaussian([1.0, 2.5], [4, 16])[:2]),
}


def draw(name: str, study: Study) -> matplotlib.figure.Figure:
    if name in OF_THEIR_OWN:
        return OF_THEIR_OWN[name]()
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
    study = make(axes={"depth": [10, 100, 10_000]}, seeds=2, rates=(0.1,), steps=0)
    figure = figures.gradient_by_layer(*study[:2], study.layers)
    assert len(style.render(figure)["svg"]) < 100_000
    assert max(len(line.get_xdata()) for line in figure.axes[0].lines) <= 160
