import math

import numpy as np
import pytest
from matplotlib.collections import QuadMesh

from cnnjax import probes
from cnnjax.report import style
from cnnjax.report.run_layers import COLUMNS, ROWS, gradient_ratios, layer_maps
from cnnjax.training import journal

from ..made_up_run import make_run


def looks(tmp_path, **options):
    return journal.read_layers(make_run(tmp_path / "a", every=6400, evaluated=(), **options))


def drawn(plate):
    """The values of a map, `(layers, looks)`, and where its columns begin and end."""
    (mesh,) = (c for c in plate.figure.axes[0].collections if isinstance(c, QuadMesh))
    return np.ma.filled(mesh.get_array(), np.nan), mesh.get_coordinates()[0, :, 0]


def test_the_gradient_leads_and_the_rest_is_folded(tmp_path):
    layers = looks(tmp_path)
    found = list(layer_maps(layers))
    names = ["gradient_by_layer", "activation_by_layer", "saturated_by_layer", "dead_by_layer"]
    assert [plate.name for plate in found] == names
    assert [plate.folded for plate in found] == [False, True, True, True]
    values, edges = drawn(found[0])
    expected = layers["gradient_log10_second_moment"].to_numpy().reshape(9, 20).T
    np.testing.assert_allclose(values, expected)
    np.testing.assert_allclose(edges, np.arange(-400, 6801, 800))
    assert len(found[0].table) == len(layers)
    labels = [label.get_text() for label in found[0].figure.axes[0].get_yticklabels()]
    assert labels == layers["path"][:20].tolist()


def test_the_ratio_is_that_of_the_probes(tmp_path):
    layers = looks(tmp_path, slope=0.3)
    ratios = gradient_ratios(layers)
    moments = layers["gradient_log10_second_moment"].to_numpy().reshape(9, 20)
    for row, look in zip(ratios.itertuples(), moments, strict=True):
        table = np.full((20, len(probes.COLUMNS)), np.nan)
        table[:, probes.COLUMNS.index("gradient_log10_second_moment")] = look
        flow = probes.Flow(("layer",) * 20, ("relu",) * 19 + ("identity",), table)
        assert row.ratio_log10 == pytest.approx(probes.gradient_ratio(flow))
        assert row._asdict()["_2"] == probes.classify(flow)


@pytest.mark.parametrize(
    ("moments", "ratio"),
    [
        ([-3.0, 0.0, 7.0], -3.0),
        ([-math.inf, 0.0, 7.0], -math.inf),
        ([-math.inf, -math.inf, 7.0], -math.inf),
        ([math.nan, 0.0, 7.0], math.nan),
        ([2.0], 0.0),
    ],
)
def test_ratios_at_the_ends(tmp_path, moments, ratio):
    look = {
        "step": 0,
        "class": "",
        "layers": list(map(str, moments)),
        "gradient_log10_second_moment": moments,
    }
    journal.append(tmp_path / "layers.jsonl", look)
    found = gradient_ratios(journal.read_layers(tmp_path))["ratio_log10"].tolist()
    assert found == pytest.approx([ratio], nan_ok=True)


def test_zeros_and_what_is_not_finite_are_told_apart(tmp_path):
    layers = looks(tmp_path, layers=4)
    column = "gradient_log10_second_moment"
    layers.loc[(layers["step"] == 800) & (layers["layer"] == 0), column] = -math.inf
    layers.loc[layers["step"] == 1600, column] = math.nan
    plate = next(layer_maps(layers))
    values, _ = drawn(plate)
    (mesh,) = (c for c in plate.figure.axes[0].collections if isinstance(c, QuadMesh))
    assert values[0, 1] < mesh.norm.vmin <= np.nanmin(values[:, 3:])
    assert np.isnan(values[:, 2]).all() and np.isfinite(np.delete(values, 2, axis=1)).all()
    for words in ("Gray: exactly zero", "White: not finite", "Triangles: exactly zero"):
        assert words in plate.caption
    style.render(plate.figure)


def test_what_is_zero_everywhere_or_unknown_has_no_map(tmp_path):
    layers = looks(tmp_path, layers=4).assign(dead=0.0, saturated=math.nan, log10_second_moment=math.nan)
    assert [plate.name for plate in layer_maps(layers)] == ["gradient_by_layer"]
    assert not list(layer_maps(layers.head(0)))
    assert list(gradient_ratios(layers.head(0)).columns) == ["step", "class", "ratio_log10"]


def test_deep_nets_and_many_looks_are_thinned(tmp_path):
    layers = looks(tmp_path, steps=6400, look_every=10, layers=ROWS + 50)
    plate = next(layer_maps(layers))
    values, _ = drawn(plate)
    assert values.shape == (ROWS, COLUMNS)
    corners = layers.set_index(["layer", "step"])["gradient_log10_second_moment"]
    last = ROWS + 49
    assert values[0, 0] == corners[0, 0] and values[-1, -1] == corners[last, 6400]
    assert f"{ROWS} of {ROWS + 50} layers" in plate.caption and f"{COLUMNS} of 641 looks" in plate.caption
    assert plate.figure.axes[0].get_ylabel() == "layer, from the input"


def test_one_look_at_one_layer(tmp_path):
    layers = looks(tmp_path, look_every=6400, layers=1)
    layers = layers[layers["step"] == 6400].assign(
        path=r"a $name$ \of some length, longer than there is room for"
    )
    for plate in layer_maps(layers):
        style.render(plate.figure)
    plate = next(layer_maps(layers))
    assert plate.figure.axes[0].get_yticklabels()[0].get_text().startswith("…")
