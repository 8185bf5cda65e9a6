"""CIFAR-10 to 94 % in seconds: the preset cifar10-fast, each run one compiled program.

    python scripts/bench_cifar10_fast.py [--seeds 20] [--epochs 8] [--batch-size 2000] [--subset N] [--width 64]
        [--precision bfloat16] [--data cifar10]

A run is everything from the seed to the test accuracy: initialization and whitening, all epochs with their shuffling and
augmentation, and the test set with its views. Data lies on the device. Compiling and a first run, which some devices
still tune themselves in, are reported apart. `--data digits32` needs no CIFAR-10 and shows that everything runs.

References, on one A100, compile time left out there, too: 2.59 s (Jordan 2024, airbench94_muon.py, n = 200) and 1.99 s
(Hiverge, October 2025), at 94 % mean test accuracy.
"""

import argparse
import dataclasses
import importlib.metadata
import math
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.data import Dataset, Split, batch_indices, load, normalize
from cnnjax.data.augment import alternating
from cnnjax.study.statistics import mean
from cnnjax.training import Batch, Moments, Trainer
from cnnjax.training.feed import CALIBRATION_IMAGES, Keys
from cnnjax.training.presets import PRESETS
from cnnjax.training.recipe import PRECISIONS, Recipe

EVALUATED = 2000
REFERENCES = "references, one A100: 2.59 s (airbench94_muon.py, Jordan 2024), 1.99 s (Hiverge, October 2025)"

Run = Callable[[jax.Array, Split, Split], tuple[jax.Array, jax.Array]]


def chosen(options: argparse.Namespace) -> Recipe:
    """The preset with what was asked for changed. Rates stay: they are for batches of 2,000."""
    changes: dict[str, Any] = {"data": options.data, "subset": options.subset}
    if options.epochs:
        changes["duration"] = f"{options.epochs} epochs"
    if options.batch_size:
        changes["batch_size"] = options.batch_size
    if options.precision:
        changes["precision"] = options.precision
    if options.width:
        width = options.width
        changes["options"] = {"widths": (width, 4 * width, 4 * width)}
    return dataclasses.replace(PRESETS["cifar10-fast"], **changes)


def program(trainer: Trainer, moments: Moments, *, steps: int, batch_size: int) -> Run:
    """A whole run as a function of a seed, the training and the test images: test accuracy, and losses `(steps,)`."""
    mirrors = trainer.augmentation.flip == "alternating"

    def run(seed: jax.Array, train: Split, test: Split) -> tuple[jax.Array, jax.Array]:
        keys, size = Keys(*jax.random.split(jax.random.key(seed), 4)), len(train)
        images, labels = jnp.asarray(train.images), jnp.asarray(train.labels)
        rows = batch_indices(keys.order, 0, steps=steps, size=size, batch_size=batch_size)
        state = trainer.initial(keys.initial, normalize(images[:CALIBRATION_IMAGES], *moments))

        def step(state: Any, row: jax.Array) -> tuple[Any, Any]:
            epoch = state.step // (size // batch_size)
            mirrored = alternating(keys.mirror, row, epoch) if mirrors else None
            batch = Batch(images[row], labels[row], mirrored)
            state, metrics = trainer.step(state, batch, keys.step, moments)
            return state, metrics.loss

        state, losses = jax.lax.scan(step, state, rows)
        return accuracy(trainer, state.variables(averaged=True), test, moments), losses

    return run


def accuracy(trainer: Trainer, variables: Any, test: Split, moments: Moments) -> jax.Array:
    """Over a whole split, in pieces of one size, of which the last is filled up."""
    size = len(test)
    piece = math.ceil(size / math.ceil(size / EVALUATED))
    rows = jnp.arange(piece * math.ceil(size / piece), dtype=jnp.int32).reshape(-1, piece)

    def right(row: jax.Array) -> jax.Array:
        place = jnp.minimum(row, size - 1)
        batch = Batch(jnp.asarray(test.images)[place], jnp.asarray(test.labels)[place])
        return jnp.trace(trainer.evaluate(variables, batch, moments, weights=row < size).confusion)

    return jnp.sum(jax.lax.map(right, rows)) / size


def timed(run: Callable[..., Any], seed: int, dataset: Dataset) -> tuple[float, float, float]:
    """Seconds of a run, its test accuracy, and its last loss."""
    arguments = jax.block_until_ready((jnp.uint32(seed), dataset.train, dataset.test))
    start = time.perf_counter()
    found, losses = jax.block_until_ready(run(*arguments))
    return time.perf_counter() - start, float(found), float(np.asarray(losses)[-1])


def compiled(recipe: Recipe, dataset: Dataset) -> tuple[Callable[..., Any], int]:
    """The compiled program of a run on that data, and its steps."""
    steps = recipe.make_plan(dataset).steps
    moments = Moments(jnp.asarray(dataset.mean), jnp.asarray(dataset.std))
    run = program(recipe.make_trainer(dataset), moments, steps=steps, batch_size=recipe.batch_size)
    return jax.jit(run).lower(jnp.uint32(0), dataset.train, dataset.test).compile(), steps


def circumstances(recipe: Recipe) -> str:
    """Device, versions and precision in a line."""
    device = jax.devices()[0]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib", "flax", "optax")]
    return (
        f"{device.device_kind}, {recipe.precision}, Python {platform.python_version()}, {', '.join(versions)}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the options, and prints a line for each run and a summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20, help="how many runs (%(default)s)")
    parser.add_argument(
        "--data", default="cifar10", help="a set of images of 32x32, such as digits32 (%(default)s)"
    )
    parser.add_argument("--epochs", type=float, help="the preset's where not given")
    parser.add_argument("--batch-size", type=int, help="the preset's where not given")
    parser.add_argument("--subset", type=int, help="training images; all where not given")
    parser.add_argument(
        "--width", type=int, help="channels of the first group, of which the others have four times as many"
    )
    parser.add_argument("--precision", choices=sorted(PRECISIONS), help="the preset's where not given")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds must be 1 or more, got {options.seeds}")
    report(chosen(options), options.seeds)


def report(recipe: Recipe, seeds: int) -> None:
    """Compiles, runs once for nothing, and then times a run for each seed."""
    dataset = load(recipe.data, subset=recipe.subset, validation=recipe.validation).on_device()
    print(circumstances(recipe), flush=True)
    start = time.perf_counter()
    run, steps = compiled(recipe, dataset)
    print(f"compiled in {time.perf_counter() - start:.1f} s", flush=True)
    print(
        "first run {:.3f} s (not counted): test accuracy {:.2%}".format(*timed(run, seeds, dataset)),
        flush=True,
    )
    found = []
    for seed in range(seeds):
        found.append(timed(run, seed, dataset))
        print(
            "seed {}: {:.3f} s, test accuracy {:.2%}, last loss {:.3f}".format(seed, *found[-1]), flush=True
        )
    seconds, accuracies = np.array(found)[:, :2].T
    print(
        f"{recipe.model} on {recipe.data}: {steps} steps of {recipe.batch_size}, {len(dataset.train):,} training images"
    )
    print(f"seconds: mean {mean(seconds)}, least {seconds.min():.3f}")
    deviation = f", standard deviation {100 * accuracies.std(ddof=1):.2f}" if seeds > 1 else ""
    print(f"test accuracy in %: mean {mean(100 * accuracies)}{deviation} (95 % interval)")
    print(f"{steps * recipe.batch_size / seconds.mean():,.0f} training images a second, evaluation included")
    print(REFERENCES)
    for note in dataset.notes:
        print(note)


if __name__ == "__main__":
    main()
