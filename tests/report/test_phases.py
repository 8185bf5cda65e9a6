import numpy as np
import pytest

from cnnjax.report import figures, phases

# Critical line of tanh by quadrature, computed apart from this package's (sigma_b2: sigma_w2).
CRITICAL = {0.001: 1.18919, 0.01: 1.42421, 0.05: 1.76095, 0.1: 1.98607, 0.2: 2.28515, 0.3: 2.50513}


@pytest.fixture(scope="module")
def axes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phases, "NODES", (11, 7))
        return figures.phase_diagram("tanh", sigma_w2=(0.5, 3.0), sigma_b2=(0.0, 0.3)).axes[0]


def test_the_critical_line_passes_through_the_known_points(axes) -> None:
    (line,) = (item for item in axes.lines if item.get_gid() == "critical")
    sigma_w2, sigma_b2 = line.get_data()
    assert (sigma_b2[0], sigma_b2[-1]) == (0, 0.3) and sigma_w2[0] == pytest.approx(1)
    assert np.interp(list(CRITICAL), sigma_b2, sigma_w2) == pytest.approx(list(CRITICAL.values()), rel=2e-3)


def test_both_phases_are_named_on_their_side(axes) -> None:
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert set(places) == {"ordered", "chaotic"}
    assert places["ordered"][0] < 1.8 < 2 < places["chaotic"][0]


def test_nodes_are_ordered_left_of_the_line_and_chaotic_right_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "NODES", (9, 5))
    nodes = phases.phases("tanh", sigma_w2=(0.5, 3.0), sigma_b2=(0.01, 0.3))
    line = phases.critical_points("tanh", (0.01, 0.3))
    right = nodes["sigma_w2"] > np.interp(nodes["sigma_b2"], line["sigma_b2"], line["sigma_w2"])
    assert (nodes["phase"] == np.where(right, "chaotic", "ordered")).all()
    assert nodes["xi_c"].to_numpy() == pytest.approx(-1 / np.log(nodes["chi_c"].to_numpy()))


def test_where_the_second_moment_diverges_there_is_no_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "NODES", (5, 3))
    figure = figures.phase_diagram("gelu", sigma_w2=(1.0, 4.0), sigma_b2=(0.2, 1.0))
    assert {text.get_text() for text in figure.axes[0].texts} == {"ordered", "no fixed point"}


@pytest.mark.parametrize(
    ("activation", "ranges", "text"),
    [
        ("relu", {}, r"no critical line for sigma_b2 from 0 to 0.5: relu has no critical line"),
        (
            "tanh",
            {"sigma_w2": (0.0, 2.0)},
            r"sigma_w2 must be a lowest value, above 0, and a highest one above it; got",
        ),
        ("tanh", {"sigma_b2": (0.2, 0.1)}, r"sigma_b2 must be a lowest value, 0 or more, .*got \(0.2, 0.1\)"),
        ("tahn", {}, "did you mean 'tanh'"),
    ],
)
def test_bad_input(activation: str, ranges: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        figures.phase_diagram(activation, **ranges)
