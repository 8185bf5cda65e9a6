from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads
from scipy import signal

from cnnjax import functional as F

# Compiled, because the many small steps of a lowering are slow one by one.
OPTIONS = ("stride", "padding", "dilation")
conv = jax.jit(F.conv, static_argnames=(*OPTIONS, "groups"))
convolve = jax.jit(F.convolve, static_argnames=OPTIONS)
conv_transpose = jax.jit(F.conv_transpose, static_argnames=OPTIONS)

# Spatial shape, window, input and output channels, options, and the pairs of padding they must come to.
CASES = {
    "1d_same": ((6,), (3,), 2, 3, {}, ((1, 1),)),
    "1d_full": ((5,), (4,), 1, 2, {"padding": "FULL"}, ((3, 3),)),
    "1d_dilated": ((9,), (3,), 2, 2, {"padding": "valid", "dilation": 3}, ((0, 0),)),
    "2d_even_window": ((5, 4), (2, 4), 3, 2, {}, ((0, 1), (1, 2))),
    "2d_valid": ((5, 6), (3, 2), 2, 3, {"padding": "VALID"}, ((0, 0), (0, 0))),
    "2d_strided": ((6, 7), (3, 3), 2, 3, {"stride": 2}, ((0, 1), (1, 1))),
    "2d_full": ((4, 3), (2, 3), 2, 2, {"padding": "FULL"}, ((1, 1), (2, 2))),
    "2d_full_dilated": (
        (4, 3),
        (2, 2),
        1,
        2,
        {"padding": "FULL", "dilation": 2},
        ((2, 2), (2, 2)),
    ),
    "2d_int": ((4, 4), (3, 3), 2, 2, {"padding": 2, "stride": (2, 1)}, ((2, 2), (2, 2))),
    "2d_pairs": ((5, 4), (3, 2), 2, 2, {"padding": ((0, 2), (1, 0))}, ((0, 2), (1, 0))),
    "2d_circular": ((4, 5), (3, 3), 2, 2, {"padding": "CIRCULAR"}, ((1, 1), (1, 1))),
    "2d_circular_strided": (
        (6, 6),
        (3, 2),
        2,
        2,
        {"padding": "CIRCULAR", "stride": 2, "dilation": (1, 2)},
        ((0, 1), (0, 1)),
    ),
    "2d_groups": ((4, 4), (3, 3), 6, 4, {"groups": 2}, ((1, 1), (1, 1))),
    "2d_depthwise": ((5, 4), (3, 2), 3, 3, {"groups": 3, "stride": (2, 1)}, ((1, 1), (0, 1))),
    "2d_multiplier": ((4, 4), (2, 2), 2, 6, {"groups": 2, "dilation": 2}, ((1, 1), (1, 1))),
    "3d": ((3, 4, 3), (2, 3, 1), 2, 2, {"stride": (1, 2, 1)}, ((0, 1), (0, 1), (0, 0))),
    "3d_full": ((2, 3, 2), (2, 1, 3), 2, 1, {"padding": "FULL"}, ((1, 1), (0, 0), (2, 2))),
    "3d_circular": ((3, 2, 3), (3, 2, 1), 1, 2, {"padding": "CIRCULAR"}, ((1, 1), (0, 1), (0, 0))),
    "3d_dilated": ((3, 4, 3), (2, 2, 1), 2, 2, {"dilation": (1, 2, 3)}, ((0, 1), (1, 1), (0, 0))),
    "3d_groups": ((3, 2, 2), (2, 1, 2), 4, 6, {"groups": 2}, ((0, 1), (0, 0), (0, 1))),
    "3d_depthwise": ((3, 3, 3), (2, 2, 3), 2, 4, {"groups": 2}, ((0, 1), (0, 1), (1, 1))),
}
DERIVED = ("1d_dilated", "2d_strided", "2d_circular", "2d_groups", "2d_multiplier", "3d", "3d_groups")


