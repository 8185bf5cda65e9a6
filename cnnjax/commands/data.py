"""`cnnjax data`: data sets on disk."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg


@dataclasses.dataclass(frozen=True)
class Data:
    """Prepare a data set: the one step that needs TensorFlow (pip install 'cnnjax[prepare]')."""

    action: Annotated[Positional[Literal["prepare"]], arg(help_behavior_hint="")]
    """Download a set and write it in ArrayRecord."""
    name: Annotated[Positional[str], arg(metavar="NAME", help_behavior_hint="")]
    """NAME or NAME/CONFIG, as TFDS names it: mnist, cifar10, ..."""
    data_dir: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: TFDS_DATA_DIR)")] = None
    """Where to put it."""

    def __call__(self, command: str) -> int:
        """Prepares the set."""
        from cnnjax import data

        data.prepare(self.name, data_dir=self.data_dir, say=print)
        return 0
