"""The compiled functions of a run: its start, its steps, evaluations and looks into every layer."""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnnjax.compiling import jit
from cnnjax.data import Split
from cnnjax.probes import Flow
from cnnjax.training import hosts, memory
from cnnjax.training.feed import Feed, Keys, Resident, Weighed
from cnnjax.training.label_tally import LabelTally
from cnnjax.training.labels import LABELS
from cnnjax.training.metrics import Tally
from cnnjax.training.parallel import DATA, jit_step, pmap_step, replicated, state_shardings
from cnnjax.training.placement import Placement, everywhere, split
from cnnjax.training.step import Batch, Moments, StepMetrics, Trainer, TrainState

MOST_STEPS = 500
"""Steps of a compiled call, at most."""


class Engine:
    """Advances a state on the devices of a placement.

    A state is as `Trainer` has it ("one" below), but under pmap, where `advance` takes and gives one copy a device.

    Args:
      trainer: what is trained and how.
      feed: where batches come from.
      keys: of the run.
      placement: on which devices.
      mesh: of the placement.
    """

    def __init__(self, trainer: Trainer, feed: Feed, keys: Keys, placement: Placement, mesh: Mesh) -> None:
        self.trainer, self.feed, self.keys, self.placement, self.mesh = trainer, feed, keys, placement, mesh
        self.devices = list(mesh.devices.flat)
        images = feed.first_images()
        self._initial = functools.partial(trainer.initial, keys.initial)
        self.shapes = jax.eval_shape(self._initial, images)
        self.places = state_shardings(self.shapes, mesh)
        self._images = images
        # What every step takes besides the state and its batch.
        self.constants = hosts.everywhere((keys.step, feed.moments), mesh)
        self._evaluate = jit(self._evaluated, out_shardings=everywhere(mesh))
        self._flow = jit(trainer.flow, out_shardings=everywhere(mesh))
        # A set on the devices, under jit: many steps are one compiled call.
        if isinstance(feed, Resident) and placement.by == "jit":
            self._steps = _Together(self, feed)
        else:
            self._steps = _Apart(self)

    def start(self) -> TrainState:
        """One state, before the first step."""
        images = hosts.everywhere(self._images, self.mesh)
        return jit(self._initial, out_shardings=self.places)(images)

    def like(self) -> Any:
        """Shapes, types and places of one state, as a checkpoint is restored to."""

        def described(leaf: Any, place: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

        return jax.tree.map(described, self.shapes, self.places)

    def adopt(self, one: TrainState) -> TrainState:
        """One state as `advance` takes it."""
        return replicated(one, self.devices) if self.placement.by == "pmap" else one

    def one(self, state: TrainState) -> TrainState:
        """The inverse of `adopt`: what is kept, evaluated and looked at."""
        if self.placement.by == "jit":
            return state
        return jax.device_put(jax.tree.map(lambda x: x[0], state), self.places)

    def prepare(self, state: TrainState) -> None:
        """Compiles the steps.

        Raises:
          OutOfMemory: they need more memory than there is; the text says what would fit.
        """
        with self._explaining():
            compiled = self._steps.compile(state)
        there = memory.limit(self.devices[0])
        if compiled is not None and there is not None and memory.needed(compiled) > there:
            raise memory.OutOfMemory(self._advice(there))

    def advance(self, state: TrainState, step: int, count: int) -> tuple[TrainState, StepMetrics]:
        """Takes steps and waits for them. The state is donated.

        Args:
          state: to go on from.
          step: its number of steps.
          count: how many steps, `MOST_STEPS` at most.

        Returns:
          The next state, and the metrics of the steps, `(count,)` on the host.

        Raises:
          OutOfMemory: memory ran out; the text says what would fit.
        """
        with self._explaining():
            state, metrics = self._steps(state, step, count)
            return state, jax.tree.map(lambda x: np.asarray(x)[:count], metrics)

    def evaluate(self, one: TrainState, name: str) -> Tally | LabelTally:
        """The sums over a split, with the averaged parameters where there are such."""
        variables = one.variables(averaged=True)
        tallies = (
            self._evaluate(variables, weighed, self.feed.moments) for weighed in self.feed.evaluation(name)
        )
        return functools.reduce(lambda a, b: a + b, tallies)

    def flow(self, one: TrainState, step: int) -> Flow:
        """Statistics of every layer in the step that comes next."""
        return self._flow(one, self.feed.batch(step), self.keys.step, self.feed.moments)

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            there = memory.limit(self.devices[0])
            if there is None or not memory.explained(error):
                raise
            raise memory.OutOfMemory(self._advice(there)) from error

    def _advice(self, there: int) -> str:
        """What would fit beside the data."""
        model = self.trainer.model
        resident = self.feed.splits if isinstance(self.feed, Resident) else {}
        data = sum(leaf.nbytes for leaf in jax.tree.leaves(resident))
        return memory.advise(
            self.lowered,
            batch_size=self.feed.batch_size,
            can_remat=getattr(model, "remat", None) is False,
            limit=max(there - data, 0),
            multiple_of=self.mesh.shape[DATA],
        )

    def lowered(self, batch_size: int, remat: bool) -> Any:
        """One step over the mesh, compiled for a batch size, with remat or as the model has it; nothing runs."""
        trainer = self.trainer
        if remat:
            trainer = dataclasses.replace(trainer, model=trainer.model.clone(remat=True))
        step = jit_step(trainer, self.shapes, self.mesh)
        return step.lower(self.like(), self.batch_like(batch_size), *self.constants).compile()

    def batch_like(self, batch_size: int) -> Batch:
        """Shapes, types and places of a batch."""
        trainer, kind = self.trainer, LABELS[self.trainer.label_kind]
        arrays = [(jnp.uint8, self._images.shape[1:]), (kind.dtype, kind.shape(trainer.num_classes))]
        if trainer.augmentation.flip == "alternating":
            arrays.append((jnp.bool_, ()))
        parts = split(self.mesh)
        described: list[Any] = [
            jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=parts) for dtype, shape in arrays
        ]
        return Batch(*described)

    def _evaluated(self, variables: Any, weighed: Weighed, moments: Moments) -> Tally | LabelTally:
        return self.trainer.evaluate(variables, weighed.batch, moments, weights=weighed.weights)


