"""How a convolution is computed: the vendor's kernels on GPU and TPU, and on CPU five lowerings that stay fast.

Three properties of XLA on CPU shape this file. It brings convolutions into the layout of its fast kernel only in the
entry computation, never in the body of a `scan`, `map` or `while` (jax issue 12868), and the two gradients that JAX
derives are not in that layout. Its grouped, depthwise and three-dimensional convolutions are slow everywhere. And where the
input, without its padding, is smaller than the window, it has no fast kernel at all: 3x3 with 512 channels on maps of 2x2
takes 70 times as long as the same products of matrices. So on CPU

- a dense convolution has a tangent rule whose two linear parts TRANSPOSE into the fast layout (`_dense`);
- one on maps smaller than its window is a product of patches and kernel, unless that is narrow (`_product`);
- a three-dimensional one becomes a two-dimensional one over its planes (`_volume`);
- a grouped one is a map over dense convolutions of groups merged into blocks of useful width (`_grouped`);
- a depthwise one is a sum of shifted products (`_depthwise`).

The rules are for forward mode, so that every other transformation (`grad`, `jvp`, `vmap`, `grad` of `grad`) is
JAX's own. Sums that are carried from one step to the next are in float32 at least (`widen`), whatever the operands.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.functional.dtypes import widen

AXES = "HWD"
# Kernel gradients run over blocks of examples that touch about this many bytes, so that a block stays in the cache.
BLOCK_BYTES = 2**20
# Groups are merged into blocks of at least this many channels: narrower products leave the CPU's vector units idle.
BLOCK_CHANNELS = 16
# On maps smaller than the window, kernels of this many products an entry are worth copies of the patches; windows of more
# entries than that, as the long ones of sequences, are not.
PATCH_PRODUCTS, PATCH_ENTRIES = 64 * 64, 49
# What a function under this keeps for the backward pass is its input itself, and not the shifted or transposed copies.
_recomputed = functools.partial(jax.checkpoint, prevent_cse=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry:
    """The static description of a convolution; every tuple has one entry for each spatial axis."""

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1
    upsampling: tuple[int, ...] | None = None
    precision: lax.PrecisionLike = None


def contract(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """The cross-correlation of `x` `(batch, *spatial, in)` and `kernel` `(*spatial, in // groups, out)` on any platform."""
    if geometry.groups == 1:
        on_cpu = _ungrouped
    elif kernel.shape[-2] == 1 and geometry.upsampling is None:
        on_cpu = _depthwise
    else:
        on_cpu = _grouped
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(on_cpu, geometry),
        default=functools.partial(_vendor, geometry),
    )


def _vendor(geometry: Geometry, x: jax.Array, kernel: jax.Array, layout: tuple[str, str, str] | None = None):
    spatial = AXES[: x.ndim - 2]
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=geometry.stride,
        padding=geometry.padding,
        lhs_dilation=geometry.upsampling,
        rhs_dilation=geometry.dilation,
        dimension_numbers=layout or (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        feature_group_count=geometry.groups,
        precision=geometry.precision,
    )


def _ungrouped(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return (_volume if x.ndim == 5 else _flat)(geometry, x, kernel)


def _flat(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution in one or two dimensions, by its fast way."""
    return (_product if _is_small(geometry, x, kernel) else _dense)(geometry, x, kernel)


