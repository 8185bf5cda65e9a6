"""`cnnjax models`: the architectures in a table, or the options of one."""

import dataclasses
from typing import Annotated

from tyro.conf import Positional, arg


@dataclasses.dataclass(frozen=True)
class Models:
    """List the architectures with their parameters, inputs and papers, or the options of one."""

    name: Annotated[Positional[str | None], arg(metavar="NAME", help_behavior_hint="(none: list them)")] = (
        None
    )
    """A model, whose options are listed with their defaults."""

    def __call__(self, command: str) -> int:
        """Prints the table."""
        from rich.table import Table

        from cnnjax import models
        from cnnjax.commands.cells import console

        if self.name is not None:
            for option, default in models.options(self.name).items():
                print(f"{option}={getattr(default, '__name__', default)}")
            return 0
        table = Table(title=f"{len(models.VARIANTS)} models", title_justify="left")
        for title in ("family", "model"):
            table.add_column(title, no_wrap=True)
        for title in ("parameters", "input"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("paper")
        families: dict[str, list[str]] = {}
        for name, variant in models.VARIANTS.items():
            families.setdefault(variant.family.__name__, []).append(name)
        for family, members in families.items():
            for i, name in enumerate(members):
                variant = models.VARIANTS[name]
                table.add_row(
                    "" if i else family,
                    name,
                    f"{models.PARAMETERS[name]:,}",
                    "x".join(map(str, variant.image)),
                    variant.paper,
                )
        console().print(table)
        print("cnnjax models NAME: its options; cnnjax summary NAME: its layers")
        return 0
