"""Running a study: every program's runs together, segment by segment, stored after each one."""

import dataclasses
import datetime
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import data
from cnnjax.data import Dataset, Split
from cnnjax.study import environment, tables
from cnnjax.study.chunk import Chunk
from cnnjax.study.config import Study
from cnnjax.study.devices import RunAxis, RunDevices
from cnnjax.study.plan import Program, Run, axis_labels, plan
from cnnjax.study.progress import Progress
from cnnjax.study.step import Data
from cnnjax.study.store import FORMAT, Store


def run(
    study: Study,
    folder: str | Path,
    *,
    devices: RunDevices | None = None,
    run_axis: RunAxis = "auto",
    command: str = "",
    quiet: bool = False,
) -> Store:
    """Runs a study, or what is left of it, and returns its folder's `Store`.

    Killed at any moment and called again it goes on where it stopped, and ends with the same tables, bit for bit on the same
    devices. A run that diverges is recorded as such; runs that do not fit into memory together are split, and a run that does
    not fit alone is recorded, too.

    Args:
      study: what to run.
      folder: where its tables are kept.
      devices: to lay the runs over; None takes all.
      run_axis: see `devices.over_runs`; only where `devices` is None.
      command: recorded in study.json, to tell how to reproduce it.
      quiet: show no progress.

    Raises:
      ValueError: a study that does not fit together, or a folder of another one; before anything compiles.
    """
    devices = RunDevices(run_axis=run_axis) if devices is None else devices
    programs = plan(study)
    dataset = data.load(study.data, subset=study.subset)
    _check(study, programs, dataset)
    store = Store(folder)
    info = _info(study, dataset, devices, command)
    store.open(info)
    runs = sorted((r for program in programs for r in program.runs), key=lambda r: r.run)
    started = time.monotonic()
    engine = _Engine(study, store, devices, devices.everywhere(_device_data(dataset)), runs)
    with Progress(len(runs), max(study.steps, 1), quiet=quiet) as progress:
        for program in programs:
            engine.execute(program, program.runs, progress)
    finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    seconds = round(time.monotonic() - started, 1)
    info |= {
        "finished": finished,
        "seconds": seconds,
        "peak_memory_gib": round(environment.peak_memory_gib(), 2),
    }
    store.close(info)
    return store


@dataclasses.dataclass(frozen=True)
class _Engine:
    study: Study
    store: Store
    devices: RunDevices
    data: Data
    runs: Sequence[Run]

    def execute(self, program: Program, runs: Sequence[Run], progress: Progress) -> None:
        """Advances some runs of a program to the end, in halves if they do not fit into memory together."""
        part = self.store.part(
            f"program{program.number:03d}-runs{runs[0].run:05d}-{runs[-1].run:05d}-{len(runs)}"
        )
        if not part.finished:
            try:
                Chunk(self.study, program, runs, part, self.devices, self.data).run(progress)
            except (jax.errors.JaxRuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                part.discard()
                if len(runs) > 1:
                    half = len(runs) // 2
                    self.execute(program, runs[:half], progress)
                    self.execute(program, runs[half:], progress)
                    return
                part.finish({"runs": tables.run_rows(runs, "out of memory")})
            self.merge()
        progress.finished(len(runs))

    def merge(self) -> None:
        """Writes the study's tables from the parts that are there."""
        self.store.merge(tables.run_rows(self.runs, "unfinished"), tables.select_learning_rates)


def _check(study: Study, programs: Sequence[Program], dataset: Dataset) -> None:
    """Whether every program's model takes the images and every batch can be drawn; nothing is computed."""
    for program in programs:
        if program.batch_size > len(dataset.train):
            raise ValueError(
                f"batch_size={program.batch_size} is more than the {len(dataset.train)} training examples of "
                f"{study.data}: take a smaller batch or a larger subset"
            )
        images = jax.ShapeDtypeStruct((program.batch_size, *dataset.image_shape), jnp.float32)
        for initializer in {repr(run.initializer): run.initializer for run in program.runs}.values():
            model = program.make_model(initializer, num_classes=dataset.num_classes)
            try:
                jax.eval_shape(model.init, jax.random.key(0), images)
            except (ValueError, TypeError) as error:
                name = f"{program.model}({', '.join(f'{k}={v!r}' for k, v in program.options.items())})"
                shape = "x".join(map(str, dataset.image_shape))
                raise ValueError(
                    f"{name} does not take the {shape} images of {study.data}: {error}"
                ) from error


def _device_data(dataset: Dataset) -> Data:
    """The arrays of a data set, validation and test padded to one size so that both are evaluated by one program."""
    size = max(len(dataset.validation), len(dataset.test))

    def padded(split: Split) -> Split:
        extra = size - len(split)
        images = np.pad(split.images, [(0, extra), (0, 0), (0, 0), (0, 0)])
        return Split(images, np.pad(split.labels, (0, extra), constant_values=-1))

    return Data(dataset.train, padded(dataset.validation), padded(dataset.test), dataset.mean, dataset.std)


def _info(study: Study, dataset: Dataset, devices: RunDevices, command: str) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "format": FORMAT,
        "name": study.name,
        "question": study.question,
        "description": study.description,
        "papers": list(study.papers),
        "config": study.as_config(),
        "axes": axis_labels(study),
        "seeds": list(study.seed_list),
        "learning_rates": [float(rate) for rate in study.learning_rates],
        "steps": study.steps,
        "batch_size": study.batch_size,
        "data": study.data,
        "notes": list(dataset.notes),
        "num_classes": dataset.num_classes,
        "command": command,
        "versions": environment.versions(),
        "device": environment.device(list(devices.mesh.devices.flat)),
        "precision": environment.precision(),
        "commit": environment.commit(),
        "started": now,
        "finished": None,
        "seconds": None,
        "peak_memory_gib": None,
    }


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
