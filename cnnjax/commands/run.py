"""`cnnjax run`: a study from its file to its page."""

import contextlib
import dataclasses
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from cnnjax.commands.interrupt import answered
from cnnjax.commands.options import RunOptions

if TYPE_CHECKING:
    from cnnjax.study import Study

MODULE = "study_file"
"""The name under which the file of a study is imported."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Run a study, or what is left of it, and write its report."""

    file: Annotated[Positional[Path], arg(metavar="FILE", help_behavior_hint="")]
    """A Python file with a STUDY, as in experiments/."""
    options: Annotated[RunOptions, arg(name="")]

    def __call__(self, command: str) -> int:
        """Runs the study of the file."""
        prepare_devices()
        return run_study(load_study(self.file), self.options, command)


def load_study(file: Path, name: str = "STUDY") -> "Study":
    """A constant of a Python file that holds a study.

    The file may import what lies beside it. Its `if __name__ == "__main__"` is not entered.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not a Python file, has no such constant, or fails when it is run, with the line.
      TypeError: the constant is something else.
    """
    from cnnjax.study import Study

    if not file.exists():
        raise FileNotFoundError(
            f"there is no file {file}: name a Python file with a STUDY, as in experiments/"
        )
    spec = importlib.util.spec_from_file_location(MODULE, file)
    if spec is None or spec.loader is None or file.is_dir():
        raise ValueError(f"{file} is not a Python file: name one with a STUDY, as in experiments/")
    # Dataclasses look their module up.
    module = sys.modules[MODULE] = importlib.util.module_from_spec(spec)
    with _importable(file.parent):
        try:
            spec.loader.exec_module(module)
        except SyntaxError:
            raise
        except Exception as error:
            kind = "" if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: "
            raise ValueError(f"{_place(error, file)}: {kind}{error}") from error
    if not hasattr(module, name):
        raise ValueError(f"{file} has no {name}: write {name} = cnnjax.study.Study(...) into it")
    study = getattr(module, name)
    if not isinstance(study, Study):
        raise TypeError(f"{name} in {file} must be a cnnjax.study.Study, got {type(study).__name__}")
    return study


def run_study(study: "Study", options: RunOptions, command: str) -> int:
    """Runs a study with the options applied, writes its report and prints the result.

    Args:
      study: as its file has it.
      options: of the command line.
      command: the line as it was typed, recorded with the study.

    Returns:
      The exit status: 0, or 130 after an interruption.
    """
    from cnnjax.commands.report import rebuild
    from cnnjax.study import Store, judge, run
    from cnnjax.study.execute import tables_of

    prepare_devices()
    study, folder = options.apply(study), options.folder(study)
    store = Store(folder)
    if store.holds(study.as_config(), tables_of(study)):
        print(f"{folder} holds this study, finished: nothing is computed again")
        judge(study.claims, store)
    else:
        try:
            with answered("stopping as soon as what is computed just now is done") as stop:
                axis, quiet = options.run_axis, options.quiet
                store = run(study, folder, run_axis=axis, command=command, quiet=quiet, stop=stop)
        except KeyboardInterrupt:
            print(f"stopped: the same command goes on from here ({command})", file=sys.stderr)
            return 130
    return rebuild(store)


def prepare_devices() -> None:
    """Makes every core a device; nothing where JAX has started, which it must not have for this."""
    from cnnjax.study import one_host_device_per_core

    # JAX raises it once it has started (in a notebook, say).
    with contextlib.suppress(RuntimeError):
        one_host_device_per_core()


def _place(error: Exception, file: Path) -> str:
    """The file of a study, and the line in it where an error came up."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == file.resolve()]
    return f"{file}, line {lines[-1]}" if lines else str(file)


@contextlib.contextmanager
def _importable(folder: Path):
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
