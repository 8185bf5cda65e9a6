from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax import lax
from jax.test_util import check_grads

from cnnjax.functional import pool as pooling

# Compiled, because the many small steps of a pool are slow one by one.
WINDOWED = ("window", "stride", "padding")
max_pool = jax.jit(pooling.max_pool, static_argnames=WINDOWED)
avg_pool = jax.jit(pooling.avg_pool, static_argnames=(*WINDOWED, "count_padding"))
lp_pool = jax.jit(pooling.lp_pool, static_argnames=(*WINDOWED, "p"))
adaptive_avg_pool = jax.jit(pooling.adaptive_avg_pool, static_argnames="output_size")
adaptive_max_pool = jax.jit(pooling.adaptive_max_pool, static_argnames="output_size")
global_avg_pool, global_max_pool = jax.jit(pooling.global_avg_pool), jax.jit(pooling.global_max_pool)

# Spatial shape, window, stride, pairs of padding.
CASES = {
    "1d": ((7,), (2,), (2,), ((0, 0),)),
    "1d_overlap": ((8,), (3,), (1,), ((1, 2),)),
    "1d_gaps": ((9,), (2,), (3,), ((1, 0),)),
    "2d_tiles": ((4, 6), (2, 3), (2, 3), ((0, 0), (0, 0))),
    "2d_overlap": ((7, 6), (3, 2), (2, 1), ((1, 1), (0, 1))),
    "3d": ((4, 5, 3), (2, 3, 1), (2, 1, 2), ((0, 1), (1, 1), (0, 0))),
}
REDUCTIONS = {
    "max": (np.max, max_pool, -np.inf, {}),
    "avg": (np.nanmean, avg_pool, np.nan, {}),
    "avg_counted": (np.mean, avg_pool, 0, {"count_padding": True}),
    "l3": (lambda v: np.cbrt(np.sum(np.abs(v) ** 3)), lp_pool, 0, {"p": 3}),
}


