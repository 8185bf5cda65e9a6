"""Look-up in a table of named variants, with an error that helps."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

Value = TypeVar("Value")


def lookup(table: Mapping[str, Value], name: str, kind: str) -> Value:
    """Return the entry of `table` called `name`; `kind` is what errors call it ("activation").

    Raises:
      TypeError: `name` is not a string.
      ValueError: `table` has no such entry; the text gives the nearest name and all known ones.
    """
    known = f"Known: {', '.join(sorted(table))}"
    if not isinstance(name, str):
        raise TypeError(f"the name of the {kind} must be a string, got {name!r}. {known}")
    if name not in table:
        nearest = get_close_matches(name.lower(), table, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
        raise ValueError(f"unknown {kind} {name!r}{hint} {known}")
    return table[name]