class _Together:
    """Steps as a loop within one compiled program; how many is an argument, so that it is compiled once."""

    def __init__(self, engine: Engine, feed: Resident) -> None:
        self.engine, self.feed = engine, feed
        out = (engine.places, everywhere(engine.mesh))
        self._steps = jit(self._loop, out_shardings=out, donate_argnums=0)
        self._compiled: Any = None

    def compile(self, state: TrainState) -> Any:
        self._compiled = self._steps.lower(*self._arguments(state, 1)).compile()
        return self._compiled

    def __call__(self, state: TrainState, step: int, count: int) -> tuple[TrainState, StepMetrics]:
        compiled = self._compiled or self.compile(state)
        return compiled(*self._arguments(state, count))

    def _arguments(self, state: TrainState, count: int) -> tuple[Any, ...]:
        same = hosts.everywhere((np.int32(count), self.feed.moments), self.engine.mesh)
        return state, same[0], self.feed.splits["train"], same[1]

    def _loop(
        self, state: TrainState, count: jax.Array, train: Split, moments: Moments
    ) -> tuple[TrainState, StepMetrics]:
        engine, first = self.engine, state.step
        rows = self.feed.rows(first, MOST_STEPS)
        none = jnp.zeros(MOST_STEPS, jnp.float32)
        empty = StepMetrics(none, none, none, jnp.ones(MOST_STEPS, bool))

        def body(i: jax.Array, carry: tuple[TrainState, StepMetrics]) -> tuple[TrainState, StepMetrics]:
            state, metrics = carry
            batch = self.feed.taken(train, rows[i], first + i)
            state, one = engine.trainer.step(state, batch, engine.keys.step, moments)
            return state, jax.tree.map(lambda many, x: many.at[i].set(x), metrics, one)

        return jax.lax.fori_loop(0, count, body, (state, empty))


class _Apart:
    """Steps one by one, each with the next batch of the feed."""

    def __init__(self, engine: Engine) -> None:
        self.engine, placement = engine, engine.placement
        self._step: Any = None
        if placement.by == "pmap":
            synchronized = placement.batch_norm == "global"
            self._step = pmap_step(engine.trainer, devices=engine.devices, synchronized=synchronized)

    def compile(self, state: TrainState) -> Any:
        """Under pmap the first call compiles, and nothing is known of what it needs."""
        if self._step is not None:
            return None
        self._step = self.engine.lowered(self.engine.feed.batch_size, False)
        return self._step

    def __call__(self, state: TrainState, step: int, count: int) -> tuple[TrainState, StepMetrics]:
        self.compile(state)
        engine, found = self.engine, []
        constants = (
            (engine.keys.step, engine.feed.moments) if engine.placement.by == "pmap" else engine.constants
        )
        for batch in itertools.islice(engine.feed.following(step), count):
            state, metrics = self._step(state, batch, *constants)
            found.append(metrics)
        columns = zip(*jax.device_get(found), strict=True)
        return state, StepMetrics(*(np.stack(column) for column in columns))
