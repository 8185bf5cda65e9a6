import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnnjax import functional as F
from cnnjax.functional import lowering
from cnnjax.functional.lowering import Geometry


def geometry(rank, *, stride=1, pad=(1, 1), dilation=1, **options):
    axes = {"stride": (stride,) * rank, "padding": (pad,) * rank, "dilation": (dilation,) * rank}
    return Geometry(**axes, **options)


def whole(rng, *shape):
    """Small whole numbers: their sums of products are exact in any order, so that results must agree to the bit."""
    return jnp.asarray(rng.integers(-3, 4, size=shape), jnp.float32)


# Lowering, shape of x, of the kernel, geometry.
CASES = {
    "dense_1d": (lowering._dense, (2, 6, 2), (3, 2, 3), geometry(1, pad=(2, 0), dilation=2)),
    "dense_2d": (lowering._dense, (2, 5, 4, 2), (3, 3, 2, 3), geometry(2, stride=2, pad=(0, 1))),
    "dense_upsampling": (lowering._dense, (2, 3, 3, 2), (2, 2, 2, 3), geometry(2, upsampling=(2, 3))),
    "dense_3d": (lowering._dense, (2, 3, 3, 2, 2), (2, 2, 2, 2, 3), geometry(3)),
    "product_1d": (lowering._product, (2, 2, 3), (3, 3, 2), geometry(1, pad=(2, 1), dilation=2)),
    "product_2d": (lowering._product, (2, 4, 2, 2), (3, 3, 2, 3), geometry(2, stride=2, pad=(0, 1))),
    "volume": (lowering._volume, (2, 4, 3, 2, 2), (3, 2, 1, 2, 3), geometry(3, stride=2, pad=(2, 1))),
    "volume_dilated": (
        lowering._volume,
        (2, 5, 3, 3, 2),
        (2, 3, 2, 2, 1),
        geometry(3, pad=(1, 2), dilation=2),
    ),
    "volume_upsampling": (
        lowering._volume,
        (2, 3, 2, 2, 2),
        (3, 2, 2, 2, 2),
        geometry(3, pad=(1, -1), upsampling=(2, 3, 2)),
    ),
    "groups_of_volumes": (lowering._grouped, (2, 3, 3, 2, 4), (2, 2, 2, 2, 6), geometry(3, groups=2)),
    "one_block_of_groups": (lowering._grouped, (2, 4, 4, 6), (3, 3, 2, 9), geometry(2, groups=3)),
    "blocks_of_two_groups": (
        lowering._grouped,
        (2, 5, 32),
        (3, 8, 8),
        geometry(1, stride=2, dilation=2, groups=4),
    ),
    "blocks_of_one_group": (lowering._grouped, (2, 3, 32), (2, 16, 4), geometry(1, groups=2)),
    "depthwise_1d": (lowering._depthwise, (2, 6, 3), (3, 1, 3), geometry(1, stride=2, groups=3)),
    "depthwise_2d": (lowering._depthwise, (3, 4, 5, 2), (2, 2, 1, 4), geometry(2, dilation=2, groups=2)),
    "depthwise_3d": (lowering._depthwise, (2, 3, 3, 2, 2), (2, 1, 2, 1, 2), geometry(3, groups=2)),
}


@pytest.mark.parametrize("case", CASES)
def test_lowerings_agree_with_the_vendor(case, rng):
    lower, image, window, form = CASES[case]
    operands = whole(rng, *image), whole(rng, *window)
    directions = whole(rng, *image), whole(rng, *window)

    def derivatives(function, operands):
        def energy(*operands):
            return jnp.sum(jnp.square(function(*operands)))

        return jax.jvp(function, operands, directions), jax.grad(energy, (0, 1))(*operands)

    @jax.jit
    def both(operands):
        return [derivatives(partial(f, form), operands) for f in (lower, lowering._vendor)]

    jax.tree.map(np.testing.assert_array_equal, *both(operands))


def lowered(platform, *, groups=1, fan=4):
    x, kernel = jnp.zeros((2, 4, 4, groups * fan)), jnp.zeros((3, 3, fan, groups * fan))

    def energy(x, kernel):
        return jnp.sum(jnp.square(F.conv(x, kernel, groups=groups)))

    traced = jax.jit(jax.grad(energy, (0, 1))).trace(x, kernel)
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("groups, fan", [(1, 4), (2, 4), (4, 1)])
def test_accelerators_get_their_own_convolution(platform, groups, fan):
    text = lowered(platform, groups=groups, fan=fan)
    # One forward and two for the gradients, none of them in a loop.
    assert text.count("stablehlo.convolution") == 3
    assert "stablehlo.while" not in text
    if groups > 1:
        assert f"feature_group_count = {groups}" in text


@pytest.mark.parametrize("groups, fan, count", [(1, 4, 3), (2, 4, 3), (4, 1, 0)])
def test_the_cpu_gets_no_grouped_convolution(groups, fan, count):
    text = lowered("cpu", groups=groups, fan=fan)
    assert text.count("stablehlo.convolution") == count
    assert text.count("feature_group_count = 1") == text.count("batch_group_count = 1") == count


