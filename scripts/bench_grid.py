"""A grid of networks, trained and recorded: the study engine, an eager PyTorch loop, and Flax as one usually writes it.

    python scripts/bench_grid.py [--rounds 5] [--only TEXT] [--json FILE] [--torch-python PATH]

18 runs of a plain network of 20 layers, 16 channels, 8x8 images, batch 32. Every side computes the same statistics of every
layer at every step. Times are in ms for one step of one run. `--torch-python` names an interpreter with torch where this
one has none.
"""

import argparse
import functools
import importlib.util
import sys
import tempfile
from pathlib import Path

import grid
import jax
import jax.numpy as jnp
import numpy as np
from benchmarking import Bench, Run, main

from cnnjax import study
from cnnjax.data import Split
from cnnjax.probes import Recorder
from cnnjax.study.chunk import numbers_of
from cnnjax.study.step import Data, advance, initial_state

FOLDER = Path(__file__).parent
STUDY = study.Study(
    name="benchmark",
    question="How fast is a grid?",
    grid={"activation": grid.ACTIVATIONS, "initializer": grid.INITIALIZERS},
    options={"depth": grid.DEPTH, "width": grid.WIDTH},
    seeds=grid.SEEDS,
    learning_rates=(grid.RATE,),
    batch_size=grid.BATCH,
    steps=grid.WHOLE,
    record_every=grid.SEGMENT,
)


def steady() -> Run:
    """A segment of every run; each program of the study is compiled before."""
    images, labels = grid.data()
    split = Split(images, labels)
    devices = study.RunDevices()
    data = devices.everywhere(Data(split, (split,), (split,), np.float32([0.5]), np.float32([0.3])))
    segments = [segment(program, devices, data) for program in study.plan(STUDY)]
    return lambda: jax.device_get([run() for run in segments])


def segment(program: study.Program, devices: study.RunDevices, data: Data) -> Run:
    """The compiled segment of the runs of one program."""
    images = jnp.zeros((grid.BATCH, grid.SIZE, grid.SIZE, 1))
    model = program.make_model()
    recorder = Recorder.of(model, jax.eval_shape(model.init, jax.random.key(0), images), images)

    def one(operands: tuple, shared: Data) -> tuple:
        return advance(program, recorder, grid.WHOLE, *operands, shared)

    # All from one initializer: what the numbers are does not change the time.
    start = functools.partial(initial_state, program, program.runs[0].initializer)
    runs = [*program.runs, *[program.runs[-1]] * (devices.padded(len(program.runs)) - len(program.runs))]
    numbers = numbers_of(runs)
    states = jax.jit(study.over_runs(start, run_axis="map"))(numbers, images)
    rows = np.stack([grid.batches(run.seed, grid.SEGMENT) for run in runs])
    many = devices.split((states, numbers, rows))
    compiled = devices.compile(one, many, data)
    return lambda: compiled(many, data)[1]


def from_nothing() -> Run:
    """The whole study on the digits with nothing compiled, its evaluation and its files included."""

    def run() -> None:
        jax.clear_caches()
        with tempfile.TemporaryDirectory() as folder:
            study.run(STUDY, folder, quiet=True)

    return run


def measure(bench: Bench, *, torch: bool) -> None:
    """All rows, each with what is required of it."""
    others = [("Flax as usual", "flax", 2.0), ("eager PyTorch", "torch", 1.3)]
    for name, side, factor in others if torch else others[:1]:
        for case, rounds in ((grid.STEADY, None), (grid.FROM_NOTHING, 1)):
            steps = grid.SEGMENT if case == grid.STEADY else grid.WHOLE
            bench.compare(
                case,
                "ours",
                side,
                name=f"{case}, against {name}",
                at_least=factor,
                rounds=rounds,
                per=grid.RUNS * steps,
            )


def torch_python(options: list[str]) -> tuple[str | None, list[str]]:
    """The interpreter with torch, and the options that are left."""
    parser = argparse.ArgumentParser(add_help=False)
    here = sys.executable if importlib.util.find_spec("torch") else None
    parser.add_argument("--torch-python", default=here)
    known, rest = parser.parse_known_args(options)
    return known.torch_python, rest


if __name__ == "__main__":
    study.one_host_device_per_core()
    python, arguments = torch_python(sys.argv[1:])
    if python is None and "--side" not in arguments:
        print("PyTorch is skipped: name an interpreter that has it by --torch-python", file=sys.stderr)
    commands = {
        "flax": [sys.executable, str(FOLDER / "grid_flax.py")],
        "torch": [str(python), str(FOLDER / "grid_torch.py")],
    }
    sides = {"ours": {grid.STEADY: steady, grid.FROM_NOTHING: from_nothing}}
    main(
        __doc__,
        sides,
        functools.partial(measure, torch=python is not None),
        commands=commands,
        arguments=arguments,
    )
