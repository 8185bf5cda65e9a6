import math

import numpy as np
import pandas as pd
import pytest

from cnnjax.probes import product_density
from cnnjax.report import captions, figures, spectra

from .synthetic import Study, make, singular_values

WIDTH = 64
NETWORKS = {
    "Gaussian": {"activation": "identity", "initializer": "gaussian", "depth": 4},
    "orthogonal": {"activation": "identity", "initializer": "orthogonal", "depth": 66, "gain": 1.01},
    "ReLU": {"activation": "relu", "initializer": "orthogonal", "depth": 66},
}


def study(networks: dict[str, dict]) -> Study:
    made = make(axes={"network": list(networks)}, seeds=8, rates=(0.1,), steps=0)
    config = {"model": "mlp", "options": {"width": WIDTH}, "grid": {"network": networks}}
    return made._replace(info=made.info | {"config": config})


@pytest.fixture(scope="module")
def linear() -> Study:
    return study(NETWORKS)


@pytest.fixture(scope="module")
def measures(linear: Study) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    kernels = rng.normal(0, 1 / math.sqrt(WIDTH), (2, 8, WIDTH, WIDTH))
    rows = {
        "Gaussian": np.linalg.svd(kernels[0] @ kernels[1], compute_uv=False),
        "orthogonal": 1.01**64 * (1 + rng.uniform(-1e-6, 1e-6, (8, WIDTH))),
        "ReLU": np.where(np.arange(WIDTH) < 48, rng.uniform(0.5, 2, (8, WIDTH)), 0.0),
    }
    return singular_values(linear, rows)


@pytest.fixture(scope="module")
def table(linear: Study, measures: pd.DataFrame) -> pd.DataFrame:
    return spectra.spectra(linear.info, linear.runs, measures)


def mass(own: pd.DataFrame, column: str) -> float:
    return float((own[column] * np.log10(own["high"] / own["low"])).sum())


def test_bars_integrate_to_one_but_for_what_is_not_resolved(table: pd.DataFrame) -> None:
    by_network = {name: own for name, own in table.groupby("network")}
    assert mass(by_network["Gaussian"], "density") == pytest.approx(1)
    assert mass(by_network["orthogonal"], "density") == pytest.approx(1)
    assert mass(by_network["ReLU"], "density") == pytest.approx(0.75)
    assert by_network["ReLU"]["lost"].to_numpy() == pytest.approx(0.25)
    assert by_network["Gaussian"]["count"].sum() == 8 * WIDTH


def test_prediction_of_two_gaussian_kernels(table: pd.DataFrame) -> None:
    own = table[table["network"] == "Gaussian"]
    # The mean over a bin of the density by decade, s log(10) p(s), by the midpoint rule.
    s = 10 ** ((np.log10(own["low"]) + np.log10(own["high"])) / 2).to_numpy()
    inner = slice(5, -3)
    expected = s * math.log(10) * product_density(s, depth=2)
    assert own["predicted"].to_numpy()[inner] == pytest.approx(expected[inner], rel=0.02)
    # 512 values: the largest distance of the distributions at 1 % significance is 1.63 / sqrt(512).
    distance = np.cumsum((own["density"] - own["predicted"]) * np.log10(own["high"] / own["low"]))
    assert np.abs(distance).max() < 1.63 / math.sqrt(8 * WIDTH)


def test_orthogonal_kernels_have_one_value_and_one_bar(table: pd.DataFrame) -> None:
    own = table[table["network"] == "orthogonal"]
    (i,) = np.flatnonzero(own["count"])
    assert own["low"].iloc[i] < 1.01**64 < own["high"].iloc[i]
    assert own["predicted"].to_numpy() == pytest.approx(own["density"].to_numpy())
    assert own["spread"].iloc[0] == pytest.approx(1, abs=1e-5)


def test_nothing_is_predicted_for_other_networks(table: pd.DataFrame) -> None:
    assert table.loc[table["network"] == "ReLU", "predicted"].isna().all()


def test_nothing_is_predicted_for_another_number_of_values(linear: Study, measures: pd.DataFrame) -> None:
    found = spectra.spectra(linear.info, linear.runs, measures[measures["index"] < 10])
    assert found["predicted"].isna().all()


def test_a_panel_per_cell_shows_the_table(linear: Study, table: pd.DataFrame, measures: pd.DataFrame) -> None:
    figure = figures.singular_values(linear.info, linear.runs, measures)
    assert [axes.get_title() for axes in figure.axes] == list(NETWORKS)
    for axes, name in zip(figure.axes, NETWORKS, strict=True):
        own = table[table["network"] == name]
        drawn = {patch.get_gid(): patch.get_data() for patch in axes.patches}
        np.testing.assert_array_equal(drawn["measured"].values, own["density"])
        np.testing.assert_array_equal(drawn["measured"].edges[1:], own["high"])
        assert ("predicted" in drawn) == (name != "ReLU")
    assert "25 % unresolved" in figure.axes[2].texts[0].get_text()


def test_caption_says_what_is_there(linear: Study, table: pd.DataFrame) -> None:
    caption = captions.singular_values(linear.info, table)
    assert (
        "of 8 networks each" in caption
        and "Dashed: wide linear networks" in caption
        and "Unresolved" in caption
    )
    relu = table[table["network"] == "ReLU"]
    assert "Dashed" not in captions.singular_values(linear.info, relu)


def test_many_cells_show_the_first_ones() -> None:
    networks = {f"net {i}": {"activation": "relu"} for i in range(14)}
    many = study(networks)
    rows = {name: np.ones((8, 3)) for name in networks}
    found = spectra.spectra(many.info, many.runs, singular_values(many, rows))
    figure = spectra.draw_spectra(many.info, found)
    assert sum(axes.get_visible() for axes in figure.axes) == spectra.PANELS == 12
    assert "The first 12 of 14 cells" in captions.singular_values(many.info, found)


def test_networks_that_are_not_finite_or_zero(linear: Study, measures: pd.DataFrame) -> None:
    broken = measures.assign(value=measures["value"].where(measures["run"] != 0))
    found = spectra.spectra(linear.info, linear.runs, broken)
    assert found.groupby("network")["n"].first().to_dict() == {"Gaussian": 7, "orthogonal": 8, "ReLU": 8}
    zero = spectra.spectra(linear.info, linear.runs, measures.assign(value=0.0))
    assert (zero["lost"] == 1).all() and (zero["density"] == 0).all()
    assert spectra.draw_spectra(linear.info, zero).axes


@pytest.mark.parametrize("name", ["singular_values", "largest"])
def test_measures_without_the_vector(linear: Study, measures: pd.DataFrame, name: str) -> None:
    other = measures[measures["index"] == 0].assign(measure=name)
    text = (
        f"expected a finite vector called 'singular_values' among the measures of 'synthetic'; it has {name}."
    )
    with pytest.raises(ValueError, match=text):
        figures.singular_values(linear.info, linear.runs, other)
