"""A run on a data set that fits on the device: segments of steps, records, evaluations, checkpoints, going on."""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cnnjax.data import Dataset, Split, batch_indices
from cnnjax.files import locked, replacing
from cnnjax.training.checkpoints import Checkpoints
from cnnjax.training.metrics import Tally
from cnnjax.training.parallel import check_batch, make_mesh, state_shardings
from cnnjax.training.step import Batch, Moments, StepMetrics, Trainer, TrainState

CHECKPOINTS, LOG = "checkpoints", "log.jsonl"
EVALUATION_BATCH = 500


class Broken(FloatingPointError):
    """The loss was not finite; `step` is the number of the step, counted from 1."""

    def __init__(self, step: int, folder: Path) -> None:
        super().__init__(
            f"the loss was not finite in step {step}: lower the learning rate or clip the gradients; the last checkpoint in "
            f"{folder} is from before"
        )
        self.step = step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How long a run is and what is done on the way; all lengths in steps.

    Attributes:
      steps: of the run.
      batch_size: of all devices together.
      seed: of the initial parameters, the order of the examples, augmentation and dropout.
      every: steps between two records, each a compiled call; all other lengths are multiples of it.
      evaluate_every: steps between two evaluations on the validation split; there is one at the end, too.
      checkpoint_every: steps between two checkpoints; there is one at the end, too.
    """

    steps: int
    batch_size: int
    seed: int = 0
    every: int = 100
    evaluate_every: int = 1000
    checkpoint_every: int = 1000

    def __post_init__(self):
        for name in ("steps", "batch_size", "every", "evaluate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("steps", "evaluate_every", "checkpoint_every"):
            if getattr(self, name) % self.every:
                raise ValueError(
                    f"{name} must be a multiple of every, the steps of a compiled call; got {getattr(self, name)} and "
                    f"{self.every}"
                )


def train(
    trainer: Trainer,
    dataset: Dataset,
    plan: Plan,
    folder: Path,
    *,
    mesh: Mesh | None = None,
    tell: Callable[[Mapping[str, Any]], object] = lambda record: None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainState:
    """Trains from the newest checkpoint in the folder, or from the beginning, to the end.

    The same run ends with the same numbers, on one device bit for bit, however often it was stopped. The folder gets
    checkpoints and `log.jsonl`, a record for each segment: step, loss, accuracy and gradient_norm (means over its steps),
    seconds, images_per_second, and where the model was evaluated, validation_loss and validation_accuracy.

    Args:
      trainer: what is trained and how.
      dataset: from `data.load`.
      plan: how long.
      folder: of the run.
      mesh: from `make_mesh`; None takes all devices.
      tell: is called with each record.
      stop: asked after each segment; where it is true, a checkpoint is written and the run ends early.

    Raises:
      ValueError: the batch does not fit the data or the devices, another process is at work in the folder, or its
        checkpoints belong to another model.
      Broken: the loss was not finite.
    """
    mesh = make_mesh() if mesh is None else mesh
    check_batch(plan.batch_size, mesh.shape["data"])
    with locked(folder), Checkpoints(folder / CHECKPOINTS) as checkpoints:
        return _Run(trainer, dataset, plan, folder, mesh, checkpoints).go_on(tell, stop)


class _Run:
    def __init__(
        self,
        trainer: Trainer,
        dataset: Dataset,
        plan: Plan,
        folder: Path,
        mesh: Mesh,
        checkpoints: Checkpoints,
    ) -> None:
        self.trainer, self.plan, self.folder, self.checkpoints = trainer, plan, folder, checkpoints
        self.everywhere = NamedSharding(mesh, PartitionSpec())
        self.split = NamedSharding(mesh, PartitionSpec("data"))
        self.data = dataset.on_device(sharding=self.everywhere)
        self.moments = Moments(jnp.asarray(dataset.mean), jnp.asarray(dataset.std))
        self.keys = jax.random.split(jax.random.key(plan.seed), 3)
        image = jax.ShapeDtypeStruct((1, *dataset.image_shape), jnp.float32)
        self.start = functools.partial(trainer.initial, self.keys[0], jnp.zeros(image.shape, image.dtype))
        self.places = state_shardings(jax.eval_shape(self.start), mesh)
        self.segment = jax.jit(self._segment, out_shardings=(self.places, self.everywhere), donate_argnums=0)
        self.evaluate = jax.jit(self._evaluate, out_shardings=self.everywhere)

    def go_on(self, tell: Callable[[Mapping[str, Any]], object], stop: Callable[[], bool]) -> TrainState:
        state = (
            self._restored() if self.checkpoints.steps else jax.jit(self.start, out_shardings=self.places)()
        )
        step = int(state.step)
        self._cut_log(step)
        while step < self.plan.steps:
            begun = time.perf_counter()
            state, metrics = self.segment(state, self.data.train, self.moments)
            record = self._record(step, metrics, begun)
            step += self.plan.every
            ended, stopped = step == self.plan.steps, stop()
            if step % self.plan.evaluate_every == 0 or ended:
                found = self.evaluate(state, self.data.validation, self.moments).metrics()
                record |= {f"validation_{name}": found[name] for name in ("loss", "accuracy")}
            with (self.folder / LOG).open("a") as file:
                file.write(json.dumps(record) + "\n")
            if step % self.plan.checkpoint_every == 0 or ended or stopped:
                self.checkpoints.save(step, state, score=record.get("validation_accuracy"))
            tell(record)
            if stopped:
                break
        return state

    def _segment(self, state: TrainState, train: Split, moments: Moments) -> tuple[TrainState, StepMetrics]:
        rows = batch_indices(
            self.keys[1],
            state.step,
            steps=self.plan.every,
            size=len(train),
            batch_size=self.plan.batch_size,
        )

        def step(state: TrainState, row: jax.Array) -> tuple[TrainState, StepMetrics]:
            batch = Batch(jnp.asarray(train.images)[row], jnp.asarray(train.labels)[row])
            batch = jax.lax.with_sharding_constraint(batch, self.split)
            return self.trainer.step(state, batch, self.keys[2], moments)

        return jax.lax.scan(step, state, rows)

    def _evaluate(self, state: TrainState, split: Split, moments: Moments) -> Tally:
        variables = state.variables(averaged=True)
        batches = -(-len(split) // EVALUATION_BATCH)
        size = -(-len(split) // batches)
        padded = jax.tree.map(
            lambda x: jnp.pad(x, [(0, batches * size - len(split))] + [(0, 0)] * (x.ndim - 1)).reshape(
                batches, size, *x.shape[1:]
            ),
            (split.images, split.labels),
        )
        weights = (jnp.arange(batches * size) < len(split)).reshape(batches, size)

        def one(operands: Any) -> Tally:
            (images, labels), weight = operands
            return self.trainer.evaluate(variables, Batch(images, labels), moments, weights=weight)

        return jax.tree.map(lambda x: x.sum(axis=0), jax.lax.map(one, (padded, weights)))

    def _record(self, step: int, metrics: StepMetrics, begun: float) -> dict[str, Any]:
        """Waits for a segment."""
        losses = np.asarray(metrics.loss)
        if not np.isfinite(losses).all():
            raise Broken(step + int(np.argmin(np.isfinite(losses))) + 1, self.folder)
        seconds = time.perf_counter() - begun
        means = {name: float(np.mean(column)) for name, column in metrics._asdict().items()}
        images = self.plan.every * self.plan.batch_size
        return {
            "step": step + self.plan.every,
            **means,
            "seconds": seconds,
            "images_per_second": images / seconds,
        }

    def _restored(self) -> TrainState:
        shapes = jax.eval_shape(self.start)
        like = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            self.places,
        )
        return self.checkpoints.restore(like).tree

    def _cut_log(self, step: int) -> None:
        """Leaves out what was recorded behind the checkpoint: it is done again."""
        path = self.folder / LOG
        if not path.exists():
            return
        kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
        with replacing(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    """The step of a record; infinite for a line that was cut off."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")