def whole(rng, *shape, dtype=jnp.float32):
    """Small whole numbers: their sums of products are exact in any order, so that results must agree to the bit."""
    return jnp.asarray(rng.integers(-3, 4, size=shape), dtype)


def operands(case, rng):
    spatial, window, inputs, outputs, options, _ = CASES[case]
    kernel = whole(rng, *window, inputs // options.get("groups", 1), outputs)
    return whole(rng, 2, *spatial, inputs), kernel, whole(rng, outputs)


def entries(value, rank):
    return (value,) * rank if isinstance(value, int) else value


def conv_by_loops(x, kernel, pairs, *, mode="constant", stride=1, dilation=1, groups=1):
    """y[n, i, o] = sum over k and c of x[n, i stride + k dilation, c] kernel[k, c, o], c in the group of o."""
    *window, fan, outputs = kernel.shape
    rank = len(window)
    stride, dilation = entries(stride, rank), entries(dilation, rank)
    x = np.pad(x, ((0, 0), *pairs, (0, 0)), mode=mode)
    axes = zip(x.shape[1:-1], window, stride, dilation, strict=True)
    sizes = [(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in axes]
    y = np.zeros((x.shape[0], *sizes, outputs))
    for position in product(*map(range, sizes)):
        for offset in product(*map(range, window)):
            tap = [p * s + k * d for p, s, k, d in zip(position, stride, offset, dilation, strict=True)]
            for o in range(outputs):
                group = o // (outputs // groups)
                seen = x[(slice(None), *tap, slice(group * fan, (group + 1) * fan))]
                y[(slice(None), *position, o)] += seen @ kernel[(*offset, slice(None), o)]
    return y


def lax_conv(x, kernel, pairs, *, stride=1, dilation=1, groups=1):
    spatial = "HWD"[: x.ndim - 2]
    return lax.conv_general_dilated(
        x,
        kernel,
        entries(stride, x.ndim - 2),
        pairs,
        rhs_dilation=entries(dilation, x.ndim - 2),
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        feature_group_count=groups,
    )


@pytest.mark.parametrize("case", CASES)
def test_conv_is_its_definition(case, rng):
    options, pairs = dict(CASES[case][4]), CASES[case][5]
    x, kernel, bias = operands(case, rng)
    y = conv(x, kernel, bias, **options)
    mode = "wrap" if options.pop("padding", "") == "CIRCULAR" else "constant"
    expected = conv_by_loops(np.asarray(x), np.asarray(kernel), pairs, mode=mode, **options)
    np.testing.assert_array_equal(y, expected + np.asarray(bias))
    assert y.dtype == jnp.float32


@pytest.mark.parametrize("case", DERIVED)
def test_derivatives_are_those_of_lax(case, rng):
    options, pairs = dict(CASES[case][4]), CASES[case][5]
    x, kernel, _ = operands(case, rng)
    directions = whole(rng, *x.shape), whole(rng, *kernel.shape)
    rest = {name: value for name, value in options.items() if name != "padding"}

    def reference(x, kernel):
        if options.get("padding") == "CIRCULAR":
            return lax_conv(jnp.pad(x, ((0, 0), *pairs, (0, 0)), mode="wrap"), kernel, "VALID", **rest)
        return lax_conv(x, kernel, pairs, **rest)

    def derivatives(function, x, kernel):
        def energy(*arguments):
            return jnp.sum(jnp.square(function(*arguments)))

        def slope(*arguments):
            gradients = jax.grad(energy, (0, 1))(*arguments)
            return sum(map(jnp.vdot, gradients, directions))

        primal = jax.jvp(function, (x, kernel), directions)
        return primal, jax.grad(energy, (0, 1))(x, kernel), jax.grad(slope, (0, 1))(x, kernel)

    @jax.jit
    def both(x, kernel):
        ours = derivatives(lambda x, k: F.conv(x, k, **options), x, kernel)
        return ours, derivatives(reference, x, kernel)

    jax.tree.map(np.testing.assert_array_equal, *both(x, kernel))


@pytest.mark.parametrize("case", ["2d_strided", "2d_groups", "2d_multiplier"])
def test_loops_and_maps_change_nothing(case, rng):
    x, _, _ = operands(case, rng)
    kernels = jnp.stack([operands(case, rng)[1] for _ in range(3)])

    def gradients(kernel):
        def energy(x, kernel):
            return jnp.sum(jnp.square(F.conv(x, kernel, **CASES[case][4])))

        return jax.grad(energy, (0, 1))(x, kernel)

    def scanned(kernels):
        return lax.scan(lambda carry, kernel: (carry, gradients(kernel)), 0, kernels)[1]

    mapped = jax.jit(lambda kernels: (jax.vmap(gradients)(kernels), lax.map(gradients, kernels)))(kernels)
    single = jax.jit(gradients)
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *map(single, kernels))
    for result in (*mapped, jax.jit(scanned)(kernels)):
        jax.tree.map(np.testing.assert_array_equal, result, expected)


def test_derivatives_against_differences(rng):
    x = jnp.asarray(rng.normal(size=(2, 4, 4, 2)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 2, 2)), jnp.float32)
    check_grads(conv, (x, kernel), order=1, modes=["fwd", "rev"], eps=0.1, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("case", ["2d_valid", "2d_groups", "2d_depthwise"])
def test_bfloat16_in_bfloat16_out(case, rng):
    # Whole numbers below 2^8 are exact in bfloat16; a sum may be rounded once, by 2^-9 of it.
    x, kernel, bias = (array.astype(jnp.bfloat16) for array in operands(case, rng))
    y = conv(x, kernel, bias, **CASES[case][4])
    assert y.dtype == jnp.bfloat16
    expected = conv(*(array.astype(jnp.float32) for array in (x, kernel, bias)), **CASES[case][4])
    np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=2**-8)


