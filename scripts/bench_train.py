"""Training steps: ours, Flax as one usually writes it, and eager PyTorch; what a call costs; memory with remat.

    python scripts/bench_train.py [--rounds 15] [--only TEXT] [--json FILE] [--torch-python PATH]

cifar_resnet20 on random images of CIFAR-10's shape, batches of 128, SGD with momentum and weight decay, crops and mirror
images drawn in the step, float32, one device; times in ms for one step. Ours is `training.Trainer`: once with a call each
step and a batch that lies ready, once as `training.train` has it, with the steps and their batches within one compiled call.
Host overhead is a loop over calls of the step of an mlp of width 8, which computes next to nothing; `other` is `jax.jit` of
that step with nothing said of places. Memory is what the compiler sets aside for a step of 128 images besides its arguments
and results; nothing runs.
`--torch-python` names an interpreter with torch where this one has none.
"""

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import train_flax
from bench_grid import torch_python
from benchmarking import Bench, Row, Run, main

from cnnjax import models
from cnnjax.data import Dataset, Split
from cnnjax.training import Augmentation, Batch, Moments, Optimizer, Placement, Plan, Trainer
from cnnjax.training.engine import Engine
from cnnjax.training.feed import Keys, Resident
from cnnjax.training.parallel import jit_step, make_mesh, state_shardings
from cnnjax.training.placement import everywhere, split

MODEL, SIZE, BATCH, STEPS = "cifar_resnet20", 32, 128, 10
# As many as CIFAR-10 has for training.
EXAMPLES = 50_000
CALLS, LOOP = f"{MODEL}, a call each step", f"{MODEL}, {STEPS} steps in a call"
SMALL, MOST_MILLISECONDS = "host overhead of a step", 0.5
SMALL_SIZE, SMALL_BATCH, SMALL_STEPS = 8, 8, 200


class Deep(NamedTuple):
    """A model whose memory is measured: its name, options, and shape of its images."""

    name: str
    options: Mapping[str, Any]
    image: tuple[int, int, int]


MEMORY = {
    "GiB in a step of plain, 1,000 layers, with remat against without": Deep(
        "plain", {"depth": 1000}, (28, 28, 1)
    ),
    "GiB in a step of resnet50, with remat against without": Deep("resnet50", {}, (224, 224, 3)),
}
Step = Callable[..., Any]


def trainer(name: str, *, crop: int = 0, flip: bool = False, **options: Any) -> Trainer:
    """A model with SGD, momentum and L2 decay of its kernels, and what moves its images."""
    optimizer = Optimizer(
        name="sgd",
        options={"momentum": train_flax.MOMENTUM},
        weight_decay=train_flax.DECAY,
        decay="l2",
    )
    return Trainer(
        model=models.create(name, num_classes=10, **options),
        optimizer=optimizer.make(train_flax.RATE),
        num_classes=10,
        augmentation=Augmentation(crop=crop, flip=flip),
    )


def resnet() -> Trainer:
    """The one that is compared."""
    return trainer(MODEL, crop=train_flax.PAD, flip=True)


def placed(made: Trainer, shape: tuple[int, ...], *, plain: bool = False) -> tuple[Step, Any, tuple]:
    """The compiled step on one device, its first state, and its other arguments.

    Args:
      made: whose step it is.
      shape: of the batch's images.
      plain: `jax.jit` of the step with nothing said of places.
    """
    mesh = make_mesh(jax.devices()[:1])
    start = functools.partial(made.initial, jax.random.key(0))
    images = jax.random.bits(jax.random.key(1), shape, jnp.uint8)
    batch = Batch(images, jnp.arange(shape[0]) % 10)
    moments = Moments(*[jnp.full(shape[-1:], 0.5)] * 2)
    state = jax.jit(start)(jnp.zeros((1, *shape[1:])))
    if plain:
        return jax.jit(made.step, donate_argnums=0), state, (batch, jax.random.key(2), moments)
    rest = jax.device_put((jax.random.key(2), moments), everywhere(mesh))
    state = jax.device_put(state, state_shardings(state, mesh))
    return jit_step(made, state, mesh), state, (jax.device_put(batch, split(mesh)), *rest)


def calls(make: Callable[[], Trainer], steps: int, shape: tuple[int, ...], *, plain: bool = False) -> Run:
    """Some steps, one call each; what is donated comes back as the next state. Returns the last loss."""
    step, state, rest = placed(make(), shape, plain=plain)

    def run() -> float:
        nonlocal state
        for _ in range(steps):
            state, metrics = step(state, *rest)
        return float(metrics.loss)

    return run


