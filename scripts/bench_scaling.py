"""What it costs to lay a training step over devices: 1, 2, 4 and 8 virtual CPU devices, by `jit` over a mesh and by `pmap`.

    python scripts/bench_scaling.py [--rounds 15] [--only TEXT] [--json FILE]

cifar_resnet20, a batch of 128 images of 32x32 for all devices together, on the same cores: the work is the same whatever
the number of devices, and what several take longer than one is overhead. Ours is the time of a step in ms, `other` that of
one device by `jit`, which spreads what is large over all cores; the ratio is the second over the first, 1 without overhead,
and above it where operations are too small to be spread. Below it are the overhead in ms, and what of a step goes by in
collectives, in ms, as the profiler has it: of each, the time of the device that comes last. The others wait for it, as they
must where there are fewer cores than devices.
"""

import functools
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from benchmarking import Bench, Row, Run, main
from jax.profiler import ProfileData, ProfileOptions

from cnnjax import models
from cnnjax.training import Augmentation, Batch, Moments, Trainer
from cnnjax.training.parallel import jit_step, make_mesh, pmap_step, replicated, state_shardings
from cnnjax.training.placement import everywhere, split

MODEL, SIZE, BATCH = "cifar_resnet20", 32, 128
COUNTS = (1, 2, 4, 8)
STEP, EXCHANGE = "a step", "collectives"
PROFILED_STEPS = 3
# Names of instructions: those that XLA lays in for `jit`, and those of `pmap`.
COLLECTIVES = frozenset(
    {"all-gather", "all-reduce", "all-to-all", "collective-permute", "psum", "reduce-scatter"}
)


def side(by: str, count: int) -> str:
    """The name of a side."""
    return f"{by}, {count} device{'s' if count > 1 else ''}"


@functools.cache
def step(by: str, count: int) -> Run:
    """A step on so many devices; its state is donated and comes back as the next one."""
    devices = jax.devices()[:count]
    mesh = make_mesh(devices)
    made = Trainer(
        model=models.create(MODEL, num_classes=10),
        optimizer=optax.sgd(0.1, momentum=0.9),
        num_classes=10,
        augmentation=Augmentation(crop=4, flip=True),
    )
    state = jax.jit(functools.partial(made.initial, jax.random.key(0)))(jnp.zeros((1, SIZE, SIZE, 3)))
    images = jax.random.bits(jax.random.key(1), (BATCH, SIZE, SIZE, 3), jnp.uint8)
    batch = jax.device_put(Batch(images, jnp.arange(BATCH) % 10), split(mesh))
    rest: Any = jax.random.key(2), Moments(*[jnp.full(3, 0.5)] * 2)
    if by == "jit":
        state, rest = jax.device_put((state, rest), (state_shardings(state, mesh), everywhere(mesh)))
        compiled = jit_step(made, state, mesh)
    else:
        state, compiled = replicated(state, devices), pmap_step(made, devices=devices)

    def run() -> float:
        nonlocal state
        state, metrics = compiled(state, batch, *rest)
        return float(jax.block_until_ready((state, metrics))[1].loss)

    return run


def exchange(by: str, count: int) -> Run:
    """Milliseconds of a step in collectives, or nothing where the profile shows none."""
    run = step(by, count)

    def profiled() -> float | None:
        options: Any = ProfileOptions()
        options.python_tracer_level = 0
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder, profiler_options=options):
                for _ in range(PROFILED_STEPS):
                    run()
            planes = ProfileData.from_file(str(next(Path(folder).rglob("*.xplane.pb")))).planes
            events = [event for plane in planes for line in plane.lines for event in line.events]
            times = [(event.name, event.start_ns, event.duration_ns) for event in events]
        spent = in_collectives(times, count)
        return None if spent is None else spent / PROFILED_STEPS / 1e6

    return profiled


def in_collectives(events: Iterable[tuple[str, float, float]], count: int) -> float | None:
    """The time in collectives without that of waiting, or None where there are none.

    Args:
      events: name, start and duration of what any device did.
      count: of the devices. All take part in every collective; the one that comes last does not wait.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for name, start, duration in events:
        if name.split(".")[0] in COLLECTIVES:
            found.setdefault(name, []).append((start, duration))
    # No device comes to the next one of a name before all have come to this one.
    orders = [[duration for _, duration in sorted(each)] for each in found.values()]
    together = [order[i : i + count] for order in orders for i in range(0, len(order), count)]
    return sum(map(min, together)) if together else None


def measure(bench: Bench) -> None:
    """All rows. Nothing is required of them."""
    one, *others = (side(by, count) for by in ("jit", "pmap") for count in COUNTS)
    for name in others:
        before = len(bench.rows)
        bench.compare(STEP, name, one, name=name)
        for row in bench.rows[before:]:
            bench.add(Row(f"{name}: overhead", row.ours - (row.other or 0.0), None, None, "", None))
            spent = bench.ask(name, EXCHANGE).value
            if spent is not None:
                bench.add(Row(f"{name}: {EXCHANGE}", spent, None, None, "", None))
        bench.close(name)


def virtual_devices(count: int) -> None:
    """Makes the CPU so many devices; call it before JAX starts."""
    # XLA takes the last of several equal flags.
    flags = os.environ.get("XLA_FLAGS", ""), f"--xla_force_host_platform_device_count={count}"
    os.environ["XLA_FLAGS"] = " ".join(flags)
    jax.config.update("jax_platforms", "cpu")


if __name__ == "__main__":
    sides: dict[str, dict[str, Any]] = {}
    for by in ("jit", "pmap"):
        for count in COUNTS:
            options = {"by": by, "count": count}
            sides[side(**options)] = {
                case: functools.partial(make, **options)
                for case, make in ((STEP, step), (EXCHANGE, exchange))
            }
            if sys.argv[-1] == side(**options):
                virtual_devices(count)
    # The others are compared with it.
    del sides[side("jit", 1)][EXCHANGE]
    main(__doc__, sides, measure)
