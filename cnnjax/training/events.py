"""Event files for TensorBoard, beside the logs; they need the extra `tensorboard`, which brings no TensorFlow."""

import importlib
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

SCALARS = {
    "loss": "train/loss",
    "accuracy": "train/accuracy",
    "gradient_norm": "train/gradient_norm",
    "learning_rate": "train/learning_rate",
    "skipped": "train/skipped",
    "epoch": "train/epoch",
    "images_per_second": "speed/images_per_second",
    "input_wait": "speed/input_wait",
    "validation_loss": "validation/loss",
    "validation_accuracy": "validation/accuracy",
    "validation_top5": "validation/top5",
    "validation_mean_average_precision": "validation/mean_average_precision",
}
"""What TensorBoard calls the columns of the log."""
MODULES = ("event_file_writer", "proto.event_pb2", "proto.summary_pb2")
LAYERS = 64
"""Layers that get a curve, at most, evenly spread: TensorBoard draws every one of them."""


class Events:
    """A context manager that writes the event files of a run. Numbers that are not finite are left out.

    Args:
      folder: of the event files; one more is added to it.
      step: that the run goes on from. TensorBoard forgets what older files say of the steps behind it.

    Raises:
      ImportError: the package tensorboardX is missing.
    """

    def __init__(self, folder: Path, *, step: int = 0) -> None:
        try:
            writers, events, summaries = (importlib.import_module(f"tensorboardX.{name}") for name in MODULES)
        except ImportError as error:
            raise ImportError(
                "event files for TensorBoard need the package tensorboardX: pip install 'cnnjax[tensorboard]'"
            ) from error
        self._event, self._summary = events.Event, summaries.Summary
        folder.mkdir(parents=True, exist_ok=True)
        # Two files of the same second would have the same name. The package's usual writer is a thread, of which a kill
        # takes what it has not written yet.
        self._writer = writers.EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        start = events.SessionLog(status=events.SessionLog.START)
        self._write(step + 1, session_log=start)

    def __enter__(self) -> "Events":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def record(self, record: Mapping[str, Any]) -> None:
        """Adds a record of the log, under the names of `SCALARS`."""
        values = {name: record[column] for column, name in SCALARS.items() if column in record}
        self._add(record["step"], values)

    def look(self, look: Mapping[str, Any]) -> None:
        """Adds a look into the layers: log10 of the mean squared gradient as gradient/LAYER, of at most `LAYERS` layers."""
        names, moments = look["layers"], look["gradient_log10_second_moment"]
        shown = np.unique(np.linspace(0, len(names) - 1, LAYERS).round().astype(int)) if names else []
        self._add(look["step"], {f"gradient/{_clean(names[i])}": moments[i] for i in shown})

    def _add(self, step: int, values: Mapping[str, float | None]) -> None:
        finite = {name: x for name, x in values.items() if x is not None and math.isfinite(x)}
        scalars = [self._summary.Value(tag=name, simple_value=float(x)) for name, x in finite.items()]
        self._write(step, summary=self._summary(value=scalars))

    def _write(self, step: int, **what: Any) -> None:
        self._writer.write_event(self._event(step=step, wall_time=time.time(), **what))
        self._writer.flush()


def _clean(name: str) -> str:
    """A name with nothing that TensorBoard would replace."""
    return re.sub(r"[^\w./-]", "_", name)
