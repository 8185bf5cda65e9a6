"""The options of `cnnjax train`: every field of a recipe, with the values of a preset."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from cnnjax.commands.options import parse_option
from cnnjax.commands.train import Hosts
from cnnjax.functional.names import lookup
from cnnjax.training.presets import PRESETS
from cnnjax.training.recipe import Recipe

DEFAULT = "digits-smoke"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a network by a recipe: a preset, and options in the place of its values."""

    preset: Annotated[Positional[str], arg(metavar="[PRESET]", help_behavior_hint=f"(default: {DEFAULT})")]
    """One of: {presets}."""
    recipe: Annotated[Recipe, arg(name="")]
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: runs/PRESET, numbered)")] = (
        None
    )
    """The folder of the run, which must be new."""
    init_from: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    """Another run, from whose parameters and running statistics this one starts."""
    init_partial: Annotated[bool, arg(help_behavior_hint="")] = False
    """Take from it what fits (all but the head, say), and say what does not."""
    dry_run: Annotated[bool, arg(help_behavior_hint="")] = False
    """Check everything, say what would be done, and train nothing."""
    quiet: Annotated[bool, arg(help_behavior_hint="")] = False
    """Show no progress."""
    hosts: Annotated[Hosts, arg(name="")] = Hosts()
    debug: Annotated[bool, arg(help_behavior_hint="")] = False
    """Show the traceback of an error (so does CNNJAX_DEBUG=1)."""

    def __call__(self, command: str) -> int:
        """Trains, and writes the page."""
        self.hosts.join()
        from cnnjax.commands.watch import finish, watched
        from cnnjax.training.run import InitFrom, begin

        recipe = merged(PRESETS[self.preset], self.recipe)
        if self.init_partial and self.init_from is None:
            raise ValueError("--init-partial says how --init-from DIR is read: give that, too")
        if self.dry_run:
            return show(recipe)
        init_from = self.init_from and InitFrom(folder=self.init_from, partial=self.init_partial)
        folder = self.out or unused(Path("runs"), self.preset)
        with watched(folder, self.preset, quiet=self.quiet) as watcher:
            begin(folder, recipe, name=self.preset, command=command, init_from=init_from, watcher=watcher)
        return finish(folder)


def read(args: Sequence[str]) -> TrainOptions:
    """What the words behind `cnnjax train` stand for: the preset, if any, in front, then options.

    Raises:
      ValueError: there is no such preset; the text gives the nearest.
      SystemExit: the options are wrong, or help was asked for.
    """
    named = bool(args) and not args[0].startswith("-")
    preset = args[0] if named else DEFAULT
    recipe = lookup(PRESETS, preset, "preset")
    words = [preset, *(args[1:] if named else args)]
    return tyro.cli(
        TrainOptions,
        prog="cnnjax train",
        description=f"{TrainOptions.__doc__} Presets: {', '.join(PRESETS)}.",
        args=words,
        default=TrainOptions(preset=preset, recipe=recipe),
        config=(tyro.conf.FlagCreatePairsOff,),
        registry=_registry(),
    )


def merged(preset: Recipe, chosen: Recipe) -> Recipe:
    """The recipe of the command line: options that were named add to those of the preset, if they are of the same thing.

    `--options depth=8` keeps the other options of the preset's model, but `--model` leaves all of them behind; and so do
    `--optimizer.options` and `--optimizer.name`.
    """
    # Sequences come as lists.
    chosen = Recipe.of(chosen.config())
    options = _added(preset.options, chosen.options, same=preset.model == chosen.model)
    before, now = preset.optimizer, chosen.optimizer
    own = _added(before.options, now.options, same=before.name == now.name)
    return dataclasses.replace(chosen, options=options, optimizer=dataclasses.replace(now, options=own))


def unused(parent: Path, name: str) -> Path:
    """`parent/name`, or the first of `parent/name-2`, ... that is not there."""
    number, folder = 1, parent / name
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder


def show(recipe: Recipe) -> int:
    """Prints what a recipe comes to, from the data that is there."""
    import json

    dataset = recipe.load()
    trainer, plan = recipe.make_trainer(dataset), recipe.make_plan(dataset)
    mesh = recipe.placement.mesh(plan.batch_size)
    print(json.dumps(recipe.config(), indent=1))
    print(
        f"{type(trainer.model).__name__} on {dataset.name}: {plan.steps:,} steps of {plan.batch_size} images "
        f"({plan.steps / recipe.steps_per_epoch(dataset):.1f} epochs of {len(dataset.train):,} images) on {mesh.size} "
        f"device(s)"
    )
    return 0


def _added(before: Mapping[str, Any], now: Mapping[str, Any], *, same: bool) -> dict[str, Any]:
    if same:
        return {**before, **now}
    return {} if now == before else dict(now)


def _registry() -> ConstructorRegistry:
    """How mappings are read: NAME=VALUE, as the options of a model are elsewhere."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def mapping(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        if typing.get_origin(info.type) is not Mapping:
            return None
        return PrimitiveConstructorSpec(
            nargs="*",
            metavar="NAME=VALUE ...",
            instance_from_str=lambda words: dict(map(parse_option, words)),
            is_instance=lambda value: isinstance(value, Mapping),
            str_from_instance=lambda value: [f"{name}={each}" for name, each in value.items()],
        )

    return registry
