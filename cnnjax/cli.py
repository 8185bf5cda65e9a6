"""The command line: studies (`cnnjax run`, ...), training (`cnnjax train`, ...), models and data; a study's own."""

import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, NoReturn

import tyro

from cnnjax.commands import (
    Data,
    Doctor,
    Evaluate,
    Explain,
    Export,
    Models,
    Predict,
    Report,
    Reproduce,
    Resume,
    Run,
    RunOptions,
    Runs,
    Summary,
    Train,
)
from cnnjax.commands.usage import one_line, until_closed

if TYPE_CHECKING:
    from cnnjax.study import Study

__all__ = ["main", "main_of_study"]

CONFIG = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
# What a user can cause and mend. Anything else is a bug, and shows its traceback.
EXPECTED = (ValueError, TypeError, OSError, ImportError, SyntaxError, FloatingPointError)

Debug = Annotated[tyro.conf.CascadeSubcommandArgs[bool], tyro.conf.arg(help_behavior_hint="")]


@dataclasses.dataclass(frozen=True)
class App:
    """Ablation studies and training of convolutional networks: where gradients vanish, layer by layer."""

    command: Annotated[
        Run
        | Reproduce
        | Report
        | Train
        | Resume
        | Runs
        | Evaluate
        | Predict
        | Export
        | Data
        | Models
        | Summary
        | Explain
        | Doctor,
        tyro.conf.arg(name=""),
    ]
    debug: Debug = False
    """Show the traceback of an error (so does CNNJAX_DEBUG=1)."""


@dataclasses.dataclass(frozen=True)
class StudyApp:
    """What the file of a study takes when it is run by itself."""

    options: Annotated[RunOptions, tyro.conf.arg(name="")]
    debug: Debug = False
    """Show the traceback of an error (so does CNNJAX_DEBUG=1)."""


def main(args: Sequence[str] | None = None) -> int:
    """The command `cnnjax`.

    Args:
      args: its arguments; None takes those of the process.

    Returns:
      The exit status: 0; 1 where `doctor` finds something wrong; 2 for an error; 130 after an interruption.
    """
    args = sys.argv[1:] if args is None else list(args)
    line = shlex.join(["cnnjax", *args])
    if args[:1] == ["train"]:
        return _guarded(lambda: _train(args[1:], line), debug="--debug" in args)
    with until_closed(), one_line("cnnjax"):
        app = tyro.cli(App, prog="cnnjax", args=args or ["--help"], config=CONFIG)
    return _guarded(lambda: app.command(line), debug=app.debug)


def main_of_study(study: "Study", args: Sequence[str] | None = None) -> NoReturn:
    """`cnnjax run` for one study: what its file does when it is run by itself. Ends the process.

    Args:
      study: what to run.
      args: options of `cnnjax run`; None takes those of the process.

    Raises:
      SystemExit: always, with the exit status that `main` returns.
    """
    from cnnjax.commands.run import run_study

    args = sys.argv[1:] if args is None else list(args)
    with until_closed(), one_line("cnnjax"):
        app = tyro.cli(StudyApp, description=study.question, args=args, config=CONFIG)
    command = shlex.join(["python", sys.argv[0], *args])
    sys.exit(_guarded(lambda: run_study(study, app.options, command), debug=app.debug))


def _train(args: Sequence[str], line: str) -> int:
    """`cnnjax train`, whose options are those of a recipe; only here they are worth the import of JAX."""
    from cnnjax.commands.recipe_options import read

    with one_line("cnnjax"):
        command = read(args)
    return command(line)


def _guarded(action: Callable[[], int], *, debug: bool) -> int:
    try:
        with until_closed():
            return action()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except EXPECTED as error:
        if debug or os.environ.get("CNNJAX_DEBUG", "0") not in ("", "0"):
            raise
        print(f"cnnjax: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