def _is_small(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> bool:
    """Whether input or output are smaller than the window on some axis; the output is what the input gradient runs over."""
    window, products = kernel.shape[:-2], math.prod(kernel.shape[-2:])
    if geometry.upsampling or products < PATCH_PRODUCTS or math.prod(window) > PATCH_ENTRIES:
        return False
    sizes = zip(x.shape[1:-1], _output_sizes(geometry, x, window), window, strict=True)
    return any(min(size, output) < taps for size, output, taps in sizes)


@functools.partial(_recomputed, static_argnums=(0,))
def _product(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The patches under the window, side by side, times the kernel as one matrix."""
    window = kernel.shape[:-2]
    sizes = _output_sizes(geometry, x, window)
    x = jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)))
    offsets = itertools.product(*map(range, window))
    patches = jnp.concatenate([_shifted(geometry, x, offset, sizes) for offset in offsets], axis=-1)
    return jnp.matmul(patches, kernel.reshape(-1, kernel.shape[-1]), precision=geometry.precision)


def _output_sizes(geometry: Geometry, x: jax.Array, window: Sequence[int]) -> list[int]:
    rows = zip(x.shape[1:-1], geometry.padding, window, geometry.dilation, geometry.stride, strict=True)
    return [(n + low + high - (k - 1) * d - 1) // s + 1 for n, (low, high), k, d, s in rows]


def _shifted(geometry: Geometry, x: jax.Array, offset: Sequence[int], sizes: Sequence[int]) -> jax.Array:
    """What the kernel's entry at `offset` meets: padded `x` from there on, `sizes` long, in steps of the stride."""
    starts = [k * d for k, d in zip(offset, geometry.dilation, strict=True)]
    limits = [a + (n - 1) * s + 1 for a, n, s in zip(starts, sizes, geometry.stride, strict=True)]
    return lax.slice(x, (0, *starts, 0), (x.shape[0], *limits, x.shape[-1]), (1, *geometry.stride, 1))


@functools.partial(_recomputed, static_argnums=(0,))
def _volume(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution of every plane, with the planes under the kernel's first axis side by side in its channels."""
    (low, high), spread = geometry.padding[0], (geometry.upsampling or (1,))[0]
    stride, dilation, taps = geometry.stride[0], geometry.dilation[0], kernel.shape[0]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (low, high, spread - 1), *[(0, 0, 0)] * 3])
    reach = x.shape[1] - (taps - 1) * dilation
    shifted = [x[:, start : start + reach : stride] for start in range(0, taps * dilation, dilation)]
    planes = jnp.concatenate(shifted, axis=-1)
    wide = jnp.moveaxis(kernel, 0, 2).reshape(*kernel.shape[1:3], -1, kernel.shape[-1])
    flat = dataclasses.replace(
        geometry,
        stride=geometry.stride[1:],
        padding=geometry.padding[1:],
        dilation=geometry.dilation[1:],
        upsampling=geometry.upsampling and geometry.upsampling[1:],
    )
    y = _flat(flat, planes.reshape(math.prod(planes.shape[:2]), *planes.shape[2:]), wide)
    return y.reshape(*planes.shape[:2], *y.shape[1:])


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _dense(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _vendor(geometry, x, kernel)


@_dense.defjvp
def _dense_jvp(geometry, primals, tangents):
    (x, kernel), (x_dot, kernel_dot) = primals, tangents
    spatial = AXES[: x.ndim - 2]
    # Transposes into (N..C, ..IO, N..C): JAX exchanges the kernel's I and O, so here it is stored under ..OI.
    swapped = jnp.swapaxes(kernel, -1, -2)
    y_dot = _vendor(geometry, x_dot, swapped, (f"N{spatial}C", f"{spatial}OI", f"N{spatial}C"))
    return _dense(geometry, x, kernel), y_dot + _linear_in_kernel(geometry, x, kernel_dot)


def _linear_in_kernel(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution as a map over blocks of examples; its transpose in `kernel` is a scan that adds up the blocks."""
    rank = x.ndim - 2
    spatial = AXES[:rank]
    # The scan carries the type that the kernel has here.
    kernel = widen(kernel)
    # Transposes into (N..C, ..IO, N..C) with the result transposed: JAX exchanges N and C of the input and of the output.
    layout = (f"C{spatial}N", f"I{spatial}O", f"{spatial}NC")
    kernel = jnp.moveaxis(kernel, -2, 0)

    @_recomputed
    def block(x: jax.Array) -> jax.Array:
        y = _vendor(geometry, jnp.swapaxes(widen(x), 0, -1), kernel, layout)
        return jnp.moveaxis(y, rank, 0).astype(x.dtype)

    size = _block_size(x, kernel.shape[-1], geometry)
    if size == x.shape[0]:
        return block(x)
    y = lax.map(block, x.reshape(-1, size, *x.shape[1:]))
    return y.reshape(-1, *y.shape[2:])


def _block_size(x: jax.Array, features: int, geometry: Geometry) -> int:
    """The largest divisor of the batch whose input and output fit into `BLOCK_BYTES`.

    The whole batch where no divisor comes near, and for sequences, where small blocks cost more than the cache gains.
    """
    batch = x.shape[0]
    outputs = math.prod(x.shape[1:-1]) // math.prod(geometry.stride) * features
    touched = (math.prod(x.shape[1:]) + outputs) * x.dtype.itemsize
    fitting = max(BLOCK_BYTES // max(touched, 1), 1)
    divisors = (size for size in range(1, batch + 1) if batch % size == 0 and size <= fitting)
    size = max(divisors, default=batch)
    return batch if x.ndim == 3 or 4 * size < fitting else size


def _grouped(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Dense convolutions of merged groups: within a block the kernel is block-diagonal, over the blocks goes a map.

    The zeros off the diagonal multiply the inputs of the block's other groups: NaN or infinity in one group becomes
    NaN in all groups merged with it, in the result and in the gradients.
    """
    groups, (fan, features) = geometry.groups, kernel.shape[-2:]
    merged = min(
        d for d in range(1, groups + 1) if groups % d == 0 and (d * fan >= BLOCK_CHANNELS or d == groups)
    )
    blocks, width = groups // merged, features // groups
    # (*spatial, fan, blocks, merged, width) -> (blocks, *spatial, merged, fan, merged, width), zero off the diagonal.
    split = jnp.moveaxis(kernel.reshape(*kernel.shape[:-1], blocks, merged, width), -3, 0)
    diagonal = jnp.eye(merged, dtype=kernel.dtype)[:, None, :, None]
    wide = split[..., None, :, :, :] * lax.expand_dims(diagonal, range(split.ndim - 3))
    wide = wide.reshape(*split.shape[:-3], merged * fan, merged * width)
    inputs = jnp.moveaxis(x.reshape(*x.shape[:-1], blocks, merged * fan), -2, 0)
    dense = dataclasses.replace(geometry, groups=1)
    y = lax.map(lambda operands: _ungrouped(dense, *operands), (inputs, wide))
    return jnp.moveaxis(y, 0, -2).reshape(*y.shape[1:-1], features)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _depthwise(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _shifted_products(geometry, x, kernel)


@_depthwise.defjvp
def _depthwise_jvp(geometry, primals, tangents):
    (x, kernel), (x_dot, kernel_dot) = primals, tangents
    y_dot = _shifted_products(geometry, x_dot, kernel) + _shifted_products_by_example(geometry, x, kernel_dot)
    return _depthwise(geometry, x, kernel), y_dot


def _shifted_products_by_example(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`_shifted_products` as a map over examples, whose transpose in `kernel` is a scan that adds up their sums."""
    # The scan carries the type that the kernel has here.
    kernel = widen(kernel)

    @_recomputed
    def example(image: jax.Array) -> jax.Array:
        return _shifted_products(geometry, image[None], kernel)[0]

    return lax.map(example, x)


def _shifted_products(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """y[i] = sum over offsets k of x[i * stride + k * dilation] * kernel[k], channel by channel, in the type of `x`."""
    window, features = kernel.shape[:-2], kernel.shape[-1]
    channels, dtype = x.shape[-1], x.dtype
    x, kernel = widen(x), widen(kernel)
    sizes = _output_sizes(geometry, x, window)
    x = jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)))
    # Spreading a weight over all positions is a product with ones: so its transpose, a sum over them, is a fast product.
    ones = jnp.ones((math.prod(sizes), 1), kernel.dtype)

    def product(offset: tuple[int, ...]) -> jax.Array:
        shifted = _shifted(geometry, x, offset, sizes)
        if features != channels:
            shifted = jnp.repeat(shifted, features // channels, axis=-1)
        weights = jnp.matmul(ones, kernel[offset], precision=geometry.precision)
        return shifted * weights.reshape(1, *sizes, features)

    return functools.reduce(jnp.add, map(product, itertools.product(*map(range, window)))).astype(dtype)
