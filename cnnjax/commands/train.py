"""`cnnjax train` and `cnnjax resume`: a run from its recipe to its page."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hosts:
    """Several processes that train one network; under Slurm, Kubernetes or on a TPU pod the environment says enough."""

    coordinator: Annotated[str | None, arg(metavar="HOST:PORT", help_behavior_hint="")] = None
    """Address of the first process (or CNNJAX_COORDINATOR)."""
    processes: Annotated[int | None, arg(metavar="N", help_behavior_hint="")] = None
    """How many there are (or CNNJAX_PROCESSES)."""
    process: Annotated[int | None, arg(metavar="K", help_behavior_hint="")] = None
    """The number of this one, from 0 (or CNNJAX_PROCESS)."""

    def join(self) -> None:
        """Joins the others before JAX starts."""
        from cnnjax.training import hosts

        hosts.initialize(coordinator=self.coordinator, processes=self.processes, process=self.process)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Train a network by a recipe: a preset, and options in the place of its values (`cnnjax train --help`)."""

    def __call__(self, command: str) -> int:
        """Trains by the default preset. A line with a preset or options is read by `recipe_options.read`."""
        from cnnjax.commands.recipe_options import read

        return read([])(command)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resume:
    """Go on with a run from its newest checkpoint, on these or other devices."""

    folder: Annotated[Positional[Path], arg(metavar="DIR", help_behavior_hint="")]
    """The folder of the run."""
    devices: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: as before)")] = None
    """How many devices."""
    by: Annotated[Literal["jit", "pmap"] | None, arg(help_behavior_hint="(default: as before)")] = None
    """How the run is laid over them."""
    quiet: Annotated[bool, arg(help_behavior_hint="")] = False
    """Show no progress."""
    hosts: Annotated[Hosts, arg(name="")] = Hosts()

    def __call__(self, command: str) -> int:
        """Goes on, and writes the page."""
        self.hosts.join()
        from cnnjax.commands.watch import finish, watched
        from cnnjax.training import journal
        from cnnjax.training.recipe import Recipe
        from cnnjax.training.run import go_on

        info, status = journal.read_info(self.folder), journal.read_status(self.folder)
        if status is not None and status.state == "finished":
            print(f"{self.folder} holds a finished run: nothing is left to do")
            return finish(self.folder)
        chosen = {name: value for name in ("devices", "by") if (value := getattr(self, name)) is not None}
        placement = dataclasses.replace(Recipe.of(info["recipe"]).placement, **chosen)
        with watched(self.folder, info["name"], quiet=self.quiet) as watcher:
            go_on(self.folder, placement=placement, watcher=watcher)
        return finish(self.folder)
