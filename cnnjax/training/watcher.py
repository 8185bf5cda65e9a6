"""What is told while a run goes on."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watcher:
    """What is told while a run goes on.

    Attributes:
      record: each record, as it stands in the log.
      beat: about once a second: the steps done, of how many, and the means since the last beat.
      note: what a person should know, in a sentence.
      stop: is asked as often; True ends the run behind a checkpoint.
    """

    record: Callable[[Mapping[str, Any]], object] = lambda record: None
    beat: Callable[[int, int, Mapping[str, float]], object] = lambda step, steps, means: None
    note: Callable[[str], object] = lambda text: None
    stop: Callable[[], bool] = lambda: False