def pool_by_loops(x, reduce, window, stride, pairs, fill):
    x = np.pad(x, ((0, 0), *pairs, (0, 0)), constant_values=fill)
    outputs = [(n - w) // s + 1 for n, w, s in zip(x.shape[1:-1], window, stride, strict=True)]
    y = np.zeros((x.shape[0], *outputs, x.shape[-1]))
    for n, c in product(range(x.shape[0]), range(x.shape[-1])):
        for position in product(*map(range, outputs)):
            corner = [slice(p * s, p * s + w) for p, s, w in zip(position, stride, window, strict=True)]
            y[(n, *position, c)] = reduce(x[(n, *corner, c)])
    return y


def bins_by_loops(x, reduce, counts):
    def edges(i, size, count):
        return slice(int(np.floor(i * size / count)), int(np.ceil((i + 1) * size / count)))

    y = np.zeros((x.shape[0], *counts, x.shape[-1]))
    for n, c in product(range(x.shape[0]), range(x.shape[-1])):
        for position in product(*map(range, counts)):
            cell = [edges(*args) for args in zip(position, x.shape[1:-1], counts, strict=True)]
            y[(n, *position, c)] = reduce(x[(n, *cell, c)])
    return y


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("case", CASES)
def test_pooling_is_its_definition(case, reduction, rng):
    spatial, window, stride, pairs = CASES[case]
    reduce, pool, fill, options = REDUCTIONS[reduction]
    x = rng.normal(size=(2, *spatial, 3)).astype(np.float32)
    expected = pool_by_loops(x, reduce, window, stride, pairs, fill)
    y = pool(x, window, stride=stride, padding=pairs, **options)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_pooling_agrees_with_flax(padding, rng):
    x = jnp.asarray(rng.normal(size=(2, 7, 6, 3)), jnp.float32)
    options = {"padding": padding}
    expected = linen.max_pool(x, (3, 3), strides=(2, 2), **options)
    np.testing.assert_array_equal(max_pool(x, 3, stride=2, **options), expected)
    for count in (True, False):
        with jax.numpy_dtype_promotion("standard"):  # Flax divides by a count of integers
            expected = linen.avg_pool(x, (3, 3), strides=(2, 2), count_include_pad=count, **options)
        np.testing.assert_allclose(
            avg_pool(x, 3, stride=2, count_padding=count, **options), expected, rtol=1e-5, atol=1e-6
        )


def test_stride_is_the_window_unless_given(rng):
    x = jnp.asarray(rng.normal(size=(1, 4, 4, 1)), jnp.float32)
    assert max_pool(x, 2).shape == (1, 2, 2, 1)
    np.testing.assert_array_equal(max_pool(x, 2), max_pool(x, (2, 2), stride=(2, 2)))


def test_padding_does_not_count_unless_asked():
    x = jnp.ones((1, 4, 1))
    np.testing.assert_allclose(avg_pool(x, 3, stride=1, padding="SAME")[0, :, 0], [1, 1, 1, 1])
    counted = avg_pool(x, 3, stride=1, padding="SAME", count_padding=True)
    np.testing.assert_allclose(counted[0, :, 0], [2 / 3, 1, 1, 2 / 3], rtol=1e-6)


@pytest.mark.parametrize("pool", [max_pool, avg_pool, lp_pool])
def test_circular_pooling_commutes_with_shifts(pool, rng):
    x = jnp.asarray(rng.normal(size=(2, 5, 4, 3)), jnp.float32)
    pooled = pool(x, 3, stride=1, padding="CIRCULAR")
    shifted = pool(jnp.roll(x, (2, 1), (1, 2)), 3, stride=1, padding="CIRCULAR")
    np.testing.assert_allclose(shifted, jnp.roll(pooled, (2, 1), (1, 2)), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
def test_max_pool_of_integers(dtype, rng):
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = rng.integers(low, high, size=(2, 5, 5, 2), dtype=dtype, endpoint=True)
    y = max_pool(jnp.asarray(x), 3, stride=2, padding=1)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, pool_by_loops(x, np.max, (3, 3), (2, 2), ((1, 1), (1, 1)), low))


def test_maximum_of_negative_numbers_is_not_the_padding():
    y = max_pool(-jnp.ones((1, 3, 3, 1)), 3, stride=1, padding="SAME")
    np.testing.assert_array_equal(y, -np.ones((1, 3, 3, 1)))


@pytest.mark.parametrize(
    "pool", [lambda x: max_pool(x, 2), lambda x: avg_pool(x, 2), lambda x: lp_pool(x, 2)]
)
@pytest.mark.parametrize("position", range(4))
def test_nan_is_seen_in_its_window_only(pool, position):
    x = jnp.arange(1.0, 9.0).at[position].set(jnp.nan).reshape(1, 8, 1)
    y = pool(x)[0, :, 0]
    np.testing.assert_array_equal(np.isnan(y), [position < 2, position >= 2, False, False])


@pytest.mark.parametrize("pool", [global_max_pool, lambda x: adaptive_max_pool(x, 1)])
def test_nan_reaches_the_global_maximum(pool):
    assert np.isnan(pool(jnp.array([1.0, jnp.nan, 3.0]).reshape(1, 3, 1))).all()


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_max_pool_gradient_is_that_of_reduce_window(stride, rng):
    # Few levels, so that most windows are tied: XLA also takes the first entry in row-major order.
    x = jnp.asarray(rng.integers(0, 3, size=(2, 7, 8, 3)), jnp.float32)

    def reference(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, stride, stride, 1), "SAME")

    @jax.jit
    def gradients(x):
        y, pull = jax.vjp(lambda x: max_pool(x, 3, stride=stride, padding="SAME"), x)
        cotangent = jnp.arange(1.0, y.size + 1).reshape(y.shape)
        return pull(cotangent), jax.vjp(reference, x)[1](cotangent)

    np.testing.assert_array_equal(*gradients(x))


