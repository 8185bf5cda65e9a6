"""`cnnjax report`: the page of a study or a training run from its files, and its result in the terminal."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from cnnjax.frame import Frame
    from cnnjax.study import Store


@dataclasses.dataclass(frozen=True)
class Report:
    """Write the page of a study or a training run again, from its files. It may be unfinished."""

    folder: Annotated[Positional[Path], arg(metavar="DIR", help_behavior_hint="")]
    """Its folder, which `cnnjax run` or `cnnjax train` printed."""

    def __call__(self, command: str) -> int:
        """Writes the page."""
        from cnnjax.study import Store

        if (self.folder / "run.json").exists():
            from cnnjax.commands.watch import finish

            return finish(self.folder)
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
