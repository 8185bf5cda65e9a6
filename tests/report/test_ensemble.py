from typing import Any

import pytest

from cnnjax.report.ensemble import gaussian_grid, options_of

GRID = {"sigma_w2": {"1": {"gain": 1.0}, "2.5": {"gain": 2.5**0.5}}, "depth": [4, 16]}
OPTIONS = {"activation": "tanh", "initializer": "gaussian", "bias_std": 0.05**0.5}


def info(
    grid: dict[str, Any] | None = None, *, model: str = "mlp", options: dict[str, Any] | None = None
) -> dict[str, Any]:
    grid = GRID if grid is None else grid
    axes = {name: list(values) for name, values in grid.items()}
    config = {"model": model, "options": OPTIONS | (options or {}), "grid": grid}
    return {"name": "one", "axes": axes, "config": config}


def test_squares_come_back_from_their_roots() -> None:
    found = gaussian_grid(info())
    assert found.sigma_w2 == {"1": 1.0, "2.5": 2.5}
    assert (found.activation, found.sigma_b2, found.axis) == ("tanh", 0.05, "sigma_w2")


def test_an_axis_of_numbers_and_one_of_a_single_value() -> None:
    found = gaussian_grid(info({"gain": [1, 2.0], "depth": [4, 16], "activation": ["softsign"]}))
    assert found.sigma_w2 == {"1": 1.0, "2": 4.0}
    assert found.activation == "softsign"


def test_options_of_a_cell_and_the_defaults_of_its_model() -> None:
    found = options_of(info(), {"sigma_w2": "2.5", "depth": "16"})
    assert found["gain"] == 2.5**0.5 and found["depth"] == 16
    assert found["width"] == 256 and found["skip"] is False


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        (
            info({"depth": [4, 16]}),
            r"two axes, depth and one that sets the gain and nothing else; 'one' has the axes depth",
        ),
        (info({"gain": [1, 2], "width": [4, 16]}), "has the axes gain, width"),
        (info(GRID | {"seed_of_data": [0, 1]}), "has the axes sigma_w2, depth, seed_of_data"),
        (
            info({"point": {"a": {"gain": 1.0, "bias_std": 0.1}, "b": {"gain": 2.0}}, "depth": [4, 16]}),
            "has the axes point, depth",
        ),
        (info(model="cifar_resnet"), "expected a study of mlp or plain; 'one' is one of cifar_resnet"),
        (
            info(options={"initializer": "he_normal"}),
            "expects initializer='gaussian'; 'one' has initializer='he_normal'",
        ),
        (info(options={"norm": "batch"}), "expects norm=None; 'one' has norm='batch'"),
        (info(options={"skip": True}), "expects skip=False; 'one' has skip=True"),
        (info(model="plain"), "expects padding='CIRCULAR'; 'one' has padding='SAME'"),
    ],
)
def test_other_studies(changed: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        gaussian_grid(changed)
