"""A run: steps, records, evaluations, looks into every layer, checkpoints, and going on where it was."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from cnnjax import probes
from cnnjax.data import Dataset, StreamedDataset
from cnnjax.files import locked, sweep
from cnnjax.training import hosts, journal
from cnnjax.training.checkpoints import Checkpoints
from cnnjax.training.engine import MOST_STEPS, Engine
from cnnjax.training.events import Events
from cnnjax.training.feed import Feed, Keys, Resident
from cnnjax.training.nonfinite import NonFinite, find_nonfinite
from cnnjax.training.pace import Pace, Pending
from cnnjax.training.placement import Placement
from cnnjax.training.plan import Plan
from cnnjax.training.settings import check_same
from cnnjax.training.step import LOSSES, StepMetrics, Trainer, TrainState
from cnnjax.training.streamed import Streamed, Streaming
from cnnjax.training.watcher import Watcher

CHECKPOINTS, EVENTS = "checkpoints", "events"


class Broken(FloatingPointError):
    """Something was not finite in a step.

    Attributes:
      step: its number, counted from 1.
      found: where, as a second pass through the step found it.
    """

    def __init__(self, step: int, found: NonFinite, folder: Path, last: int | None) -> None:
        kept = (
            "There is no checkpoint from before"
            if last is None
            else f"The checkpoint of step {last} in {folder} is whole"
        )
        super().__init__(
            f"something was not finite in step {step}: {found.text}. {kept}: begin another run with a lower learning rate, "
            "with clipped gradients, or leaving such steps out (on_nonfinite='skip')"
        )
        self.step, self.found = step, found


def train(
    trainer: Trainer,
    dataset: Dataset | StreamedDataset,
    plan: Plan,
    folder: Path,
    *,
    placement: Placement = Placement(),
    streaming: Streaming = Streaming(),
    learning_rate: optax.Schedule | None = None,
    keep_last: int = 2,
    keep_best: int = 1,
    tensorboard: bool = False,
    settings: Mapping[str, Any] | None = None,
    start: Callable[[TrainState], TrainState] = lambda state: state,
    watcher: Watcher = Watcher(),
) -> TrainState:
    """Trains from the newest checkpoint in the folder, or from the beginning, to the end.

    The same run ends with the same numbers, on one device bit for bit, however often it was stopped. The folder gets
    checkpoints, `log.jsonl` (a record every so many steps: means of loss, accuracy and gradient_norm since the last one,
    speed, and where the model was evaluated its `journal.VALIDATION`; evaluations take the moving averages where there are
    such), `layers.jsonl` (looks into every layer), `status.json`, and at the end
    `evaluation.json`; `journal.read_run` reads them.

    Args:
      trainer: what is trained and how.
      dataset: from `data.load`, or `data.open_stream` for one that is larger than memory.
      plan: how long.
      folder: of the run.
      placement: on which devices; may change when a run goes on.
      streaming: how a streamed set is read.
      learning_rate: the schedule, to record it; None leaves it out.
      keep_last, keep_best: checkpoints that are kept, by step and by `journal.HEADLINE` on the validation split.
      tensorboard: write event files, too.
      settings: whatever else the numbers depend on, as JSON: compared when a run goes on.
      start: changes the first state of a new run (other initial parameters, say).
      watcher: what is told on the way.

    Returns:
      The state at the end, or where it was stopped.

    Raises:
      ValueError: the batch does not fit the data or the devices, the trainer is for other labels, another process is at
        work in the folder, or its checkpoints belong to another model or were made with other settings.
      OSError: a checkpoint cannot be written; those before are whole.
      Broken: something was not finite, and the trainer stops at that.
    """
    mesh = placement.mesh(plan.batch_size)
    keys = Keys.of(plan.seed)
    with contextlib.ExitStack() as stack:
        if hosts.is_first():
            stack.enter_context(locked(folder))
            sweep(folder)
        feed = stack.enter_context(contextlib.closing(feed_of(trainer, dataset, plan, keys, mesh, streaming)))
        checkpoints = stack.enter_context(Checkpoints(folder / CHECKPOINTS, last=keep_last, best=keep_best))
        engine = Engine(trainer, feed, keys, placement, mesh)
        told = {
            "batch_size": plan.batch_size,
            "seed": plan.seed,
            "examples": len(dataset.train),
            **(settings or {}),
        }
        run = _Run(engine, plan, folder, checkpoints, watcher, learning_rate, told)
        state = run.first_state(start)
        if tensorboard and hosts.is_first():
            run.events = stack.enter_context(Events(folder / EVENTS, step=run.step))
        return run.go_on(state)


def feed_of(
    trainer: Trainer,
    dataset: Dataset | StreamedDataset,
    plan: Plan,
    keys: Keys,
    mesh: Any,
    streaming: Streaming,
) -> Feed:
    """Where the batches of a run come from: the devices, or the disk.

    Raises:
      ValueError: a batch is larger than the training split, the trainer is for other labels, or an alternating flip is to
        be streamed.
    """
    for name in ("label_kind", "num_classes"):
        if getattr(trainer, name) != getattr(dataset, name):
            raise ValueError(
                f"the trainer has {name} {getattr(trainer, name)!r} and {dataset.name} has {getattr(dataset, name)!r}"
            )
    mirrors = trainer.augmentation.flip == "alternating"
    if isinstance(dataset, Dataset):
        return Resident(dataset, plan, keys, mesh, mirrors=mirrors)
    if mirrors:
        raise ValueError("an alternating flip needs a set that lies on the device: flip by chance instead")
    return Streamed(dataset, plan, mesh, streaming)


class _Run:
    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        folder: Path,
        checkpoints: Checkpoints,
        watcher: Watcher,
        learning_rate: optax.Schedule | None,
        settings: dict[str, Any],
    ) -> None:
        self.engine, self.plan, self.folder, self.checkpoints = engine, plan, folder, checkpoints
        self.watcher, self.learning_rate, self.settings = watcher, learning_rate, settings
        self.step, self.seconds = 0, 0.0
        self.pending = Pending()
        self.best: tuple[int | None, float | None] = (None, None)
        self.events: Events | None = None

    def first_state(self, start: Callable[[TrainState], TrainState]) -> TrainState:
        """That of the newest checkpoint, or of a new run."""
        known = bool(self.checkpoints.steps)
        one = self._restored() if known else start(self.engine.start())
        if hosts.is_first():
            # A look into the layers stands before the first step.
            journal.cut(self.folder, self.step if known else -1)
        where = f"going on from step {self.step:,}" if self.step else "beginning"
        devices = self.engine.mesh.size
        self.watcher.note(
            f"{self.folder}: {where} of {self.plan.steps:,}, on {devices} device{'s' * (devices > 1)}"
        )
        return self.engine.adopt(one)

    def go_on(self, state: TrainState) -> TrainState:
        """To the end, or until it is stopped."""
        with self._reported():
            if self.step < self.plan.steps:
                self.engine.prepare(state)
            state = self._steps(state)
            one = self.engine.one(state)
            if self.step == self.plan.steps:
                self._judge(one)
            self.checkpoints.wait()
        return one

    def _steps(self, state: TrainState) -> TrainState:
        if self.step == 0 and self.plan.probe_every:
            self._look(state)
        pace = Pace(MOST_STEPS, fixed=jax.process_count() > 1)
        stopped = False
        while self.step < self.plan.steps and not stopped:
            count = min(self.plan.next_due(self.step) - self.step, pace.steps)
            begun, waited = time.perf_counter(), self.engine.feed.waited
            state, metrics = self.engine.advance(state, self.step, count)
            seconds = time.perf_counter() - begun
            pace.took(count, seconds)
            self._check(state, metrics)
            self.step += count
            self.pending.add(metrics, seconds, self.engine.feed.waited - waited)
            means = self.pending.latest(count)
            speed = count * self.plan.batch_size / seconds
            self.watcher.beat(self.step, self.plan.steps, {**means, "images_per_second": speed})
            stopped = hosts.agree(self.watcher.stop())
            self._due(state, stopped)
        for name, count in self.engine.feed.corrupt.items():
            self.watcher.note(f"{name} could not be read and was left out {count} times")
        return state

    def _due(self, state: TrainState, stopped: bool) -> None:
        """What is to be done behind a step."""
        record = self._record(state) if self.plan.due("record", self.step) else None
        if self.plan.due("probe", self.step):
            self._look(state)
        if self.plan.due("checkpoint", self.step) or stopped:
            self._save(state, record)
        if record is not None:
            self._tell("running")
            self.watcher.record(record)

    def _record(self, state: TrainState) -> dict[str, Any]:
        per_epoch = self.engine.feed.sizes["train"] // self.plan.batch_size
        record = {
            "step": self.step,
            "epoch": self.step / per_epoch,
            **self.pending.record(self.plan.batch_size),
        }
        if self.learning_rate is not None:
            record["learning_rate"] = float(np.asarray(self.learning_rate(self.step - 1)))
        if self.plan.due("evaluate", self.step) and self.engine.feed.sizes["validation"]:
            found = self.engine.evaluate(self.engine.one(state), "validation").metrics()
            record |= {f"validation_{name}": found[name] for name in journal.VALIDATION if name in found}
            if (score := self._score(record)) is not None:
                self.best = max(self.best, (self.step, score), key=lambda best: best[1] or -1.0)
        self.seconds += record["seconds"]
        self.pending = Pending()
        if hosts.is_first():
            journal.append(self.folder / journal.LOG, record)
        if self.events is not None:
            self.events.record(record)
        return record

    def _look(self, state: TrainState) -> None:
        step = self.step
        flow = self.engine.flow(self.engine.one(state), step)
        columns = {
            name: np.asarray(flow.columns[name], np.float64).tolist() for name in journal.LAYER_COLUMNS
        }
        kind = probes.classify(flow)
        look = {"step": step, "class": kind, "layers": list(flow.layers), **columns}
        if hosts.is_first():
            journal.append(self.folder / journal.LAYERS, look)
        if self.events is not None:
            self.events.look(look)
        if kind != "stable":
            ratio = probes.gradient_ratio(flow)
            self.watcher.note(
                f"step {step}: the gradient is {kind} (first layer over last: 10^{ratio:.1f} in the square)"
            )

    def _save(self, state: TrainState, record: Mapping[str, Any] | None) -> None:
        about = {
            "settings": self.settings,
            "input": self.engine.feed.state(),
            "pending": self.pending.kept(),
            "seconds": self.seconds,
            "best": self.best,
        }
        score = self._score(record or {})
        self.checkpoints.save(self.step, self.engine.one(state), score=score, about=about)

    def _score(self, record: Mapping[str, Any]) -> float | None:
        """By what a step is among the best; None where nothing was evaluated, or no class was there."""
        value = record.get(f"validation_{journal.HEADLINE[self.engine.trainer.label_kind]}", math.nan)
        return value if math.isfinite(value) else None

    def _restored(self) -> TrainState:
        found = self.checkpoints.restore(self.engine.like())
        for reason in found.passed_over:
            self.watcher.note(f"{reason}; that of step {found.step} is taken")
        check_same(found.about["settings"], self.settings, self.folder)
        self.engine.feed.restore(found.about["input"])
        self.pending = Pending.of(found.about["pending"])
        self.step, self.seconds, self.best = found.step, found.about["seconds"], tuple(found.about["best"])
        return found.tree

    def _check(self, state: TrainState, metrics: StepMetrics) -> None:
        """Raises Broken where a step was not finite and training stops at that."""
        trainer, engine = self.engine.trainer, self.engine
        finite = np.asarray(metrics.finite)
        if finite.all():
            return
        first = self.step + int(np.argmin(finite))
        if trainer.on_nonfinite == "skip":
            self.watcher.note(f"step {first + 1} was not finite: its update was left out")
            return
        # The state is that before the step.
        one = engine.one(state)
        images, labels, key = jax.jit(trainer.seen)(
            one.step, engine.feed.batch(first), engine.keys.step, engine.feed.moments
        )
        found = find_nonfinite(
            trainer.model, one.variables(), images, labels, loss=LOSSES[trainer.loss], key=key
        )
        self.checkpoints.wait()
        raise Broken(first + 1, found, self.folder, next(reversed(self.checkpoints.steps), None))

    def _judge(self, one: TrainState) -> None:
        """The whole evaluation at the end."""
        sizes = self.engine.feed.sizes
        found = {
            name: self.engine.evaluate(one, name).report() if sizes[name] else None
            for name in ("validation", "test")
        }
        if hosts.is_first():
            journal.write_evaluation(self.folder, {"step": self.step, **found})

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Keeps `status.json` true, however the block ends."""
        self._tell("running")
        try:
            yield
        except KeyboardInterrupt:
            self._tell("stopped")
            raise
        except Exception as error:
            # The disk may be full.
            with contextlib.suppress(OSError):
                self._tell("failed", error=f"{type(error).__name__}: {error}")
            raise
        self._tell("finished" if self.step == self.plan.steps else "stopped")

    def _tell(self, state: journal.State, *, error: str | None = None) -> None:
        if hosts.is_first():
            best_step, best = self.best
            seconds = self.seconds + self.pending.seconds
            journal.write_status(
                self.folder, state, self.step, seconds, best_step=best_step, best=best, error=error
            )