def one_call(steps: int, batch: int, size: int, examples: int) -> Run:
    """Some steps within one call, with batches of a set that lies on the device. Returns the last loss."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (examples, size, size, 3), np.uint8)
    half = np.full(3, 0.5, np.float32)
    train = Split(images, np.arange(examples, dtype=np.int32) % 10)
    dataset = Dataset(
        name="random",
        train=train,
        validation=train.take(np.arange(0)),
        test=train.take(np.arange(0)),
        num_classes=10,
        image_shape=(size, size, 3),
        mean=half,
        std=half,
        class_names=tuple("0123456789"),
    )
    plan, keys, placement = Plan(steps=steps, batch_size=batch), Keys.of(0), Placement(devices=1)
    mesh = placement.mesh(batch)
    feed = Resident(dataset, plan, keys, mesh, mirrors=False)
    engine = Engine(resnet(), feed, keys, placement, mesh)
    state, done = engine.adopt(engine.start()), 0

    def run() -> float:
        nonlocal state, done
        state, metrics = engine.advance(state, done, steps)
        done += steps
        return float(metrics.loss[-1])

    return run


def memory(deep: Deep, batch: int, remat: bool) -> Run:
    """GiB that the compiled step needs besides its arguments and results."""
    made = trainer(deep.name, remat=remat, **deep.options)
    state = jax.eval_shape(made.initial, jax.random.key(0), jnp.zeros((1, *deep.image)))
    images: Any = jax.ShapeDtypeStruct((batch, *deep.image), jnp.uint8)
    moments = Moments(*[jnp.full(deep.image[-1:], 0.5)] * 2)
    arguments = state, Batch(images, jnp.arange(batch) % 10), jax.random.key(0), moments
    analysis: Any = jax.jit(made.step, donate_argnums=0).lower(*arguments).compile().memory_analysis()
    return lambda: analysis.temp_size_in_bytes / 2**30


def measure(bench: Bench, *, torch: bool) -> None:
    """All rows, each with what is required of it."""
    for case in (CALLS, LOOP):
        bench.compare(case, "ours", "flax", name=f"{case}, against plain Flax", at_most=1.0, per=STEPS)
    if torch:
        bench.compare(CALLS, "ours", "torch", name=f"{CALLS}, against PyTorch", per=STEPS)
    before = len(bench.rows)
    bench.compare(SMALL, "ours", "jit", name=f"{SMALL}, against jax.jit", per=SMALL_STEPS)
    for row in bench.rows[before:]:
        met = row.ours <= MOST_MILLISECONDS
        bench.add(Row(f"{SMALL}, ms", row.ours, None, None, f"<= {MOST_MILLISECONDS:g}", met))
    for case in MEMORY:
        if bench.wants(case):
            ours, other = (bench.ask(side, case).value or 0.0 for side in ("remat", "kept"))
            bench.add(Row(case, ours, other, ours / other, "", None))


if __name__ == "__main__":
    python, arguments = torch_python(sys.argv[1:])
    if python is None and "--side" not in arguments:
        print("PyTorch is skipped: name an interpreter that has it by --torch-python", file=sys.stderr)
    shape, small = (BATCH, SIZE, SIZE, 3), (SMALL_BATCH, SMALL_SIZE, SMALL_SIZE, 1)
    mlp = functools.partial(trainer, "mlp", width=8)
    written = functools.partial(train_flax.training, steps=STEPS, batch=BATCH, size=SIZE)
    sides = {
        "ours": {
            CALLS: functools.partial(calls, resnet, STEPS, shape),
            LOOP: functools.partial(one_call, STEPS, BATCH, SIZE, EXAMPLES),
            SMALL: functools.partial(calls, mlp, SMALL_STEPS, small),
        },
        "jit": {SMALL: functools.partial(calls, mlp, SMALL_STEPS, small, plain=True)},
        "flax": {CALLS: written, LOOP: written},
        **{
            side: {
                case: functools.partial(memory, deep, BATCH, side == "remat") for case, deep in MEMORY.items()
            }
            for side in ("remat", "kept")
        },
    }
    script = str(Path(__file__).parent / "train_torch.py")
    main(
        __doc__,
        sides,
        functools.partial(measure, torch=python is not None),
        commands={"torch": [str(python), script, CALLS, *map(str, (STEPS, BATCH, SIZE))]},
        arguments=arguments,
    )
