"""The types of tables inside this package.

pandas annotates every column access as a union of all that it could return, which makes a type checker complain where
nothing is wrong. Inside the package tables are therefore unchecked; the public functions say `pandas.DataFrame`.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

__all__ = ["Column", "Frame", "Info"]

# A pandas.DataFrame.
Frame: TypeAlias = Any
# A pandas.Series: a column or a row of a table.
Column: TypeAlias = Any
# What study.json holds.
Info: TypeAlias = Mapping[str, Any]
