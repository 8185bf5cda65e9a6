"""The runs of one program that are computed together: started, advanced segment by segment, stored after each."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from cnnjax import functional as F
from cnnjax.data import Split, batch_indices
from cnnjax.frame import Frame
from cnnjax.probes import Recorder
from cnnjax.study import tables
from cnnjax.study.config import Study
from cnnjax.study.devices import RunDevices, over_runs
from cnnjax.study.plan import Program, Run
from cnnjax.study.progress import Progress
from cnnjax.study.step import Data, Numbers, State, advance, evaluate, initial_state, look, measure
from cnnjax.study.store import Part


class Chunk:
    """The runs of one program that are computed together."""

    def __init__(
        self, study: Study, program: Program, runs: Sequence[Run], part: Part, devices: RunDevices, data: Data
    ) -> None:
        self.study, self.program, self.runs, self.part = study, program, runs, part
        self.devices, self.data = devices, data
        # The runs with the padding that fills every device: repetitions of the last one.
        self.padded = [*runs, *[runs[-1]] * (self.devices.padded(len(runs)) - len(runs))]
        self.numbers = self.devices.split(numbers_of(self.padded))
        shape = (program.batch_size, *self.data.train.images.shape[1:])
        self.images = jax.ShapeDtypeStruct(shape, jnp.float32)
        model = program.make_model()
        self.shapes = jax.eval_shape(functools.partial(model.init, jax.random.key(0)), self.images)
        self.recorder = Recorder.of(model, self.shapes, self.images)

    def prepare(self) -> "Chunk":
        """Compiles, and makes the first states or reads the saved ones; may be called in a thread, ahead of `run`."""
        self._done, self._curves, self._layers = 0, [], []
        shapes = jax.eval_shape(self._start(self.padded), numbers_of(self.padded), self.images)
        names = ["curves", "layers", *(["measures"] if self.study.measures else [])]
        saved = self.part.restore(shapes, names)
        if saved is None:
            self._state = self.devices.split(self._initial_states())
            self._measures = self._measure()
        else:
            self._done, state, rows = saved
            self._curves = [rows["curves"][rows["curves"]["step"] <= self._done]]
            self._layers = [rows["layers"][rows["layers"]["step"] < self._done]]
            self._measures = {name: rows[name] for name in rows if name == "measures"}
            self._state = self.devices.split(state)
        self._compile()
        return self

    def run(self, progress: Progress) -> None:
        """From the first step, or from what was saved, to the end."""
        progress.program(self.program, self.runs)
        if self.study.steps == 0:
            self._look()
            return
        progress.advance(len(self.runs) * self._done)
        while self._done < self.study.steps:
            self._segment()
            progress.advance(len(self.runs) * self.study.record_every)
        self._finish(pd.concat(self._curves), pd.concat(self._layers), self._score(self.data.test))

    def _segment(self) -> None:
        """One compiled call, its evaluation, and their storing."""
        rows = self._draw(self.study.record_every)
        self._state, segment = self._advance((self._state, self.numbers, rows), self.data)
        validation = self._score(self.data.validation)
        segment = jax.device_get(segment)
        self._layers += self._layer_rows(segment, self._done)
        self._done += self.study.record_every
        self._curves.append(self._curve_rows(segment, validation, self._done))
        so_far = {"curves": pd.concat(self._curves), "layers": pd.concat(self._layers)}
        self.part.save(self._done, self._state, so_far | self._measures)

    def _score(self, blocks: Sequence[Split]) -> tuple[np.ndarray, np.ndarray]:
        """Mean loss and accuracy of every run on a split; of a broken network, whose answers mean nothing, both are NaN."""
        sums = [self._evaluate(self._state, (self.data, block)) for block in blocks]
        loss, correct, count = np.sum(jax.device_get(sums), axis=0).T
        return loss / count, np.where(np.isfinite(loss), correct / count, np.nan)

    def _look(self) -> None:
        """The networks at initialization only."""
        many = (self._state, self.numbers, self._draw(1))
        layers = tables.layer_rows(jax.device_get(self._advance(many, self.data)), self.runs, 0)
        columns = tables.flow_columns(layers) | self._measure_columns()
        rows = tables.run_rows(self.runs, "finished", parameters=self._parameters(), **columns)
        broken = rows["flow"] == "not finite"
        rows.loc[broken, ["status", "diverged_step"]] = ["diverged", 0]
        self.part.finish({"layers": layers, "runs": rows} | self._measures)

    def _draw(self, steps: int) -> jax.Array:
        """The rows of the next batches, `(runs, steps, batch_size)`."""
        seeds = np.asarray([run.seed for run in self.padded], np.uint32)
        sizes = dict(steps=steps, size=len(self.data.train), batch_size=self.program.batch_size)
        return self.devices.split(_draw_batches(seeds, self._done, **sizes))

    def _measure(self) -> dict[str, Frame]:
        """The table of the study's own measures, under its name; nothing where it has none."""
        if not self.study.measures:
            return {}

        def one_run(one: Any, shared: Data) -> Any:
            state, numbers, rows = one
            return measure(self.program, self.study.measures, state, numbers, rows, shared)

        many = (self._state, self.numbers, self._draw(1))
        measured = self.devices.compile(one_run, many, self.data)(many, self.data)
        return {"measures": tables.measure_rows(jax.device_get(measured), self.runs)}

    def _measure_columns(self) -> dict[str, np.ndarray]:
        return tables.measure_columns(self._measures["measures"]) if self._measures else {}

    def _initial_states(self) -> State:
        """States of all runs; each initializer is a small program of its own, which cells of the same kernels share."""
        groups: dict[str, list[int]] = {}
        for i, run in enumerate(self.padded):
            groups.setdefault(repr(run.initializer), []).append(i)
        parts = []
        for members in groups.values():
            runs = [self.padded[i] for i in members]
            # One image does, and is the same for all batch sizes.
            images = jnp.zeros((1, *self.images.shape[1:]), jnp.float32)
            parts.append(self.devices.programs.call(self._start(runs), numbers_of(runs), images))
        order = np.argsort(np.concatenate(list(groups.values())))
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[order], *parts)

    def _start(self, runs: Sequence[Run]) -> Callable[..., State]:
        """A function of (numbers, images) that makes the first states of runs with the same initializer."""
        start = functools.partial(initial_state, self.program, runs[0].initializer)
        return over_runs(start, run_axis="map")

    def _compile(self) -> None:
        def train(one: Any, shared: Data) -> Any:
            state, numbers, rows = one
            return advance(self.program, self.recorder, self.study.steps, state, numbers, rows, shared)

        def look_only(one: Any, shared: Data) -> Any:
            state, numbers, rows = one
            return look(self.program, self.recorder, state, numbers, rows, shared)

        def score(one: State, shared: tuple[Data, Split]) -> Any:
            return evaluate(self.program, one, *shared)

        trains = self.study.steps > 0
        many = (self._state, self.numbers, self._draw(self.study.record_every if trains else 1))
        self._advance = self.devices.compile(train if trains else look_only, many, self.data)
        if trains:
            self._evaluate = self.devices.compile(score, self._state, (self.data, self.data.validation[0]))

    def _layer_rows(self, segment: Any, done: int) -> list[Frame]:
        rows = [tables.layer_rows(segment.first, self.runs, done)]
        last = self.study.steps - 1
        if done + self.study.record_every > last > done:
            rows.append(tables.layer_rows(segment.last, self.runs, last))
        return rows

    def _curve_rows(self, segment: Any, validation: Any, done: int) -> Frame:
        broken = np.where(
            segment.broken_step < self.study.record_every,
            done - self.study.record_every + segment.broken_step,
            np.nan,
        )
        return tables.curve_rows(
            self.runs,
            done,
            loss=segment.loss,
            accuracy=segment.accuracy,
            validation_loss=validation[0],
            validation_accuracy=validation[1],
            broken_step=broken,
            broken_layer=segment.broken_layer,
        )

    def _finish(self, curves: Frame, layers: Frame, test: Any) -> None:
        count = len(self.runs)
        last = curves[curves["step"] == self.study.steps]
        columns = {
            "train_loss": last["loss"].to_numpy(),
            "train_accuracy": last["accuracy"].to_numpy(),
            "validation_loss": last["validation_loss"].to_numpy(),
            "validation_accuracy": last["validation_accuracy"].to_numpy(),
            "test_loss": np.asarray(test[0], np.float64)[:count],
            "test_accuracy": np.asarray(test[1], np.float64)[:count],
        }
        columns |= tables.flow_columns(layers[layers["step"] == 0]) | self._measure_columns()
        rows = tables.run_rows(self.runs, "finished", parameters=self._parameters(), **columns)
        rows = tables.mark_diverged(rows, curves, self.recorder.layers)
        self.part.finish({"curves": curves, "layers": layers, "runs": rows} | self._measures)

    def _parameters(self) -> int:
        return F.parameter_count(self.shapes["params"])


@functools.partial(jax.jit, static_argnames=("steps", "size", "batch_size"))
def _draw_batches(seeds: np.ndarray, first_step: int, *, steps: int, size: int, batch_size: int) -> jax.Array:
    """`data.batch_indices` of every run, from another random stream than its parameters'; one program for a whole study."""

    def rows(seed: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed), 1)
        return batch_indices(key, first_step, steps=steps, size=size, batch_size=batch_size)

    return jax.lax.map(rows, seeds)


def numbers_of(runs: Sequence[Run]) -> Numbers:
    """The numbers of some runs of one program, arrays `(runs,)`; None for those that no run sets."""

    def option(name: str, default: float) -> np.ndarray | None:
        if not any(name in run.numbers for run in runs):
            return None
        return np.asarray([run.numbers.get(name, default) for run in runs], np.float32)

    return Numbers(
        seed=np.asarray([run.seed for run in runs], np.uint32),
        learning_rate=np.asarray([run.learning_rate for run in runs], np.float32),
        gain=option("gain", 1.0),
        bias_std=option("bias_std", 0.0),
    )
