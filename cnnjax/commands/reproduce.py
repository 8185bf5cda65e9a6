"""`cnnjax reproduce`: a published result by its name, at a laptop's scale or at the paper's."""

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from cnnjax.commands.options import RunOptions
from cnnjax.commands.run import load_study, prepare_devices, run_study

PAPERS = Path("experiments") / "papers"

TIERS = {"small": "STUDY", "full": "FULL"}
"""The constant of a paper's file that holds the study of each tier."""


@dataclasses.dataclass(frozen=True)
class Reproduce:
    """Run the study of a paper and say which of its claims hold: agree, disagree, or not tested."""

    options: Annotated[RunOptions, arg(name="")]
    name: Annotated[Positional[str | None], arg(metavar="NAME", help_behavior_hint="")] = None
    """The paper, as --list shows them."""
    tier: Literal["small", "full"] = "small"
    """Minutes on two cores, or the paper's own setting, for a GPU."""
    list: Annotated[bool, arg(help_behavior_hint="")] = False
    """Show which papers there are."""
    experiments: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint=f"(default: {PAPERS})")] = None
    """The folder with the papers' files."""

    def __call__(self, command: str) -> int:
        """Runs the paper's study, or lists the papers."""
        papers = find_papers(self.experiments)
        if self.list:
            for line in listing(papers):
                print(line)
            return 0
        if self.name is None:
            raise ValueError(f"name a paper ({', '.join(papers)}), or see --list")
        from cnnjax.functional.names import lookup

        file = lookup(papers, self.name, "paper")
        prepare_devices()
        return run_study(load_study(file, TIERS[self.tier]), self.options, command)


def find_papers(folder: Path | None = None) -> dict[str, Path]:
    """The files of the papers by name, in `experiments/papers` of the working copy or in a folder.

    Raises:
      ValueError: there is none.
    """
    where = folder or PAPERS
    found = {file.stem: file for file in sorted(where.glob("*.py"))}
    if not found:
        raise ValueError(
            f"no papers in {where.resolve()}: call it in a working copy of cnnjax, or name a folder with --experiments"
        )
    return found


def listing(papers: dict[str, Path]) -> Iterator[str]:
    """A line for each paper: its name and the first line of its file."""
    width = max(map(len, papers))
    for name, file in papers.items():
        documentation = ast.get_docstring(ast.parse(file.read_text())) or ""
        yield f"{name:<{width}}  {documentation.split(chr(10))[0]}"
