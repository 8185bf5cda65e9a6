"""Images per second of the input pipeline against those of the training step that it feeds.

    python scripts/bench_input.py [--model NAME] [--quick] [--rounds 3] [--only TEXT] [--json FILE]

Ours is the pipeline alone: JPEG files of 500x375 pixels, drawn for this and about as large as ImageNet's, read, decoded, cut
at random and batched by threads (0 workers) or by 1 or 2 worker processes; `other` is the step alone (resnet18 if no other
model is named: forward, backward, SGD with momentum, with mirror images; in bfloat16 on a GPU); the ratio is the first over
the second. At 1 or more the input is not the bottleneck where the step leaves the processor free, as on a GPU; on a CPU the
two share the cores, and the input takes about ratio / (1 + ratio) of them. With `TFDS_DATA_DIR` also cifar10, streamed.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
from benchmarking import Bench, Row, Run, Workloads, main, serve

from cnnjax.data import StreamedDataset, batches, open_stream

WORKERS = (0, 1, 2)
CIFAR10 = "cifar10"
WIDTH, HEIGHT = 500, 375


class Scale(NamedTuple):
    """How much is measured: image files; images of a batch; batches and steps of a measurement; sizes in pixels."""

    files: int
    batch: int
    batches: int
    steps: int
    sizes: tuple[int, ...]


FULL = Scale(files=256, batch=32, batches=12, steps=3, sizes=(64, 224))
QUICK = Scale(files=16, batch=8, batches=2, steps=1, sizes=(64,))
GPU_BATCH = 256


def draw(folder: Path, files: int) -> None:
    """Writes images of two classes: colors that flow into each other, with the grain of a photograph."""
    rng = np.random.default_rng(0)
    for number in range(files):
        place = folder / "train" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        patches = PIL.Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        flowing = np.asarray(patches.resize((WIDTH, HEIGHT), PIL.Image.Resampling.BICUBIC), float)
        pixels = np.clip(flowing + rng.normal(0, 16, flowing.shape), 0, 255).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(place / f"{number}.jpg", quality=90)


def pipeline(data: str, size: int, workers: int, scale: Scale) -> Run:
    """Images per second of a stream."""
    streamed: StreamedDataset = open_stream(data, image_size=size)
    crop = "center" if data == CIFAR10 else "random_resized"
    source = batches(
        streamed.train, batch_size=scale.batch, image_size=size, seed=0, workers=workers, crop=crop
    )

    def run() -> float:
        # Some were made ready while nobody measured.
        for _ in range(4 * max(workers, 2)):
            next(source)
        start = time.perf_counter()
        for _ in range(scale.batches):
            next(source)
        return scale.batch * scale.batches / (time.perf_counter() - start)

    return run


def step(name: str, size: int, scale: Scale) -> Run:
    """Images per second of a training step whose batch lies on the device."""
    import jax
    import jax.numpy as jnp
    import optax

    from cnnjax import models
    from cnnjax.training import Augmentation, Batch, Moments, Trainer

    on_gpu = jax.default_backend() == "gpu"
    batch_size = GPU_BATCH if on_gpu else scale.batch
    model = models.create(name, num_classes=10, dtype=jnp.bfloat16 if on_gpu else jnp.float32)
    optimizer = optax.sgd(0.01, momentum=0.9, nesterov=True)
    trainer = Trainer(model=model, optimizer=optimizer, num_classes=10, augmentation=Augmentation(flip=True))
    images = jax.random.bits(jax.random.key(0), (batch_size, size, size, 3), jnp.uint8)
    batch, moments = Batch(images, jnp.arange(batch_size) % 10), Moments(jnp.full(3, 0.5), jnp.full(3, 0.25))
    state: Any = jax.jit(trainer.initial)(jax.random.key(1), jnp.zeros((1, size, size, 3)))
    compiled = jax.jit(trainer.step, donate_argnums=0)

    def run() -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(scale.steps):
            state, metrics = compiled(state, batch, jax.random.key(2), moments)
        jax.block_until_ready(metrics)
        return batch_size * scale.steps / (time.perf_counter() - start)

    return run


def sources(folder: str, scale: Scale) -> Mapping[str, tuple[str, int]]:
    """What is streamed, and at which size, by its name in the table."""
    found = {f"{size}x{size}": (folder, size) for size in scale.sizes}
    return found | ({CIFAR10: (CIFAR10, 32)} if os.environ.get("TFDS_DATA_DIR") else {})


def pipelines(folder: str, scale: Scale) -> Workloads:
    """The cases of one side, by name."""
    return {
        f"{name}, {workers} workers": partial(pipeline, data, size, workers, scale)
        for name, (data, size) in sources(folder, scale).items()
        for workers in WORKERS
    }


def steps(model: str, folder: str, scale: Scale) -> Workloads:
    """The cases of the other side."""
    return {name: partial(step, model, size, scale) for name, (_, size) in sources(folder, scale).items()}


def measure(bench: Bench, *, model: str, names: list[str], rounds: int) -> None:
    """All rows: medians of the images per second."""
    for name in names:
        for workers in WORKERS:
            row = f"images per second, {name}, {workers} workers, {model}"
            if bench.wants(row):
                asked = (("pipeline", f"{name}, {workers} workers"), ("step", name))
                rates = [[bench.ask(*one).value or 0.0 for one in asked] for _ in range(rounds)]
                ours, other = np.median(rates, axis=0)
                bench.add(Row(row, ours, other, ours / other, "ours >= other", bool(ours >= other)))


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet18", help="whose step is measured")
    parser.add_argument("--quick", action="store_true", help="few and small images: does it run?")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side is asked, in turn")
    parser.add_argument("--only", default="", help="a part of the names of the cases to measure")
    parser.add_argument("--json", type=Path, help="write the table here, too")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(given: argparse.Namespace, scale: Scale, folder: str) -> None:
    """Starts a process for each side and prints the table."""
    draw(Path(folder), scale.files)
    command = [sys.executable, __file__, "--model", given.model, *(["--quick"] if given.quick else [])]
    rest = ["--only", given.only, *(["--json", str(given.json)] if given.json else [])]
    names, rounds = list(sources(folder, scale)), 1 if given.quick else given.rounds
    main(
        __doc__,
        {},
        partial(measure, model=given.model, names=names, rounds=rounds),
        commands={side: [*command, "--serve", f"{side}:{folder}"] for side in ("pipeline", "step")},
        arguments=rest,
    )


if __name__ == "__main__":
    given = options()
    scale = QUICK if given.quick else FULL
    side, _, folder = (given.serve or "").partition(":")
    if side == "pipeline":
        # Its process leaves the accelerator alone.
        serve(pipelines(folder, scale), lambda: "the cores of the host")
    elif side == "step":
        from benchmarking import jax_device

        serve(steps(given.model, folder, scale), jax_device)
    else:
        with tempfile.TemporaryDirectory() as folder:
            compare(given, scale, folder)
