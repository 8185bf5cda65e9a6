"""Running a study: every program's runs together, segment by segment, stored after each one."""

import dataclasses
import datetime
import functools
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from cnnjax import data, machine, probes
from cnnjax import functional as F
from cnnjax.data import Dataset
from cnnjax.files import locked
from cnnjax.study import tables
from cnnjax.study.chunk import Chunk, numbers_of
from cnnjax.study.claims import pending
from cnnjax.study.config import Study
from cnnjax.study.devices import RunAxis, RunDevices
from cnnjax.study.labels import axis_labels
from cnnjax.study.plan import Program, Run, plan
from cnnjax.study.predictions import predictions
from cnnjax.study.progress import Progress
from cnnjax.study.step import Data, blocks_of, initial_state, measure
from cnnjax.study.store import FORMAT, TABLES, Part, Store, write_table
from cnnjax.study.verdicts import judge, write_verdicts

EVALUATION_BLOCK = 2000
STATE_COPIES = 3

FLOW_NOTE = (
    "The gradient of a network is called vanishing when its second moment at the first layer is below "
    f"10^{probes.VANISHING:.0f} of that at the last hidden layer, exploding above 10^{probes.EXPLODING:.0f}, else stable."
)


def run(
    study: Study,
    folder: str | Path,
    *,
    devices: RunDevices | None = None,
    run_axis: RunAxis = "auto",
    command: str = "",
    quiet: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Store:
    """Runs a study, or what is left of it, and returns its folder's `Store`.

    Killed at any moment and called again it goes on where it stopped, and ends with the same tables, bit for bit on
    the same devices. A run that diverges is recorded as such; runs that do not fit into memory together are split, and
    a run that does not fit alone is recorded, too. At the end the study's claims are judged.

    Args:
      study: what to run.
      folder: where its tables are kept.
      devices: to lay the runs over; None takes all.
      run_axis: see `devices.over_runs`; only where `devices` is None.
      command: recorded in study.json, to tell how to reproduce it.
      quiet: show no progress.
      stop: asked after each segment; True ends the run as Ctrl-C does.

    Raises:
      KeyboardInterrupt: stopped; everything up to the last segment is stored.
      ValueError: a study that does not fit together, a folder of another one, or one in which another process is at
        work; before anything compiles. Or a claim asks for what the tables turn out not to have, at the end.
    """
    devices = RunDevices(run_axis=run_axis) if devices is None else devices
    programs = plan(study)
    dataset = data.load(study.data, subset=study.subset)
    if dataset.label_kind != "single":
        raise ValueError(
            f"a study needs images of one class each, and those of {study.data} may show several: train each network by "
            f"itself (cnnjax train --data {study.data} --loss binary_cross_entropy)"
        )
    programs = [_with_classes(program, dataset) for program in programs]
    _check(study, programs, dataset)
    store = Store(folder)
    if store.holds(study.as_config(), tables_of(study)):
        judge(study.claims, store)
        return store
    with locked(store.folder):
        info = store.open(_info(study, dataset, devices, command))
        write_verdicts(store.folder, pending(study.claims, info))
        engine = _Engine(study, store, info, devices, devices.everywhere(_device_data(dataset)), programs)
        with Progress(len(engine.runs), max(study.steps, 1), quiet=quiet, stop=stop) as progress:
            engine.execute_all(progress)
        judge(study.claims, store)
    return store


class _Engine:
    """Executes the programs of a study, the next ones being compiled meanwhile, and keeps the study's tables."""

    def __init__(
        self,
        study: Study,
        store: Store,
        info: dict[str, Any],
        devices: RunDevices,
        device_data: Data,
        programs: Sequence[Program],
    ) -> None:
        self.study, self.store, self.info = study, store, info
        self.devices, self.data, self.programs = devices, device_data, programs
        self.runs = sorted((run for program in programs for run in program.runs), key=lambda run: run.run)
        self._since = time.monotonic()
        self._precision = jax.config.values["jax_default_matmul_precision"]
        # On CPU compiling ahead fills idle cores; on an accelerator it would take memory from what runs.
        self._ahead = devices.count if jax.default_backend() == "cpu" else 0

    def execute_all(self, progress: Progress) -> None:
        """All programs that are not finished, in order."""
        self._save()
        futures: dict[int, Future[Chunk]] = {}
        with ThreadPoolExecutor(max_workers=max(self._ahead, 1) + 1) as pool:
            theory = pool.submit(self._predict)
            try:
                for i, program in enumerate(self.programs):
                    for j, later in enumerate(self.programs[i : i + self._ahead + 1], start=i):
                        if j not in futures and self._is_open(later, later.runs):
                            futures[j] = pool.submit(self._prepare, later, later.runs)
                    self._execute(program, program.runs, progress, futures.pop(i, None))
                theory.result()
            except KeyboardInterrupt:
                self._save()
                raise
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._save(finished=finished)

    def _predict(self) -> None:
        """The table of theory, which takes the second moment of a normalized image to be 1."""
        if not self.store.whole(["theory"]):
            image_shape = self.data.train.images.shape[1:]
            write_table(self.store.folder / "theory.parquet", predictions(self.programs, image_shape))

    def _execute(
        self,
        program: Program,
        runs: Sequence[Run],
        progress: Progress,
        prepared: "Future[Chunk] | None" = None,
    ) -> None:
        """Advances some runs of a program to the end, in halves if they do not fit into memory together."""
        part, before = self._part(program, runs), progress.steps
        if not part.finished:
            fits = self._is_open(program, runs) and self._attempt(program, runs, progress, prepared)
            # It may hold what did not fit.
            prepared = None
            if not fits:
                part.discard()
                progress.back_to(before)
            if not fits and len(runs) > 1:
                for half in _halves(runs):
                    self._execute(program, half, progress)
                return
            if not fits:
                part.finish({"runs": tables.run_rows(runs, "out of memory")})
            self._save()
        progress.finished(len(runs))

    def _attempt(
        self,
        program: Program,
        runs: Sequence[Run],
        progress: Progress,
        prepared: "Future[Chunk] | None",
    ) -> bool:
        """Whether some runs fitted into memory together, and so have come to their end."""
        try:
            chunk = prepared.result() if prepared else self._prepare(program, runs)
            chunk.run(progress)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            return False
        return True

    def _is_open(self, program: Program, runs: Sequence[Run]) -> bool:
        """Whether some runs are still to be computed together: a part of them that has begun says that they did not fit."""
        part = self._part(program, runs)
        if part.finished or self._is_split(program, runs):
            return False
        return part.begun or len(runs) == 1 or self._fits_host(program, len(runs))

    def _is_split(self, program: Program, runs: Sequence[Run]) -> bool:
        """Whether a half, or a half of a half, has begun."""
        halves = _halves(runs) if len(runs) > 1 else ()
        return any(self._part(program, half).begun or self._is_split(program, half) for half in halves)

    def _fits_host(self, program: Program, runs: int) -> bool:
        """Whether the states of that many runs leave room on the host; accelerators say themselves what does not fit.

        The system ends a process that takes more than there is, and no error tells.
        """
        if jax.default_backend() != "cpu":
            return True
        numbers = jax.tree.map(lambda array: array[0], numbers_of(program.runs[:1]))
        start = functools.partial(initial_state, program, program.runs[0].initializer, numbers)
        state = jax.eval_shape(start, jnp.zeros((1, *self.data.train.images.shape[1:])))
        size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        # A state is made, gathered and laid over the devices; the next programs' are there already.
        return runs * size * STATE_COPIES * (self._ahead + 1) <= machine.host_memory()

    def _part(self, program: Program, runs: Sequence[Run]) -> Part:
        return self.store.part(f"program{program.number:03d}-run{runs[0].run:05d}-{len(runs)}")

    def _prepare(self, program: Program, runs: Sequence[Run]) -> Chunk:
        """A chunk, compiled; with the caller's precision, which another thread does not see by itself."""
        part = self._part(program, runs)
        with jax.default_matmul_precision(self._precision):
            return Chunk(self.study, program, runs, part, self.devices, self.data).prepare()

    def _save(self, finished: str | None = None) -> None:
        """Writes the study's tables from the parts that are there, and the time that it took so far."""
        self.store.merge(tables.run_rows(self.runs, "unfinished"), tables.select_learning_rates)
        now = time.monotonic()
        self.info["seconds"] = round((self.info["seconds"] or 0.0) + now - self._since, 1)
        self._since = now
        self.info |= {"finished": finished, "peak_memory_gib": round(machine.peak_memory_gib(), 2)}
        self.store.write_info(self.info)


def _halves(runs: Sequence[Run]) -> tuple[Sequence[Run], Sequence[Run]]:
    return runs[: len(runs) // 2], runs[len(runs) // 2 :]


def tables_of(study: Study) -> list[str]:
    """The tables that a finished study has."""
    absent = {"curves": not study.steps, "measures": not study.measures}
    return [name for name in TABLES if not absent.get(name)]


def _with_classes(program: Program, dataset: Dataset) -> Program:
    """The program with the data's number of classes, unless its options say more."""
    options = {"num_classes": dataset.num_classes, **program.options}
    if options["num_classes"] < dataset.num_classes:
        raise ValueError(
            f"num_classes={options['num_classes']} is less than the {dataset.num_classes} classes of {dataset.name}"
        )
    return dataclasses.replace(program, options=options)


def _check(study: Study, programs: Sequence[Program], dataset: Dataset) -> None:
    """Whether labels are in range, every model takes the images, every batch can be drawn, and every optimizer and schedule
    fits; nothing is computed.
    """
    for split in (dataset.train, dataset.validation, dataset.test):
        F.check_labels(split.labels, dataset.num_classes)
    for program in programs:
        if program.batch_size > len(dataset.train):
            raise ValueError(
                f"batch_size={program.batch_size} is more than the {len(dataset.train)} training examples of "
                f"{study.data}: take a smaller batch or a larger subset"
            )
        images = jax.ShapeDtypeStruct((program.batch_size, *dataset.image_shape), jnp.float32)
        for initializer in {repr(run.initializer): run.initializer for run in program.runs}.values():
            model = program.make_model(initializer)
            try:
                shapes = jax.eval_shape(model.init, jax.random.key(0), images)
            except (ValueError, TypeError) as error:
                shape = "x".join(map(str, dataset.image_shape))
                raise ValueError(
                    f"{program.title} does not take the {shape} images of {study.data}: {error}"
                ) from error
        jax.eval_shape(program.optimizer.make(0.1).init, shapes["params"])
        if study.steps:
            epoch = len(dataset.train) // program.batch_size
            program.schedule.make(0.1, steps=study.steps, steps_per_epoch=epoch)
    _check_measures(study, programs, dataset)


def _check_measures(study: Study, programs: Sequence[Program], dataset: Dataset) -> None:
    """Whether every measure gives a number or a vector for every model, and has a name of its own; nothing is computed."""
    columns = tables.run_rows(programs[0].runs[:1], "unfinished").columns
    if taken := [name for name in study.measures if name in columns or name == "selected"]:
        raise ValueError(
            f"a measure cannot be called {taken[0]!r}, which is a column of the table of runs already"
        )
    data = _device_data(dataset) if study.measures else None
    for program in programs if study.measures else ():
        numbers = jax.tree.map(lambda array: array[0], numbers_of(program.runs[:1]))
        start = functools.partial(initial_state, program, program.runs[0].initializer, numbers)
        state = jax.eval_shape(start, jnp.zeros((1, *dataset.image_shape)))
        rows = jax.ShapeDtypeStruct((1, program.batch_size), jnp.int32)
        function = functools.partial(measure, program, study.measures)
        for name, shape in jax.eval_shape(function, state, numbers, rows, data).items():
            if shape.ndim > 1:
                raise ValueError(f"measure {name!r} must give a number or a vector; got shape {shape.shape}")


def _device_data(dataset: Dataset) -> Data:
    size = min(max(len(dataset.validation), len(dataset.test)), EVALUATION_BLOCK)
    validation, test = (blocks_of(split, size) for split in (dataset.validation, dataset.test))
    return Data(dataset.train, validation, test, dataset.mean, dataset.std)


def _info(study: Study, dataset: Dataset, devices: RunDevices, command: str) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "format": FORMAT,
        "name": study.name,
        "question": study.question,
        "description": study.description,
        "papers": list(study.papers),
        "config": study.as_config(),
        "axes": axis_labels(study.grid),
        "seeds": list(study.seed_list),
        "learning_rates": [float(rate) for rate in study.learning_rates],
        "steps": study.steps,
        "batch_size": study.batch_size,
        "data": study.data,
        "notes": [*dataset.notes, FLOW_NOTE],
        "num_classes": dataset.num_classes,
        "command": command,
        "versions": machine.versions(),
        "device": machine.device(list(devices.mesh.devices.flat)),
        "run_axis": devices.run_axis,
        "precision": machine.precision(),
        "commit": machine.commit(),
        "earlier": [],
        "started": now,
        "finished": None,
        "seconds": None,
        "peak_memory_gib": None,
    }


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
