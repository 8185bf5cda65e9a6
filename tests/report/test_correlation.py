import math

import numpy as np
import pytest

from cnnjax.probes import mean_field
from cnnjax.report import correlation, figures

from .synthetic import Study, gaussian

SIGMA_W2 = [1.0, 2.5]


@pytest.fixture(scope="module")
def grid() -> Study:
    return gaussian(SIGMA_W2, [4, 30], steps=0)


@pytest.fixture(scope="module")
def lines(grid: Study) -> dict[str, np.ndarray]:
    measured = correlation.measured_pairs(grid.info, grid.runs, grid.layers)
    axes = figures.correlation_map("tanh", sigma_w2=SIGMA_W2, sigma_b2=0.05, measured=measured).axes[0]
    return {line.get_gid(): np.array(line.get_data()) for line in axes.lines}


def test_the_diagonal(lines: dict[str, np.ndarray]) -> None:
    assert lines["diagonal"].tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("value", SIGMA_W2)
def test_fixed_points_lie_on_the_diagonal_and_on_their_map(
    lines: dict[str, np.ndarray], value: float
) -> None:
    c_star = mean_field("tanh", sigma_w2=value, sigma_b2=0.05).c_star
    assert lines[f"fixed-{value:g}"].ravel().tolist() == [c_star, c_star]
    assert np.interp(c_star, *lines[f"map-{value:g}"]) == pytest.approx(c_star, abs=1e-4)


@pytest.mark.parametrize("value", SIGMA_W2)
def test_the_map_ends_at_one_with_slope_chi_1(lines: dict[str, np.ndarray], value: float) -> None:
    c, following = lines[f"map-{value:g}"]
    slope = np.gradient(following, c, edge_order=2)[-1]
    assert following[-1] == pytest.approx(1)
    assert slope == pytest.approx(mean_field("tanh", sigma_w2=value, sigma_b2=0.05).chi_1, rel=2e-3)


def test_the_map_of_relu_in_closed_form() -> None:
    # Cho and Saul 2009: (sqrt(1 - c^2) + (pi - arccos c) c) / pi.
    points = correlation.fixed_points("relu", sigma_w2=[2.0], sigma_b2=0.0)
    curve = correlation.correlation_maps("relu", points, sigma_b2=0.0)
    c = curve["c"].to_numpy()
    expected = (np.sqrt(1 - c**2) + (math.pi - np.arccos(c)) * c) / math.pi
    assert curve["next"].to_numpy() == pytest.approx(expected, abs=1e-6)


def test_measured_pairs_are_means_of_neighbors_in_the_deepest_networks(
    grid: Study, lines: dict[str, np.ndarray]
) -> None:
    runs = grid.runs.query("sigma_w2 == '1' and depth == 30 and selected")["run"]
    values = grid.layers[grid.layers["run"].isin(runs)].pivot(
        index="layer", columns="run", values="correlation"
    )
    means = values.mean(axis=1).to_numpy()
    drawn = lines["measured-1"]
    assert drawn.shape == (2, correlation.LAYERS)
    np.testing.assert_allclose(drawn, [means[: correlation.LAYERS], means[1 : correlation.LAYERS + 1]])


def test_the_head_is_left_out(grid: Study) -> None:
    layers = grid.layers.copy()
    layers.loc[layers["layer"] == 3, "path"] = "head"
    found = correlation.measured_pairs(grid.info, grid.runs, layers)
    expected = layers[layers["path"] != "head"].groupby("run")["correlation"].nth(3).mean()
    assert found["next"].notna().all() and expected > 0
    assert not found["layer"].eq(3).any()


def test_without_a_second_moment_there_is_no_correlation() -> None:
    with pytest.raises(
        ValueError, match="the second moment falls to 0 with tanh, sigma_w2 = 0.5 and sigma_b2 = 0"
    ):
        figures.correlation_map("tanh", sigma_w2=[0.5], sigma_b2=0.0)
