"""How to lay the runs of a study over a device: one after the other, all at once, split over devices, or as matrix products.

    python scripts/bench_run_axis.py [--rounds 5] [--only TEXT] [--json FILE]

One step of gradient descent of 8 runs of a network of 10 convolutions (batch 64), in ms, each way against the one that
`cnnjax.study` takes on this platform by itself. Runs on CPU and on GPU; on CPU every core is a device.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from benchmarking import Bench, Run, main
from jax import lax

from cnnjax import functional as F
from cnnjax import study

RUNS, DEPTH, BATCH = 8, 10, 64
# Size of the images and width of the network.
CASES = {f"{width} channels, {size}x{size}": (size, width) for size, width in ((8, 16), (14, 32), (16, 64))}
WAYS = (
    "automatic",
    "map",
    "vmap",
    "map, all devices",
    "vmap, all devices",
    "patches",
    "patches, all devices",
)


def patches_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3x3 convolution as a product of patches and a matrix; under `vmap` it is one batched product."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    taps = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def step(conv: Callable[..., jax.Array], kernels: jax.Array, images: jax.Array) -> jax.Array:
    """One step of one run: kernels `(depth, 3, 3, channels, channels)`."""

    def loss(kernels):
        y, _ = lax.scan(lambda x, kernel: (jax.nn.relu(conv(x, kernel)), None), images, kernels)
        return jnp.mean(y**2)

    return kernels - 0.01 * jax.grad(loss)(kernels)


def way(name: str, size: int, width: int) -> Run:
    """One way to compute the runs."""
    kind = name.split(",")[0]
    axis = {"automatic": "auto", "map": "map"}.get(kind, "vmap")
    every = name == "automatic" or name.endswith("all devices")
    devices = study.RunDevices(jax.devices() if every else jax.devices()[:1], run_axis=axis)
    kernels = (
        jax.random.normal(jax.random.key(0), (RUNS, DEPTH, 3, 3, width, width)) * (2 / (9 * width)) ** 0.5
    )
    images = jax.random.normal(jax.random.key(1), (BATCH, size, size, width))
    many, shared = devices.split(kernels), devices.everywhere(images)
    function = functools.partial(step, patches_conv if kind == "patches" else F.conv)
    compiled = devices.compile(function, many, shared)
    return lambda: jax.block_until_ready(compiled(many, shared))


def others() -> list[str]:
    """The ways that are not what "automatic" chooses here."""
    itself = "map, all devices" if jax.default_backend() == "cpu" else "vmap, all devices"
    return [name for name in WAYS[1:] if name != itself]


def measure(bench: Bench) -> None:
    """No other way must be faster than the automatic one by more than the measurement's error."""
    for case in CASES:
        for other in others():
            bench.compare(case, "automatic", other, name=f"{case}: automatic against {other}", at_most=1.05)


if __name__ == "__main__":
    study.one_host_device_per_core()
    sides = {
        name: {case: functools.partial(way, name, *sizes) for case, sizes in CASES.items()}
        for name in ("automatic", *others())
    }
    main(__doc__, sides, measure)
