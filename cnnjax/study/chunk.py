"""The runs of one program that are computed together: started, advanced segment by segment, stored after each."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from cnnjax import functional as F
from cnnjax.data import Split
from cnnjax.probes import Recorder
from cnnjax.study import step, tables
from cnnjax.study.config import Study
from cnnjax.study.devices import RunDevices
from cnnjax.study.plan import Program, Run
from cnnjax.study.progress import Progress
from cnnjax.study.step import Data, Numbers
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
        self.numbers = self.devices.split(_numbers(self.padded))
        shape = (program.batch_size, *self.data.train.images.shape[1:])
        images = jax.ShapeDtypeStruct(shape, jnp.float32)
        model = program.make_model()
        self.shapes = jax.eval_shape(functools.partial(model.init, jax.random.key(0)), images)
        self.recorder = Recorder.of(model, self.shapes, images)

    def run(self, progress: Progress) -> None:
        """From the first step, or from what was saved, to the end."""
        progress.program(self.program, self.runs)
        if self.study.steps == 0:
            self._look()
            return
        state = jax.eval_shape(self._initial_states)
        saved = self.part.restore(state)
        done, state, rows = saved or (0, self._initial_states(), {})
        state = self.devices.split(state)
        curves = [rows["curves"][rows["curves"]["step"] <= done]] if rows else []
        layers = [rows["layers"][rows["layers"]["step"] < done]] if rows else []
        progress.advance(len(self.runs) * done)
        advance, evaluate = self._compiled(state)
        while done < self.study.steps:
            state, segment = advance((state, self.numbers), self.data)
            validation = evaluate(state, (self.data, self.data.validation))
            segment, validation = jax.device_get((segment, validation))
            layers += self._layer_rows(segment, done)
            done += self.study.record_every
            curves.append(self._curve_rows(segment, validation, done))
            self.part.save(done, state, {"curves": pd.concat(curves), "layers": pd.concat(layers)})
            progress.advance(len(self.runs) * self.study.record_every)
        test = jax.device_get(evaluate(state, (self.data, self.data.test)))
        self._finish(pd.concat(curves), pd.concat(layers), test)

    def _initial_states(self) -> Any:
        """States of all runs; each initializer is a small program of its own."""
        shape = (self.program.batch_size, *self.data.train.images.shape[1:])
        groups: dict[str, list[int]] = {}
        for i, run in enumerate(self.padded):
            groups.setdefault(repr(run.initializer), []).append(i)
        parts = []
        for members in groups.values():
            initializer = self.padded[members[0]].initializer
            start = functools.partial(_start, self.program, self.study.steps, initializer, shape)
            numbers = _numbers([self.padded[i] for i in members])
            parts.append(jax.jit(lambda n, start=start: jax.lax.map(start, n))(numbers))
        order = np.argsort(np.concatenate(list(groups.values())))
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[order], *parts)

    def _compiled(self, state: Any) -> tuple[Any, Any]:
        def advance(one: tuple, shared: Data) -> Any:
            run_state, numbers = one
            lengths = (self.study.steps, self.study.record_every)
            return step.advance(self.program, self.recorder, *lengths, run_state, numbers, shared)

        def evaluate(state: Any, shared: tuple[Data, Split]) -> Any:
            return step.evaluate(self.program, state, *shared)

        return (
            self.devices.compile(advance, (state, self.numbers), self.data),
            self.devices.compile(evaluate, state, (self.data, self.data.validation)),
        )

    def _look(self) -> None:
        """The networks at initialization only."""

        def look(one: tuple, shared: Data) -> Any:
            return step.look(self.program, self.recorder, *one, shared)

        many = (self.devices.split(self._initial_states()), self.numbers)
        flows = jax.device_get(self.devices.compile(look, many, self.data)(many, self.data))
        layers = tables.layer_rows(flows, self.runs, 0)
        columns = tables.flow_columns(layers)
        rows = tables.run_rows(self.runs, "finished", parameters=self._parameters(), **columns)
        self.part.finish({"layers": layers, "runs": rows})

    def _layer_rows(self, segment: Any, done: int) -> list[pd.DataFrame]:
        rows = [tables.layer_rows(segment.first, self.runs, done)]
        last = self.study.steps - 1
        if done + self.study.record_every > last > done:
            rows.append(tables.layer_rows(segment.last, self.runs, last))
        return rows

    def _curve_rows(self, segment: Any, validation: Any, done: int) -> pd.DataFrame:
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

    def _finish(self, curves: pd.DataFrame, layers: pd.DataFrame, test: Any) -> None:
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
        columns |= tables.flow_columns(layers[layers["step"] == 0])
        rows = tables.run_rows(self.runs, "finished", parameters=self._parameters(), **columns)
        rows = tables.mark_diverged(rows, curves, self.recorder.layers)
        curves = curves.drop(columns=["broken_step", "broken_layer"])
        self.part.finish({"curves": curves, "layers": layers, "runs": rows})

    def _parameters(self) -> int:
        return F.parameter_count(self.shapes["params"])


def _start(program: Program, total: int, initializer: Any, shape: tuple[int, ...], numbers: Numbers) -> Any:
    return step.initial_state(program, total, initializer, numbers, jnp.zeros(shape, jnp.float32))


def _numbers(runs: Sequence[Run]) -> Numbers:
    def floats(values: Any) -> np.ndarray:
        return np.asarray(list(values), np.float32)

    return Numbers(
        seed=np.asarray([run.seed for run in runs], np.uint32),
        learning_rate=floats(run.learning_rate for run in runs),
        gain=floats(run.numbers.get("gain", 1.0) for run in runs),
        bias_std=floats(run.numbers.get("bias_std", 0.0) for run in runs),
    )
