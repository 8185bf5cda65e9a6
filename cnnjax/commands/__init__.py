"""The commands of `cnnjax`, one a file: a dataclass of its arguments, which is called with the line as it was typed.

JAX, pandas and matplotlib are imported when a command needs them, so that help and errors come at once.
"""

from cnnjax.commands.data import Data
from cnnjax.commands.doctor import Doctor
from cnnjax.commands.evaluate import Evaluate
from cnnjax.commands.explain import Explain
from cnnjax.commands.export import Export
from cnnjax.commands.models import Models
from cnnjax.commands.options import RunOptions
from cnnjax.commands.predict import Predict
from cnnjax.commands.report import Report
from cnnjax.commands.reproduce import Reproduce
from cnnjax.commands.run import Run
from cnnjax.commands.runs import Runs
from cnnjax.commands.summary import Summary
from cnnjax.commands.train import Resume, Train

__all__ = [
    "Data",
    "Doctor",
    "Evaluate",
    "Explain",
    "Export",
    "Models",
    "Predict",
    "Report",
    "Reproduce",
    "Resume",
    "Run",
    "RunOptions",
    "Runs",
    "Summary",
    "Train",
]
