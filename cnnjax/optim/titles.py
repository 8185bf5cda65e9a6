"""Optimizers and schedules in words."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cnnjax.optim.optimizers import Optimizer
from cnnjax.optim.schedules import Schedule


def title(value: Optimizer | Schedule) -> str:
    """The name and all that is not as by default, "sgd(momentum=0.9, clip=norm)": equal ones have equal titles."""
    usual = type(value)()
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    changed = {name: each for name, each in fields.items() if each != getattr(usual, name)}
    changed.pop("name", None)
    options: Mapping[str, Any] = changed.pop("options", {})
    said = ", ".join(f"{name}={_in_order(each)}" for name, each in {**_in_order(options), **changed}.items())
    return f"{value.name}({said})" if said else value.name


def _in_order(value: Any) -> Any:
    """Mappings are equal in any order."""
    return dict(sorted(value.items())) if isinstance(value, Mapping) else value