# Channels, groups, and the window: blocks of examples, of groups and single examples carry sums.
@pytest.mark.parametrize("channels, groups, window", [(8, 1, 3), (32, 4, 3), (8, 8, 3), (8, 8, 7)])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_adds_up_in_float32(dtype, channels, groups, window, rng):
    shapes = (256, 8, 8, channels), (window, window, channels // groups, channels), (channels,)
    # Positive, so that sums grow until nothing more can be added to them in a narrow type.
    low = [jnp.asarray(rng.uniform(0.1, 1, shape), dtype) for shape in shapes]

    @jax.jit
    def results(*arrays):
        y, pull = jax.vjp(lambda *arrays: F.conv(*arrays, groups=groups), *arrays)
        return y, *pull(jnp.full_like(y, 0.5))

    for actual, expected in zip(results(*low), results(*(a.astype(jnp.float32) for a in low)), strict=True):
        assert actual.dtype == dtype
        error = np.abs(np.asarray(actual, np.float32) - expected).max()
        assert error <= 2**-7 * np.abs(expected).max()


@pytest.mark.parametrize("function", [F.conv_transpose, F.separable_conv])
def test_bfloat16_in_other_convolutions(function, rng):
    shapes = {
        F.conv_transpose: [(2, 3, 4, 3), (3, 3, 3, 2), (2,)],
        F.separable_conv: [(2, 4, 4, 2), (3, 3, 1, 4), (1, 1, 4, 3), (3,)],
    }
    arrays = [whole(rng, *shape) for shape in shapes[function]]
    y = function(*(array.astype(jnp.bfloat16) for array in arrays), stride=2)
    assert y.dtype == jnp.bfloat16
    # Rounded once by each of at most three operations.
    expected = function(*arrays, stride=2)
    np.testing.assert_allclose(y.astype(jnp.float32), expected, atol=2**-7 * np.abs(expected).max())


@pytest.mark.parametrize(
    "spatial, groups", [((4,), 1), ((4, 4), 1), ((4, 4), 2), ((4, 4), 4), ((3, 3, 3), 1)]
)
def test_an_empty_batch_has_gradients_of_zero(spatial, groups):
    x, kernel = jnp.ones((0, *spatial, 4)), jnp.ones((*(3,) * len(spatial), 4 // groups, 4))

    def energy(x, kernel):
        return jnp.sum(F.conv(x, kernel, groups=groups))

    x_bar, kernel_bar = jax.jit(jax.grad(energy, (0, 1)))(x, kernel)
    assert x_bar.shape == x.shape
    np.testing.assert_array_equal(kernel_bar, np.zeros(kernel.shape))


def test_convolve_is_that_of_numpy_and_scipy(rng):
    signal_1d, filter_1d = whole(rng, 7), whole(rng, 4)
    y = convolve(signal_1d.reshape(1, -1, 1), filter_1d.reshape(-1, 1, 1), padding="FULL")
    np.testing.assert_array_equal(y[0, :, 0], np.convolve(signal_1d, filter_1d))
    image, kernel = whole(rng, 5, 4), whole(rng, 3, 2)
    y = convolve(image[None, :, :, None], kernel[:, :, None, None], padding="FULL")
    np.testing.assert_array_equal(y[0, :, :, 0], signal.convolve2d(image, kernel))
    y = conv(image[None, :, :, None], kernel[:, :, None, None], padding="FULL")
    np.testing.assert_array_equal(y[0, :, :, 0], signal.correlate2d(image, kernel))


def test_convolve_is_conv_with_the_kernel_flipped(rng):
    x, kernel, bias = operands("2d_strided", rng)
    options = {"stride": 2, "padding": ((0, 1), (2, 1))}
    y = convolve(x, kernel, bias, **options)
    np.testing.assert_array_equal(y, conv(x, kernel[::-1, ::-1], bias, **options))
    assert np.any(y != conv(x, kernel, bias, **options))


def test_separable_is_depthwise_then_pointwise(rng):
    x, depthwise, pointwise, bias = (whole(rng, *s) for s in [(2, 5, 4, 3), (3, 3, 1, 6), (1, 1, 6, 2), (2,)])
    y = F.separable_conv(x, depthwise, pointwise, bias, stride=2, dilation=(1, 2))
    middle = F.depthwise_conv(x, depthwise, stride=2, dilation=(1, 2))
    np.testing.assert_array_equal(middle, conv(x, depthwise, groups=3, stride=2, dilation=(1, 2)))
    np.testing.assert_array_equal(y, middle @ pointwise[0, 0] + bias.reshape(1, 1, 1, -1))


def test_output_channel_order_of_a_multiplier(rng):
    x, kernel = whole(rng, 1, 4, 4, 2), whole(rng, 3, 3, 1, 4)
    y = F.depthwise_conv(x, kernel)
    for channel, m in product(range(2), range(2)):
        o = channel * 2 + m
        alone = conv(x[..., channel : channel + 1], kernel[..., o : o + 1])
        np.testing.assert_array_equal(y[..., o : o + 1], alone)


# Small input of the transpose, window, options of both the transpose and its conv.
TRANSPOSED = {
    "same": ((3, 4), (3, 3), {"stride": 2}),
    "valid": ((3, 4), (3, 2), {"stride": (2, 3), "padding": "VALID"}),
    "dilated": ((4, 3), (2, 3), {"dilation": (3, 2), "padding": "VALID"}),
    "same_dilated": ((4, 3), (3, 3), {"stride": 2, "dilation": 2}),
    "pairs": ((4, 4), (3, 3), {"stride": 2, "padding": ((1, 0), (0, 2))}),
    "int": ((5,), (4,), {"stride": 2, "padding": 1}),
    "stride_over_window": ((3,), (2,), {"stride": 4}),
    "window_under_padding": ((3, 4), (1, 2), {"stride": 2, "padding": 1}),
    "3d": ((2, 3, 2), (2, 2, 3), {"stride": (2, 1, 2)}),
    "3d_window_under_padding": ((3, 3, 3), (1, 2, 1), {"stride": 2, "padding": 1}),
}


@pytest.mark.parametrize("case", TRANSPOSED)
def test_conv_transpose_is_the_transpose_of_conv(case, rng):
    spatial, window, options = TRANSPOSED[case]
    x, kernel = whole(rng, 2, *spatial, 3), whole(rng, *window, 3, 2)

    @jax.jit
    def forward_and_back(x, kernel):
        y = F.conv_transpose(x, kernel, **options)
        swapped = jnp.swapaxes(kernel, -1, -2)
        (transposed,) = jax.linear_transpose(lambda y: F.conv(y, swapped, **options), y)(x)
        return y, transposed

    y, transposed = forward_and_back(x, kernel)
    np.testing.assert_array_equal(y, transposed)
    # <conv(v), x> = <v, conv_transpose(x)>
    v = whole(rng, *y.shape)
    image = conv(v, jnp.swapaxes(kernel, -1, -2), **options)
    assert image.shape == x.shape
    assert np.vdot(image, x) == np.vdot(v, y)


def test_conv_transpose_by_hand():
    # Each input writes its multiple of (1, 2, 3), two steps apart: 1 2 3 + 4 (shifted) ...
    x, kernel = jnp.array([1.0, 4.0]).reshape(1, 2, 1), jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    y = conv_transpose(x, kernel, jnp.array([10.0]), stride=2, padding="VALID")
    np.testing.assert_array_equal(y[0, :, 0], [11, 12, 17, 18, 22])
    np.testing.assert_array_equal(conv_transpose(x, kernel, stride=2)[0, :, 0], [1, 2, 7, 8])


def test_conv_transpose_same_multiplies_the_size(rng):
    x, kernel = whole(rng, 1, 3, 5, 2), whole(rng, 3, 2, 2, 4)
    assert conv_transpose(x, kernel, stride=(3, 4)).shape == (1, 9, 20, 4)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_circular_conv_commutes_with_shifts(groups, rng):
    x, kernel = whole(rng, 2, 5, 4, 4), whole(rng, 3, 3, 4 // groups, 4)
    y = conv(x, kernel, padding="CIRCULAR", groups=groups)
    shifted = conv(jnp.roll(x, (2, 1), (1, 2)), kernel, padding="CIRCULAR", groups=groups)
    np.testing.assert_array_equal(shifted, jnp.roll(y, (2, 1), (1, 2)))


def test_conv_is_linear_in_the_input_and_the_kernel(rng):
    (x, kernel, _), (other_x, other_kernel, _) = operands("2d_valid", rng), operands("2d_valid", rng)
    np.testing.assert_array_equal(conv(x + other_x, kernel), conv(x, kernel) + conv(other_x, kernel))
    np.testing.assert_array_equal(
        conv(x, 2 * kernel - other_kernel), 2 * conv(x, kernel) - conv(x, other_kernel)
    )


def test_precision_reaches_every_part():
    x, kernel = jnp.zeros((2, 4, 4, 4)), jnp.zeros((3, 3, 2, 4))

    def energy(x, kernel):
        return jnp.sum(jnp.square(F.conv(x, kernel, groups=2, precision="highest")))

    text = jax.jit(jax.grad(energy, (0, 1))).lower(x, kernel).as_text()
    assert text.count("precision HIGHEST>, #stablehlo<precision HIGHEST>") == 3


X, KERNEL = jnp.zeros((1, 4, 4, 4)), jnp.zeros((3, 3, 4, 2))


@pytest.mark.parametrize(
    "call, error, text",
    [
        (
            lambda: conv(X[0], KERNEL),
            ValueError,
            r"of the same rank, 3 to 5; got x of shape \(4, 4, 4\) and a kernel of shape \(3, 3, 4, 2\)",
        ),
        (lambda: conv(X[0, 0], KERNEL[0, 0]), ValueError, "of the same rank, 3 to 5"),
        (
            lambda: conv(X, jnp.zeros((3, 3, 1, 4)), groups=3),
            ValueError,
            "4 input and 4 output channels do not divide into 3",
        ),
        (lambda: conv(X, jnp.zeros((3, 3, 1, 6)), groups=4), ValueError, "4 input and 6 output channels"),
        (lambda: conv(X, KERNEL, groups=0), ValueError, "do not divide into 0"),
        (
            lambda: conv(X, KERNEL, groups=2),
            ValueError,
            r"\(3, 3, 4, 2\) with groups=2 takes 8 input channels; x has 4 \(shape \(1, 4, 4, 4\)\)",
        ),
        (
            lambda: conv(X[..., :3], KERNEL),
            ValueError,
            "groups=1 takes 4 input channels; x has 3",
        ),
        (
            lambda: conv(X.astype(jnp.bfloat16), KERNEL),
            TypeError,
            "one type; got bfloat16 and float32: cast one",
        ),
        (
            lambda: conv(X.astype(jnp.bfloat16), KERNEL.astype(jnp.bfloat16), jnp.zeros(2)),
            TypeError,
            "x and bias must have one type; got bfloat16 and float32: cast one",
        ),
        (
            lambda: conv(X, KERNEL[:, :0]),
            ValueError,
            r"window must be at least 1 along every axis; got shape \(3, 0, 4, 2\)",
        ),
        (lambda: conv_transpose(X, KERNEL[:0]), ValueError, r"got shape \(0, 3, 4, 2\)"),
        (
            lambda: F.depthwise_conv(X, jnp.zeros((3, 3, 4, 1))),
            ValueError,
            r"shape \(\*window, 1, channels \* multiplier\), here with 4 channels; got \(3, 3, 4, 1\)",
        ),
        (
            lambda: conv(X, KERNEL, jnp.zeros(4)),
            ValueError,
            r"bias must have shape \(2,\), one number an output channel; got \(4,\)",
        ),
        (
            lambda: conv(X, jnp.zeros((5, 3, 4, 2)), padding="VALID"),
            ValueError,
            "kernel larger than the padded input along spatial axis 0",
        ),
        (
            lambda: conv(X, KERNEL, dilation=2, padding="VALID"),
            ValueError,
            r"dilation 2 spans 5, input size 4 with padding \(0, 0\) is 4",
        ),
        (lambda: conv(X, KERNEL, padding="MIRROR"), ValueError, "unknown padding 'MIRROR': use 'VALID'"),
        (lambda: conv(X, KERNEL, stride=0), ValueError, "stride must be positive, got 0"),
        (lambda: conv(X, KERNEL, stride=(1, 1, 1)), ValueError, r"one entry per spatial axis \(2\)"),
        (lambda: conv(X, KERNEL, dilation=(1,)), ValueError, "dilation must have one entry"),
        (
            lambda: F.separable_conv(X, jnp.zeros((3, 3, 1, 4)), KERNEL),
            ValueError,
            r"a pointwise kernel has shape \(1, ..., 1, in_channels, out_channels\).*\(3, 3, 4, 2\)",
        ),
        (
            lambda: conv_transpose(X, KERNEL, padding="CIRCULAR"),
            ValueError,
            "takes SAME or VALID padding, an int or pairs; got 'CIRCULAR'",
        ),
        (
            lambda: conv_transpose(X, KERNEL, padding=3),
            ValueError,
            r"padding 3 crops all of the transposed output of size \(6, 6\); use less",
        ),
        (lambda: conv_transpose(X, KERNEL, jnp.zeros(1)), ValueError, r"bias must have shape \(2,\)"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_errors_come_before_anything_compiles():
    with pytest.raises(ValueError, match="takes 8 input channels"):
        jax.eval_shape(lambda: F.conv(X, KERNEL, groups=2))
