"""The small files of a run's folder, which the loop writes and everybody reads.

    run.json           what is trained, on what, where, and by which command
    log.jsonl          a record every so many steps: means since the one before, and evaluations
    layers.jsonl       a record for each look into every layer
    status.json        how far the run is
    evaluation.json    what the network does on whole splits at the end

A file of JSON is replaced as a whole. The two logs grow by lines; after a kill `cut` takes off what is behind the
checkpoint. Numbers that are not finite stand there as Python's `json` writes them.
"""

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from cnnjax.files import holder, replacing
from cnnjax.frame import Frame

RUN, LOG, LAYERS = "run.json", "log.jsonl", "layers.jsonl"
STATUS, EVALUATION = "status.json", "evaluation.json"
FORMAT = 1

State = Literal["running", "stopped", "finished", "failed"]

VALIDATION = ("loss", "accuracy", "top5", "mean_average_precision")
"""Of the metrics of an evaluation on the way those that a record holds, under "validation_" and their name; as far as there
are such: the last but one for images of one class, the last for images that may show several."""
HEADLINE = {"single": "accuracy", "multi": "mean_average_precision"}
"""By kind of labels the metric that counts: the best checkpoint is that with its highest value on the validation split. Of
labels of which few are present, a network that names none has most right."""
LOG_COLUMNS = (
    *("step", "epoch", "loss", "accuracy", "gradient_norm", "learning_rate"),
    *("seconds", "images_per_second", "input_wait", "skipped"),
    *(f"validation_{name}" for name in VALIDATION),
)
"""What a record may hold; a table of the log has all of these, NaN where a record is silent."""
LAYER_COLUMNS = (
    *("log10_second_moment", "gradient_log10_second_moment", "kernel_gradient_log10_norm"),
    *("saturated", "dead"),
)
"""What a look into the layers says of each; as in `probes.Flow`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """How far a run is.

    Attributes:
      state: what its process last said.
      step: done so far.
      seconds: that training took so far, all processes together.
      updated: when this was written, in ISO format with the time zone.
      best_step, best: the highest validation `HEADLINE` so far and its step; None without an evaluation.
      error: why it failed.
    """

    state: State
    step: int
    seconds: float
    updated: str
    best_step: int | None = None
    best: float | None = None
    error: str | None = None

    def __post_init__(self):
        if self.state not in get_args(State):
            raise ValueError(f"state must be one of {', '.join(get_args(State))}; got {self.state!r}")
        if isinstance(self.step, bool) or not isinstance(self.step, int):
            raise TypeError(f"step must be an integer, got {self.step!r}")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RunRecord:
    """What a run's folder says.

    Attributes:
      folder: of the run.
      info: what run.json holds.
      log: a frame with a row for each record, `LOG_COLUMNS` and whatever else the records hold.
      layers: a frame with a row for each look and layer: step, class, layer (its index), path, `LAYER_COLUMNS`.
      status: None before the first record.
      evaluation: "step", "validation" and "test"; None before the end.
    """

    folder: Path
    info: Mapping[str, Any]
    log: Frame
    layers: Frame
    status: Status | None
    evaluation: Mapping[str, Any] | None


def write_info(folder: Path, info: Mapping[str, Any]) -> None:
    """Writes run.json; the number of the format is added."""
    _write(folder / RUN, {"format": FORMAT, **info})


def write_status(
    folder: Path,
    state: State,
    step: int,
    seconds: float,
    *,
    best_step: int | None = None,
    best: float | None = None,
    error: str | None = None,
) -> None:
    """Writes status.json with the time it is now; the arguments are those of `Status`."""
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    found = Status(
        state=state, step=step, seconds=seconds, updated=now, best_step=best_step, best=best, error=error
    )
    _write(folder / STATUS, dataclasses.asdict(found))


def write_evaluation(folder: Path, evaluation: Mapping[str, Any]) -> None:
    """Writes evaluation.json; arrays become lists."""
    _write(folder / EVALUATION, evaluation)


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Adds a line to a log."""
    line = json.dumps(record, default=_plain) + "\n"
    with path.open("a") as file:
        file.write(line)


def cut(folder: Path, step: int) -> None:
    """Takes off the logs what was recorded behind a step, which is done again, and lines that were cut off."""
    for path in (folder / LOG, folder / LAYERS):
        if not path.exists():
            continue
        lines = path.read_bytes().splitlines()
        kept = [line for line in lines if (record := _record(line)) is not None and record["step"] <= step]
        with replacing(path) as temporary:
            temporary.write_bytes(b"".join(line + b"\n" for line in kept))


