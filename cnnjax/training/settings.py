"""Whether a run goes on with the settings that it was begun with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raises ValueError, with what differs, where a run was begun with other settings."""
    before, now = flattened(before), flattened(now)
    differing = [
        f"{name}: {before.get(name)!r} before, {now.get(name)!r} now"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if differing:
        raise ValueError(
            f"the run in {folder} was begun with other settings ({'; '.join(differing)}): go on with those, or begin "
            "another run in another folder"
        )


def flattened(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """A tree of mappings as one mapping from dotted names."""
    found = {}
    for name, value in tree.items():
        inner = isinstance(value, Mapping) and value
        found |= flattened(value, f"{before}{name}.") if inner else {f"{before}{name}": value}
    return found
