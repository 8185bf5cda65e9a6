from typing import Any

import pytest

from cnnjax.report.layout import choose, slices

from .synthetic import Study, make


def test_demo_grid(study: Study) -> None:
    layout = choose(study.info, study.runs)
    assert layout.color and layout.columns
    assert layout.color.name == "architecture"
    assert layout.columns.name == "activation"
    assert [axis.name for axis in layout.rows] == ["initializer", "depth"]
    assert not layout.fixed
    assert len(layout.panels()) == 12


def test_lead_shows_the_telling_slice(study: Study) -> None:
    layout = choose(study.info, study.runs, max_panels=8)
    # Gradients differ more in deeper networks.
    assert layout.fixed == {"depth": "30"}
    assert layout.shown == "depth 30"
    assert set(layout.select(study.runs.assign(depth=study.runs["depth"].astype(str)))["depth"]) == {"30"}


def roles(axes: dict[str, list[Any]]) -> tuple[str | None, str | None, list[str], list[str]]:
    study = make(axes=axes, seeds=1, rates=(0.1,), steps=0)
    layout = choose(study.info, study.runs)
    names = [axis.name if axis else None for axis in (layout.color, layout.columns)]
    return names[0], names[1], [axis.name for axis in layout.rows], list(layout.fixed)


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        # A long ordered axis is a ramp of colors.
        (
            {"initializer": ["he_normal", "xavier_normal"], "depth": [2, 4, 6, 8, 10]},
            ("depth", "initializer", [], []),
        ),
        # Too many values for colors: wrapped panels.
        ({"activation": [f"a{i}" for i in range(13)], "depth": [2, 4]}, ("depth", "activation", [], [])),
        ({"depth": [4]}, (None, None, [], [])),
        ({"depth": [4, 8]}, ("depth", None, [], [])),
        ({}, (None, None, [], [])),
    ],
)
def test_roles(axes: dict[str, list[Any]], expected: tuple[Any, ...]) -> None:
    assert roles(axes) == expected


def test_wrapped_panels_fill_rows_of_five() -> None:
    study = make(axes={"activation": [f"a{i}" for i in range(13)]}, seeds=1, rates=(0.1,), steps=0)
    layout = choose(study.info, study.runs)
    assert layout.wrap
    assert [(panel.row, panel.column) for panel in layout.panels()][-3:] == [(2, 0), (2, 1), (2, 2)]


def test_slices_start_with_the_shown_one_and_cover_the_grid(study: Study) -> None:
    layout = choose(study.info, study.runs, max_panels=4)
    found = slices(study.info, layout)
    assert found[0] == layout
    assert len({tuple(part.fixed.values()) for part in found}) == len(found) == 4
