"""What depth costs: compile time, probes, ten thousand layers, memory with `remat`.

    python scripts/bench_depth.py [--rounds 15] [--only TEXT] [--json FILE]

Times are in ms unless the case names another unit. The networks are plain convolutional ones, `models.create("plain")`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from benchmarking import Bench, Row, Run, main

from cnnjax import functional as F
from cnnjax import models, probes

COMPILING = "compile gradient and probes of 1,000 layers, against 10"
# Width, size and batch of 50 layers.
PROBED = {
    "probes on 50 layers, 32 channels, 14x14, batch 64, against none": (32, 14, 64),
    "probes on 50 layers, 16 channels, 8x8, batch 32, against none": (16, 8, 32),
}
DEEPEST = "gradient and probes of 10,000 tanh layers"
DEEPEST_MILLISECONDS, DEEPEST_GIB = 5000, 4
DEPTHS = (256, 1024, 4096)
MEMORY = "memory of the gradient of {} layers, with remat against without, MiB"
EXPONENT = "exponent of memory over depth, with remat against without"
LARGEST_EXPONENT = 0.6


def network(depth: int, width: int, size: int, batch: int, **options) -> tuple:
    """A network of `depth` convolutions and a head, its variables, and a batch."""
    model = models.create("plain", depth=depth + 1, width=width, **options)
    images = jax.random.normal(jax.random.key(0), (batch, size, size, 1))
    variables = jax.jit(model.init)(jax.random.key(1), images)
    return model, variables, images, jnp.arange(batch) % 10


def gradient(model: models.Model, variables: dict, images: jax.Array, labels: jax.Array) -> tuple:
    """Loss and gradient, without probes."""

    def loss(params):
        return jnp.mean(F.cross_entropy(model.apply({"params": params}, images, train=True), labels))

    return jax.value_and_grad(loss)(variables["params"])


def step(function, *sizes: int, **options) -> Run:
    """`function`, `gradient` or `probes.gradient_flow`, of a network as one compiled call."""
    model, *operands = network(*sizes, **options)
    compiled = jax.jit(functools.partial(function, model)).lower(*operands).compile()
    return lambda: jax.block_until_ready(compiled(*operands))


def compilation(depth: int) -> Run:
    """Tracing and compiling gradient and probes, with nothing remembered from the last time."""
    model, *operands = network(depth, 16, 8, 8)

    def run() -> None:
        jax.clear_caches()
        jax.jit(functools.partial(probes.gradient_flow, model)).lower(*operands).compile()

    return run


def memory(depth: int, remat: bool) -> Run:
    """MiB that the compiled gradient needs besides its arguments and results."""
    model, *operands = network(depth, 16, 8, 64, remat=remat)
    compiled = jax.jit(functools.partial(gradient, model)).lower(*operands).compile()
    return lambda: compiled.memory_analysis().temp_size_in_bytes / 2**20


def measure(bench: Bench) -> None:
    """All rows, each with what is required of it."""
    bench.compare(COMPILING, "deep", "shallow", at_most=1.5)
    bench.close("deep", "shallow")
    for case in PROBED:
        bench.compare(case, "probed", "bare", at_most=1.15)
    bench.close("probed", "bare")
    if bench.wants(DEEPEST):
        deepest(bench)
    if bench.wants("memory"):
        remat(bench)


def deepest(bench: Bench) -> None:
    """Ten thousand layers: time and memory of a process that does nothing else."""
    replies = [bench.ask("deepest", DEEPEST) for _ in range(3)]
    milliseconds = float(np.median([reply.milliseconds for reply in replies]))
    gib = replies[-1].peak_gib
    limit = f"<= {DEEPEST_MILLISECONDS:,}"
    bench.add(Row(DEEPEST, milliseconds, None, None, limit, milliseconds <= DEEPEST_MILLISECONDS))
    bench.add(Row(f"{DEEPEST}, peak GiB", gib, None, None, f"<= {DEEPEST_GIB}", gib <= DEEPEST_GIB))


def remat(bench: Bench) -> None:
    """Memory at several depths, and the exponent a in memory ~ depth^a."""
    sizes = {}
    for depth in DEPTHS:
        case = MEMORY.format(depth)
        sizes[depth] = [bench.ask(side, case).value or 0.0 for side in ("remat", "kept")]
        a, b = sizes[depth]
        bench.add(Row(case, a, b, a / b, "", None))
    slopes = [
        np.polyfit(np.log(DEPTHS), np.log(column), 1)[0] for column in zip(*sizes.values(), strict=True)
    ]
    a, b = map(float, slopes)
    bench.add(Row(EXPONENT, a, b, None, f"<= {LARGEST_EXPONENT}", a <= LARGEST_EXPONENT))


if __name__ == "__main__":
    sides = {
        "deep": {COMPILING: functools.partial(compilation, 1000)},
        "shallow": {COMPILING: functools.partial(compilation, 10)},
        "probed": {
            c: functools.partial(step, probes.gradient_flow, 50, *sizes) for c, sizes in PROBED.items()
        },
        "bare": {c: functools.partial(step, gradient, 50, *sizes) for c, sizes in PROBED.items()},
        "deepest": {
            DEEPEST: functools.partial(
                step,
                probes.gradient_flow,
                *(10_000, 16, 8, 8),
                activation="tanh",
                initializer="delta_orthogonal",
            )
        },
        "remat": {MEMORY.format(depth): functools.partial(memory, depth, True) for depth in DEPTHS},
        "kept": {MEMORY.format(depth): functools.partial(memory, depth, False) for depth in DEPTHS},
    }
    main(__doc__, sides, measure)