@pytest.mark.parametrize(
    "pool", [lambda x: max_pool(x, 2), global_max_pool, lambda x: adaptive_max_pool(x, 1)]
)
def test_tied_gradient_goes_to_the_first(pool):
    x = jnp.array([[0.0, 5.0], [5.0, 5.0]]).reshape(1, 2, 2, 1)
    gradient = jax.jit(jax.grad(lambda x: pool(x).sum()))(x)
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[0, 1], [0, 0]])


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3])
def test_lp_pool_gradient_of_zeros_is_zero(p):
    x = jnp.zeros((1, 4, 1)).at[0, 3].set(2.0)
    value, gradient = jax.jit(jax.value_and_grad(lambda x: lp_pool(x, 2, p=p).sum()))(x)
    assert value == pytest.approx(2)
    np.testing.assert_array_equal(gradient[0, :2, 0], [0, 0])
    assert gradient[0, 3, 0] == pytest.approx(1)


def test_lp_pool_is_the_euclidean_norm_unless_told_otherwise():
    x = jnp.array([3.0, -4.0, 0.0, 2.0]).reshape(1, 4, 1)
    np.testing.assert_allclose(lp_pool(x, 2)[0, :, 0], [5, 2], rtol=1e-6)


def test_lp_pool_lies_between_the_sum_and_the_maximum(rng):
    x = jnp.asarray(rng.normal(size=(2, 6, 6, 3)), jnp.float32)
    np.testing.assert_allclose(lp_pool(x, 2, p=1), 4 * avg_pool(jnp.abs(x), 2), rtol=1e-6)
    np.testing.assert_allclose(lp_pool(x, 2, p=60), max_pool(jnp.abs(x), 2), rtol=0.03)  # 4^(1/60) = 1.023


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: max_pool(x, 3, stride=2, padding="SAME"),
        lambda x: avg_pool(x, 3, stride=2, padding="SAME"),
        lambda x: lp_pool(x, 2, p=3.0),
        lambda x: adaptive_avg_pool(x, 3),
        lambda x: adaptive_max_pool(x, 3),
        global_max_pool,
        global_avg_pool,
    ],
)
def test_gradients_against_differences(pool, rng):
    # Distinct multiples of 0.1 away from 0: no maximum changes hands within the step of the differences.
    x = jnp.asarray(0.1 * (1 + rng.permutation(40)).reshape(1, 5, 4, 2), jnp.float32)
    check_grads(pool, (x,), order=1, modes=["rev"], eps=1e-2, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("spatial", [(6,), (4, 3), (2, 3, 2)])
def test_global_pooling(spatial, rng):
    x = rng.normal(size=(2, *spatial, 3)).astype(np.float32)
    axes = tuple(range(1, x.ndim - 1))
    np.testing.assert_array_equal(global_max_pool(jnp.asarray(x)), x.max(axes))
    np.testing.assert_allclose(global_avg_pool(jnp.asarray(x)), x.mean(axes), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pool", [global_max_pool, global_avg_pool])
def test_global_pooling_ignores_where(pool, rng):
    x = jnp.asarray(rng.normal(size=(2, 4, 5, 3)), jnp.float32)
    np.testing.assert_allclose(pool(jnp.roll(x, (1, 3), (1, 2))), pool(x), rtol=1e-5)


@pytest.mark.parametrize(
    "spatial, output",
    [((7,), 3), ((6,), (6,)), ((8, 5), (3, 2)), ((6, 6), 3), ((3, 2), (5, 4)), ((4, 5, 3), 2)],
)
def test_adaptive_pooling(spatial, output, rng):
    x = rng.normal(size=(2, *spatial, 3)).astype(np.float32)
    counts = (output,) * len(spatial) if isinstance(output, int) else output
    averages = adaptive_avg_pool(x, output)
    maxima = adaptive_max_pool(x, output)
    np.testing.assert_allclose(averages, bins_by_loops(x, np.mean, counts), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(maxima, bins_by_loops(x, np.max, counts).astype(np.float32))


def test_adaptive_pooling_to_one_bin_is_global(rng):
    x = jnp.asarray(rng.normal(size=(2, 5, 4, 3)), jnp.float32)
    np.testing.assert_allclose(adaptive_avg_pool(x, 1)[:, 0, 0], global_avg_pool(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(adaptive_max_pool(x, 1)[:, 0, 0], global_max_pool(x))


FUNCTIONS = {
    "max": lambda x: max_pool(x, 2),
    "avg": lambda x: avg_pool(x, 2, padding="SAME"),
    "lp": lambda x: lp_pool(x, 2),
    "global_max": global_max_pool,
    "global_avg": global_avg_pool,
    "adaptive_avg": lambda x: adaptive_avg_pool(x, 2),
    "adaptive_max": lambda x: adaptive_max_pool(x, 2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_low_precision_is_rounded_once(name, rng):
    x = jnp.asarray(rng.uniform(0.5, 1, size=(2, 5, 5, 3)), jnp.bfloat16)
    pool = FUNCTIONS[name]
    y = pool(x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, pool(x.astype(jnp.float32)).astype(jnp.bfloat16))


@pytest.mark.parametrize("name", ["max", "avg", "lp", "adaptive_max"])
def test_vmap_and_scan_are_a_loop(name, rng):
    x = jnp.asarray(rng.normal(size=(3, 2, 5, 5, 3)), jnp.float32)
    gradient = jax.grad(lambda x: jnp.sum(jnp.square(FUNCTIONS[name](x))))
    single = jax.jit(gradient)
    expected = np.stack([single(example) for example in x])
    for mapped in jax.jit(lambda x: (jax.vmap(gradient)(x), lax.map(gradient, x)))(x):
        np.testing.assert_allclose(mapped, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda x: max_pool(x[0, 0], 2), ValueError, r"rank 3 or more, got shape \(4, 2\)"),
        (lambda x: global_avg_pool(x[0, 0]), ValueError, "rank 3 or more"),
        (lambda x: global_max_pool(x[0, 0]), ValueError, "rank 3 or more"),
        (lambda x: adaptive_avg_pool(x[0, 0], 1), ValueError, "rank 3 or more"),
        (lambda x: max_pool(x > 0, 2), TypeError, "max_pool takes floating-point .* got bool: use x.astype"),
        (lambda x: max_pool(x.astype(complex), 2), TypeError, "or integers, got complex64"),
        (lambda x: global_max_pool(x > 0), TypeError, "global_max_pool takes .* got bool"),
        (lambda x: adaptive_max_pool(x > 0, 1), TypeError, "adaptive_max_pool takes .* got bool"),
        (lambda x: max_pool(x, (2,)), ValueError, r"window must have one entry per spatial axis \(2\)"),
        (lambda x: max_pool(x, 2, stride=0), ValueError, "stride must be positive"),
        (lambda x: max_pool(x, 5), ValueError, "window larger than the padded input along spatial axis 0"),
        (lambda x: avg_pool(x, 2, padding=2), ValueError, "must be smaller than the window"),
        (lambda x: max_pool(x, 2, padding="MIRROR"), ValueError, "unknown padding 'MIRROR'"),
        (lambda x: adaptive_avg_pool(x, 0), ValueError, "output_size must be positive"),
        (lambda x: adaptive_max_pool(x, (1, 2, 3)), ValueError, "output_size must have one entry"),
        (lambda x: lp_pool(x, 2, p=0.5), ValueError, "p must be at least 1 and finite, got 0.5"),
        (lambda x: lp_pool(x, 2, p=np.inf), ValueError, "p must be at least 1 and finite"),
        (
            lambda x: avg_pool(x.astype(jnp.int32), 2),
            TypeError,
            "avg_pool takes floating-point numbers, got int32",
        ),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call(jnp.zeros((1, 4, 4, 2)))
