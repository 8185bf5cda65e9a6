"""The commands of `cnnjax`, one a file: a dataclass of its arguments, which is called with the line as it was typed.

JAX, pandas and matplotlib are imported when a command needs them, so that help and errors come at once.
"""

from cnnjax.commands.data import Data
from cnnjax.commands.doctor import Doctor
from cnnjax.commands.explain import Explain
from cnnjax.commands.models import Models
from cnnjax.commands.options import RunOptions
from cnnjax.commands.report import Report
from cnnjax.commands.reproduce import Reproduce
from cnnjax.commands.run import Run
from cnnjax.commands.summary import Summary

__all__ = ["Data", "Doctor", "Explain", "Models", "Report", "Reproduce", "Run", "RunOptions", "Summary"]
