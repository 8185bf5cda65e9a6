"""Convolutions and their gradients against a NumPy loop over the window, out of a `scan` and inside of one."""

import dataclasses
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import functional as F

TOLERANCE = 1e-5
"""The largest error over the largest entry that float32 sums of this size may have."""

Arrays = tuple[np.ndarray, ...]
QUANTITIES = ("output", "gradient of the input", "gradient of the kernel")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A 3x3 convolution of 16 channels, 12x12, with one pixel of padding."""

    name: str
    groups: int = 1
    stride: int = 1
    features: int = 16


CASES = (
    Case(name="dense"),
    Case(name="stride 2", stride=2),
    Case(name="4 groups", groups=4),
    Case(name="depthwise", groups=16, features=32),
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """The largest relative error of one quantity of a case."""

    case: str
    place: str
    quantity: str
    error: float

    @property
    def right(self) -> bool:
        """Whether the error is within `TOLERANCE`; NaN is not."""
        return self.error <= TOLERANCE


def check(cases: tuple[Case, ...] = CASES) -> Iterator[Finding]:
    """Compares every case on the default device, at the highest precision."""
    for case in cases:
        # Two examples of everything, for a scan of two steps.
        arrays = [_example(case, seed) for seed in range(2)]
        expected = [_reference(case, *example) for example in arrays]
        stacked = tuple(np.stack(parts) for parts in zip(*arrays, strict=True))
        with jax.default_matmul_precision("highest"):
            plain = jax.jit(lambda *a, case=case: _computed(case, *a))(*arrays[0])
            looped = jax.jit(lambda *a, case=case: _scanned(case, *a))(*stacked)
        wanted = tuple(np.stack(parts) for parts in zip(*expected, strict=True))
        for place, got, want in (("plain", plain, expected[0]), ("in a loop", looped, wanted)):
            for quantity, one, other in zip(QUANTITIES, got, want, strict=True):
                error = float(np.max(np.abs(np.asarray(one, np.float64) - other)) / np.max(np.abs(other)))
                yield Finding(case.name, place, quantity, error)


def _example(case: Case, seed: int) -> Arrays:
    """Input, kernel and the cotangent of the output."""
    rng = np.random.default_rng(seed)
    side = 12 // case.stride
    shapes = ((4, 12, 12, 16), (3, 3, 16 // case.groups, case.features), (4, side, side, case.features))
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)


def _computed(case: Case, x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, ...]:
    def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return F.conv(x, kernel, stride=case.stride, padding=1, groups=case.groups)

    y, pull_back = jax.vjp(conv, x, kernel)
    return (y, *pull_back(cotangent))


def _scanned(case: Case, *stacked: jax.Array) -> tuple[jax.Array, ...]:
    def body(carry: jax.Array, example: tuple[jax.Array, ...]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        return carry, _computed(case, *example)

    return jax.lax.scan(body, jnp.zeros(()), stacked)[1]


def _reference(case: Case, x: np.ndarray, kernel: np.ndarray, cotangent: np.ndarray) -> Arrays:
    """y[i] = sum over offsets k of x[i * stride + k] @ kernel[k], group by group, and its adjoints, in float64."""
    x, kernel, cotangent = (array.astype(np.float64) for array in (x, kernel, cotangent))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y, dx, dk = np.zeros(cotangent.shape), np.zeros(padded.shape), np.zeros(kernel.shape)
    fan, features, reach = kernel.shape[2], case.features // case.groups, case.stride * cotangent.shape[1]
    for row, column, group in itertools.product(range(3), range(3), range(case.groups)):
        ins, outs = (slice(group * n, (group + 1) * n) for n in (fan, features))
        window = (
            slice(None),
            slice(row, row + reach, case.stride),
            slice(column, column + reach, case.stride),
            ins,
        )
        matrix = kernel[row, column, :, outs]
        y[..., outs] += padded[window] @ matrix
        dx[window] += cotangent[..., outs] @ matrix.T
        dk[row, column, :, outs] += np.einsum("bhwi,bhwo->io", padded[window], cotangent[..., outs])
    return y, dx[:, 1:-1, 1:-1], dk
