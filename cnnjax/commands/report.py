"""`cnnjax report`: the page of a study from its tables, and its result in the terminal."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from cnnjax.frame import Frame
    from cnnjax.study import Store


@dataclasses.dataclass(frozen=True)
class Report:
    """Write the page of a study again, from its tables. The study may be unfinished."""

    folder: Annotated[Positional[Path], arg(metavar="DIR", help_behavior_hint="")]
    """The study's folder, which `cnnjax run` printed."""

    def __call__(self, command: str) -> int:
        """Writes the page."""
        from cnnjax.study import Store

        return rebuild(Store(self.folder))


def rebuild(store: "Store") -> int:
    """Writes the page of a study and prints its cells, the verdicts, the answer, and where the page is."""
    from cnnjax import report
    from cnnjax.commands.cells import print_result
    from cnnjax.study import read_verdicts

    info, runs, verdicts = store.info, store.table("runs"), read_verdicts(store.folder)
    tables = runs, _table(store, "curves"), _table(store, "layers")
    drawn = {name: _table(store, name) for name in ("theory", "measures")}
    page = report.write(info, *tables, store.folder / "report", verdicts=verdicts, **drawn)
    print_result(info, runs, page, verdicts)
    return 0


def _table(store: "Store", name: str) -> "Frame":
    """A table of the study; one without rows where nothing was trained or recorded."""
    import pandas as pd

    from cnnjax import probes
    from cnnjax.study.predictions import COLUMNS

    columns = {
        "curves": ("run", "step", "loss", "accuracy", "validation_loss", "validation_accuracy"),
        "layers": ("run", "step", "layer", "path", "activation", *probes.COLUMNS),
        "theory": COLUMNS,
        "measures": ("run", "measure", "index", "value"),
    }
    exists = (store.folder / f"{name}.parquet").exists()
    return store.table(name) if exists else pd.DataFrame(columns=columns[name])
