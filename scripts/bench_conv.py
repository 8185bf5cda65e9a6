"""The speed of `cnnjax.functional.conv` against `jax.lax.conv_general_dilated`.

    python scripts/bench_conv.py [--rounds 15] [--only TEXT] [--json FILE]

Both sides compute the same thing under `jax.jit`; times are in ms.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from benchmarking import Bench, Run, Workloads, main
from jax import lax

from cnnjax import functional as F

Conv = Callable[..., jax.Array]

# Name: shape of x, shape of the kernel, options.
DENSE = {
    "stem 3x3, 3 -> 64": ((64, 32, 32, 3), (3, 3, 3, 64), {}),
    "stem 7x7 stride 2, 3 -> 64": ((16, 64, 64, 3), (7, 7, 3, 64), {"stride": 2}),
    "5x5 valid, 1 -> 6": ((64, 28, 28, 1), (5, 5, 1, 6), {"padding": "VALID"}),
    "1x1, 64 -> 128": ((64, 16, 16, 64), (1, 1, 64, 128), {}),
    "1x1 stride 2, 32 -> 64": ((64, 32, 32, 32), (1, 1, 32, 64), {"stride": 2}),
    "3x3, 32 at 14x14": ((64, 14, 14, 32), (3, 3, 32, 32), {}),
    "3x3 stride 2, 32 -> 64": ((64, 32, 32, 32), (3, 3, 32, 64), {"stride": 2}),
    "5x5, 32 at 16x16": ((64, 16, 16, 32), (5, 5, 32, 32), {}),
    "3x3, 16 at 8x8": ((64, 8, 8, 16), (3, 3, 16, 16), {}),
    "3x3, 128 at 4x4": ((64, 4, 4, 128), (3, 3, 128, 128), {}),
    "1-D width 9, 32 at 512": ((32, 512, 32), (9, 32, 32), {}),
    "1-D stem width 9, 1 -> 32": ((32, 1024, 1), (9, 1, 32), {}),
    "3-D 3x3x3, 16 at 16x16x16": ((8, 16, 16, 16, 16), (3, 3, 3, 16, 16), {}),
    "3-D stem 3x3x3, 1 -> 16": ((8, 16, 32, 32, 1), (3, 3, 3, 1, 16), {}),
}
BLOCKED = {
    "64 channels, 32x32, batch 128": ((128, 32, 32, 64), (3, 3, 64, 64), {}),
    "128 channels, 16x16, batch 128": ((128, 16, 16, 128), (3, 3, 128, 128), {}),
}
GROUPED = {
    f"{groups} groups": ((32, 32, 32, 64), (3, 3, 64 // groups, 64), {"groups": groups}) for groups in (4, 16)
}
DEPTHWISE = {"depthwise": ((32, 32, 32, 64), (3, 3, 1, 64), {"groups": 64})}

AGAINST_SCAN = "gradient of a scan over 50 layers, against the same scan"
AGAINST_UNROLLED = "gradient of a scan over 50 layers, against them unrolled"
DIRECTIONS = ("forward", "input gradient", "kernel gradient", "both gradients")


def lax_conv(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: str = "SAME", groups: int = 1
) -> jax.Array:
    """What one writes without this package."""
    axes = "HWD"[: x.ndim - 2]
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride,) * len(axes),
        padding=padding,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=groups,
    )


def single(conv: Conv, x_shape: tuple, kernel_shape: tuple, options: dict, direction: str) -> Run:
    """One convolution, forward or one of its gradients."""
    conv = functools.partial(conv, **options)
    x, kernel = _normal(0, x_shape), _normal(1, kernel_shape)
    cotangent = _normal(2, jax.eval_shape(conv, x, kernel).shape)

    def forward(x, kernel, cotangent):
        return conv(x, kernel)

    def gradient(argnums, x, kernel, cotangent):
        return jax.grad(lambda *operands: jnp.vdot(conv(*operands), cotangent), argnums)(x, kernel)

    wanted = {"input gradient": 0, "kernel gradient": 1, "both gradients": (0, 1)}
    function = forward if direction == "forward" else functools.partial(gradient, wanted[direction])
    return _blocking(function, x, kernel, cotangent)


def deep(conv: Conv, *, unrolled: bool = False) -> Run:
    """The gradient of 50 layers: 3x3, 32 channels, 14x14, batch 64."""
    x, kernels = _normal(0, (64, 14, 14, 32)), _normal(1, (50, 3, 3, 32, 32)) * (2 / 288) ** 0.5

    def layer(x, kernel):
        return jax.nn.relu(conv(x, kernel)), None

    def loss(kernels):
        if not unrolled:
            return jnp.mean(lax.scan(layer, x, kernels)[0] ** 2)
        y = x
        for kernel in kernels:
            y, _ = layer(y, kernel)
        return jnp.mean(y**2)

    return _blocking(jax.grad(loss), kernels)


def workloads(conv: Conv) -> Workloads:
    """All cases of one side, by name."""
    cases = DENSE | BLOCKED | GROUPED | DEPTHWISE
    made = {
        f"{name}: {direction}": functools.partial(single, conv, *case, direction)
        for name, case in cases.items()
        for direction in DIRECTIONS
    }
    return {AGAINST_SCAN: functools.partial(deep, conv), **made}


def measure(bench: Bench) -> None:
    """All rows, each with what is required of it."""
    bench.compare(AGAINST_SCAN, "ours", "lax", at_least=20, rounds=2)
    bench.compare(AGAINST_UNROLLED, "ours", "unrolled", at_most=1.15)
    bench.close("unrolled")
    for name in GROUPED:
        bench.compare(f"{name}: both gradients", "ours", "lax", at_least=15)
    bench.compare("depthwise: forward", "ours", "lax", at_least=10)
    bench.compare("depthwise: both gradients", "ours", "lax", at_least=5)
    for name in BLOCKED:
        bench.compare(f"{name}: kernel gradient", "ours", "lax", at_least=1.5)
    dense = [f"{name}: {direction}" for name in DENSE for direction in DIRECTIONS[:-1]]
    bench.compare_all(dense, "ours", "lax", at_most=1.05)


def _normal(seed: int, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def _blocking(function: Callable, *operands: jax.Array) -> Run:
    compiled = jax.jit(function).lower(*operands).compile()
    return lambda: jax.block_until_ready(compiled(*operands))


if __name__ == "__main__":
    sides = {
        "ours": workloads(F.conv) | {AGAINST_UNROLLED: functools.partial(deep, F.conv)},
        "lax": workloads(lax_conv),
        "unrolled": {AGAINST_UNROLLED: functools.partial(deep, lax_conv, unrolled=True)},
    }
    main(__doc__, sides, measure)
