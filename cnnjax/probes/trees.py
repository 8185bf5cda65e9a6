"""Trees of dictionaries, as Flax keeps variables in, addressed by paths."""

import functools
from typing import Any

from cnnjax.probes.points import Path


def at_path(tree: Any, path: Path) -> Any:
    """What a tree holds at a path."""
    return functools.reduce(lambda node, name: node[name], path, tree)


def put_at_path(tree: dict[str, Any], path: Path, value: Any) -> None:
    """Puts `value` into a tree, and makes the dictionaries that are missing on the way."""
    node = functools.reduce(lambda node, name: node.setdefault(name, {}), path[:-1], tree)
    node[path[-1]] = value


def tree_with(path: Path, value: Any) -> dict[str, Any]:
    """A tree that holds nothing but `value`, at a path."""
    tree: dict[str, Any] = {}
    put_at_path(tree, path, value)
    return tree
