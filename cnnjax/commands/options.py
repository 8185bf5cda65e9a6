"""The options of a study on the command line: which of its fields they replace, and where its tables go."""

import ast
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import UseAppendAction, arg

if TYPE_CHECKING:
    from cnnjax.study import Study

WORDS = {"none": None, "true": True, "yes": True, "false": False, "no": False}


def _own(metavar: str) -> Any:
    return arg(metavar=metavar, help_behavior_hint="(default: the study's)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a study."""

    data: Annotated[str | None, _own("NAME")] = None
    """The data set: digits, digits32 (enlarged to 32x32), or one that `cnnjax data prepare` has prepared."""
    seeds: Annotated[tuple[int, ...] | None, _own("N ...")] = None
    """How many seeds (one number), or which (several)."""
    steps: Annotated[int | None, _own("N")] = None
    """Steps of training; 0 looks at the initialization only."""
    depths: Annotated[tuple[int, ...] | None, _own("N ...")] = None
    """Values of the axis depth: short for --axis depth N ..."""
    axis: Annotated[
        UseAppendAction[tuple[tuple[str, ...], ...]],
        arg(metavar="AXIS VALUE ...", help_behavior_hint="(may be repeated)"),
    ] = ()
    """Values of an axis of the grid; of an axis of named variants, which ones to keep."""
    learning_rates: Annotated[tuple[float, ...] | None, _own("RATE ...")] = None
    """Learning rates to choose from in every cell."""
    batch_size: Annotated[int | None, _own("N")] = None
    """Examples a step."""
    subset: Annotated[int | None, _own("N")] = None
    """Number of training examples to use."""
    record_every: Annotated[int | None, _own("N")] = None
    """Steps between two records of every layer; the steps are a multiple of it."""
    quick: Annotated[bool, arg(help_behavior_hint="")] = False
    """The study's own small version, for a look within a minute; other options are applied on top of it."""
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: runs/NAME[-quick])")] = None
    """The folder for tables and report. A study that was stopped goes on where it was."""
    run_axis: Literal["auto", "map", "vmap"] = "auto"
    """How the runs of one device are computed: one after the other, or all at once; auto chooses by the platform."""
    quiet: Annotated[bool, arg(help_behavior_hint="")] = False
    """Show no progress."""

    def folder(self, study: "Study") -> Path:
        """Where the study's tables go.

        Raises:
          ValueError: there is a file of that name.
        """
        folder = self.out or Path("runs") / f"{study.name}{'-quick' if self.quick else ''}"
        if blocked := next((path for path in (folder, *folder.parents) if path.is_file()), None):
            raise ValueError(f"{blocked} is a file: choose another folder with --out")
        return folder

    def apply(self, study: "Study") -> "Study":
        """The study with the fields that the options replace.

        Raises:
          ValueError: the study has no quick version, no such axis or variant, or an axis where a field is given.
        """
        if self.quick:
            if not study.quick:
                raise ValueError(
                    f"study {study.name!r} has no quick version: give it fields to replace, quick={{...}}"
                )
            study = study.replace(**study.quick)
        fields = self._fields()
        grid = dict(study.grid)
        for name, values in self._axes():
            grid[name] = _values(study, name, values)
        _check_axes(study, fields)
        return study.replace(**fields, grid=grid)

    def _fields(self) -> dict[str, Any]:
        names = ("data", "steps", "learning_rates", "batch_size", "subset", "record_every")
        fields = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.seeds is not None:
            fields["seeds"] = self.seeds[0] if len(self.seeds) == 1 else self.seeds
        return fields

    def _axes(self) -> list[tuple[str, list[str]]]:
        if any(len(words) < 2 for words in self.axis):
            raise ValueError(
                "--axis takes the name of an axis and its values, as in --axis activation relu tanh"
            )
        depths = [] if self.depths is None else [("depth", [str(depth) for depth in self.depths])]
        return [*depths, *((words[0], list(words[1:])) for words in self.axis)]


def parse_value(text: str) -> Any:
    """A word of the command line as a Python value: a number, none, true or yes, false or no, a list, or else a string."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return WORDS.get(text.lower(), text)


def parse_shape(text: str, name: str) -> tuple[int, ...]:
    """The shape of an image, "32,32,3" or "32x32x3". `name`: of the argument, for the message.

    Raises:
      ValueError: not positive integers.
    """
    parts = text.replace("x", ",").split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"{name} takes the size of each axis and the channels, as in 32,32,3; got {text!r}")
    return tuple(int(part) for part in parts)


def parse_option(word: str) -> tuple[str, Any]:
    """A word NAME=VALUE of the command line.

    Raises:
      ValueError: it is none.
    """
    name, equals, value = word.partition("=")
    if not (name and equals and value):
        raise ValueError(f"--option takes NAME=VALUE, as in depth=50; got {word!r}")
    return name, parse_value(value)


def _values(study: "Study", name: str, words: list[str]) -> Any:
    """The values of an axis that the study has."""
    from cnnjax.functional.names import lookup

    lookup(study.grid, name, "axis of the grid")
    variants = study.grid[name]
    if not hasattr(variants, "keys"):
        return [parse_value(word) for word in words]
    return {word: lookup(dict(variants), word, f"variant of {name}") for word in words}


def _check_axes(study: "Study", fields: dict[str, Any]) -> None:
    """Raises ValueError for a field that would do nothing, because an axis of the grid sets it."""
    for field, axis in (("batch_size", "batch_size"), ("learning_rates", "learning_rate")):
        if field in fields and axis in study.grid:
            option = field.replace("_", "-")
            raise ValueError(
                f"study {study.name!r} compares values of {axis}, so --{option} would do nothing: use --axis {axis}"
            )