# Volumes are convolved plane by plane.
@pytest.mark.parametrize("spatial, axes", [((6,), "0"), ((4, 4), "0, 1"), ((3, 3, 2), "0, 1")])
def test_gradients_in_a_loop_are_in_the_fast_layout(spatial, axes):
    x, kernels = jnp.zeros((2, *spatial, 4)), jnp.zeros((5, *(3,) * len(spatial), 4, 4))

    def energy(x, kernels):
        y, _ = lax.scan(lambda x, kernel: (jnp.tanh(F.conv(x, kernel)), None), x, kernels)
        return jnp.sum(y)

    text = jax.jit(jax.grad(energy, (0, 1))).lower(x, kernels).as_text()
    layouts = re.findall(r"dim_numbers = (\S.*?), window", text)
    assert layouts == [f"[b, {axes}, f]x[{axes}, i, o]->[b, {axes}, f]"] * 3


@pytest.mark.parametrize("rank, groups", [(1, 1), (2, 1), (2, 4), (3, 1), (3, 4)])
def test_a_layer_keeps_its_input_and_no_copy_of_it(rank, groups):
    x, kernels = jnp.zeros((2, *(5,) * rank, 4)), jnp.zeros((7, *(3,) * rank, 4 // groups, 4))

    def network(x, kernels):
        return lax.scan(lambda x, kernel: (F.conv(x, kernel, groups=groups), None), x, kernels)[0]

    kept = jax.tree.leaves(jax.eval_shape(lambda *operands: jax.vjp(network, *operands)[1], x, kernels))
    assert sum(leaf.size >= x.size * 7 for leaf in kept if leaf.shape[1:-1] != kernels.shape[1:-1]) == 1


# How many examples fit, and the blocks of at most so many that six make.
@pytest.mark.parametrize(
    "size, window, products, stride, small",
    [
        ((2, 2), (3, 3), 4096, 1, True),
        ((3, 3), (3, 3), 4096, 1, False),
        # The input gradient runs over the output, of 2x2 here.
        ((4, 4), (3, 3), 4096, 2, True),
        ((6, 6), (3, 3), 4096, 2, False),
        ((8, 2), (3, 3), 4096, 1, True),
        ((2, 2), (3, 3), 4095, 1, False),
        ((2, 2), (1, 1), 4096, 1, False),
        ((40,), (80,), 4096, 4, False),
    ],
)
def test_patches_are_for_maps_smaller_than_the_window(size, window, products, stride, small):
    x, kernel = jnp.zeros((1, *size, products)), jnp.zeros((*window, products, 1))
    form = geometry(len(size), stride=stride, pad=(window[0] // 2, window[0] // 2))
    assert lowering._is_small(form, x, kernel) == small
    compiled = jax.jit(partial(lowering._ungrouped, form)).lower(x, kernel).as_text()
    assert ("stablehlo.convolution" not in compiled) == small


@pytest.mark.parametrize("examples, blocks", [(1, 6), (2, 3), (4, 2), (6, 1)])
def test_blocks_do_not_change_the_kernel_gradient(examples, blocks, rng, monkeypatch):
    # JAX keeps traces by shape: a size of its own for each case, so that none meets another's block.
    size = 4 + examples
    x, kernel = whole(rng, 6, size, size, 2), whole(rng, 3, 3, 2, 3)
    touched = size * size * (2 + 3) * 4
    monkeypatch.setattr(lowering, "BLOCK_BYTES", examples * touched)
    form = geometry(2)

    def gradient(function):
        return jax.grad(lambda kernel: jnp.sum(jnp.square(function(form, x, kernel))))

    assert ("scan[" in str(jax.make_jaxpr(gradient(lowering._dense))(kernel))) == (blocks > 1)
    actual, expected = jax.jit(lambda k: (gradient(lowering._dense)(k), gradient(lowering._vendor)(k)))(
        kernel
    )
    np.testing.assert_array_equal(actual, expected)
    assert lowering._block_size(x, 3, form) * blocks == 6


# Input 4 x 4 x 2 and, at stride 2, output 2 x 2 x 3 float32 numbers: 176 bytes an example.
@pytest.mark.parametrize(
    "batch, budget, size",
    [(12, 0.5, 1), (12, 1, 1), (12, 2.9, 2), (12, 5, 4), (12, 11, 6), (12, 12, 12), (12, 99, 12)]
    # The only divisors of a prime are far from most budgets: then the batch stays whole.
    + [(13, 4, 1), (13, 5, 13)],
)
def test_a_block_is_the_largest_divisor_that_fits(batch, budget, size, monkeypatch):
    monkeypatch.setattr(lowering, "BLOCK_BYTES", int(budget * 176))
    assert lowering._block_size(jnp.zeros((batch, 4, 4, 2)), 3, geometry(2, stride=2)) == size


def test_sequences_are_not_split():
    assert lowering._block_size(jnp.zeros((8, 2**20, 1)), 1, geometry(1)) == 8
