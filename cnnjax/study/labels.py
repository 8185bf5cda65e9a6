"""How values of the grid are called in the tables."""

from collections.abc import Mapping
from typing import Any

from cnnjax.optim import Optimizer, Schedule, title


def label(value: Any) -> Any:
    """A value of an axis as it stands in the tables: numbers and strings stay, None is "none", True "yes"."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Optimizer | Schedule):
        return title(value)
    if not isinstance(value, int | float | str):
        return getattr(value, "name", None) or getattr(value, "__name__", None) or str(value).lower()
    return value


def axis_labels(grid: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The values of each axis of a grid as they stand in the tables; of named variants the names."""
    return {axis: [label(value) for value in values] for axis, values in grid.items()}
