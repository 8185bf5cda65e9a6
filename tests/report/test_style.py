import pytest

from cnnjax.report import style
from cnnjax.report.tables import Axis


@pytest.mark.parametrize(("exponent", "text"), [(0, "10⁰"), (-12, "10⁻¹²"), (3.0, "10³")])
def test_power(exponent: float, text: str) -> None:
    assert style.power(exponent) == text


@pytest.mark.parametrize(("color", "ink"), [((1, 1, 1, 1), "#111111"), ((0, 0.1, 0.3, 1), "white")])
def test_contrast(color: tuple[float, ...], ink: str) -> None:
    assert style.contrast(color) == ink


@pytest.mark.parametrize("numeric", [True, False])
@pytest.mark.parametrize("count", [1, 2, 10])
def test_colors_are_distinct(numeric: bool, count: int) -> None:
    found = style.colors(Axis("axis", tuple(map(str, range(count))), numeric))
    assert len(set(found)) == count <= len(style.MARKERS)