def read_run(folder: Path) -> RunRecord:
    """All that a run's folder says, while it is written, too.

    Raises:
      ValueError: it holds no run, a newer one than this version reads, or a damaged file; the text names it.
    """
    folder = Path(folder)
    return RunRecord(
        folder=folder,
        info=read_info(folder),
        log=read_log(folder),
        layers=read_layers(folder),
        status=read_status(folder),
        evaluation=read_evaluation(folder),
    )


def read_info(folder: Path) -> dict[str, Any]:
    """What run.json holds.

    Raises:
      ValueError: as `read_run`.
    """
    info = _read(folder / RUN)
    if info is None:
        raise ValueError(f"{folder} holds no run (no {RUN}): name the folder that `cnnjax train` printed")
    if info.get("format") != FORMAT:
        raise ValueError(
            f"{folder / RUN} has format {info.get('format')}, and this version of cnnjax reads format {FORMAT}: read it "
            "with the version that wrote it"
        )
    # Runs from before there was another kind do not say it.
    info.get("data", {}).setdefault("label_kind", "single")
    return info


def read_status(folder: Path) -> Status | None:
    """What status.json holds; None where there is none yet.

    Raises:
      ValueError: it is damaged.
    """
    found = _read(folder / STATUS)
    try:
        return None if found is None else Status(**found)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / STATUS} is damaged ({error}): resume the run to write it anew"
        ) from error


def read_evaluation(folder: Path) -> dict[str, Any] | None:
    """What evaluation.json holds; None where there is none yet.

    Raises:
      ValueError: it is damaged.
    """
    return _read(folder / EVALUATION)


def read_log(folder: Path) -> pd.DataFrame:
    """The records as a table, a row for each step in order.

    Raises:
      ValueError: the log is damaged.
    """
    table = pd.DataFrame(_records(folder / LOG))
    columns = list(dict.fromkeys((*LOG_COLUMNS, *table.columns)))
    table = table.reindex(columns=columns).drop_duplicates("step", keep="last").sort_values("step")
    numbers = {name: "float64" for name in LOG_COLUMNS if name != "step"}
    return table.astype({"step": "int64", **numbers}).reset_index(drop=True)


def read_layers(folder: Path) -> pd.DataFrame:
    """The looks into the layers as a table, a row for each step and layer in order.

    Raises:
      ValueError: the log is damaged.
    """
    path = folder / LAYERS
    looks = {record["step"]: record for record in _records(path)}
    tables = [_look(looks[step], path) for step in sorted(looks)]
    if not tables:
        return pd.DataFrame(columns=["step", "class", "layer", "path", *LAYER_COLUMNS])
    return pd.concat(tables, ignore_index=True)


def state(folder: Path, status: Status | None) -> str:
    """One of `State`, or "killed" where the process that was running is no more.

    Args:
      folder: of the run.
      status: of the run; without one it is running if a process is at work in the folder.
    """
    said = "running" if status is None else status.state
    return "killed" if said == "running" and holder(folder) is None else said


def _look(record: Mapping[str, Any], path: Path) -> pd.DataFrame:
    names = record.get("layers")
    if not isinstance(names, Sequence):
        raise ValueError(f"{path} has a look into the layers, at step {record['step']}, that names none")
    columns = {name: record.get(name) or [np.nan] * len(names) for name in LAYER_COLUMNS}
    if any(len(column) != len(names) for column in columns.values()):
        raise ValueError(
            f"{path} has a look into {len(names)} layers, at step {record['step']}, with another number of values"
        )
    head = {
        "step": record["step"],
        "class": record.get("class") or "",
        "layer": range(len(names)),
        "path": names,
    }
    return pd.DataFrame({**head, **{name: np.asarray(column, float) for name, column in columns.items()}})


def _records(path: Path) -> list[dict[str, Any]]:
    """The records of a log, but for a last line that is still being written."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    found = [_record(line) for line in lines]
    for number, record in enumerate(found[:-1], 1):
        if record is None:
            raise ValueError(
                f"line {number} of {path} is no record: delete the line, or resume the run, which does"
            )
    return [record for record in found if record is not None]


def _record(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None where the line is no whole record."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(record, dict) and isinstance(record.get("step"), int)
    return record if whole else None


def _write(path: Path, value: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, default=_plain) + "\n")


def _read(path: Path) -> dict[str, Any] | None:
    """A file of JSON; None where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is no whole JSON file ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__} where an object is expected")
    return found


def _plain(value: Any) -> Any:
    """Arrays and their scalars as JSON has them."""
    if hasattr(value, "tolist"):
        return np.asarray(value).tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")
