from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax.sharding import AxisType, PartitionSpec
from jax.test_util import check_grads

from cnnjax.functional import norm

# Compiled, because many small steps are slow one by one.
batch_norm = jax.jit(norm.batch_norm, static_argnames=("train", "axis_name", "unbiased"))
group_norm = jax.jit(norm.group_norm, static_argnames="groups")
layer_norm = jax.jit(norm.layer_norm, static_argnames="axes")
instance_norm, weight_standardize = jax.jit(norm.instance_norm), jax.jit(norm.weight_standardize)

SPATIAL = {"features": (), "1d": (5,), "2d": (3, 4), "3d": (2, 3, 2)}
CHANNELS = 6


@pytest.fixture
def affine(rng):
    return tuple(jnp.asarray(rng.normal(size=CHANNELS), jnp.float32) for _ in range(2))


def images(rng, *spatial, batch=4):
    return jnp.asarray(rng.normal(3, 2, size=(batch, *spatial, CHANNELS)), jnp.float32)


def running():
    return jnp.zeros(CHANNELS), jnp.ones(CHANNELS)


def standardized(x, axes, epsilon=1e-5):
    x = np.asarray(x, np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


# Batch norm.


@pytest.mark.parametrize("spatial", SPATIAL.values(), ids=SPATIAL)
def test_batch_norm_is_its_definition(spatial, rng, affine):
    x = images(rng, *spatial)
    axes = tuple(range(x.ndim - 1))
    y, (mean, variance) = batch_norm(x, *running(), *affine, train=True, momentum=0.75)
    scale, bias = map(np.asarray, affine)
    close(y, standardized(x, axes) * scale + bias)
    close(mean, 0.25 * np.asarray(x).mean(axes))
    close(variance, 0.75 + 0.25 * np.asarray(x).var(axes))


def test_batch_norm_agrees_with_flax(rng, affine):
    x, (scale, bias) = images(rng, 3, 4), affine
    mean, variance = jnp.linspace(-1, 1, CHANNELS), jnp.linspace(0.5, 2, CHANNELS)
    module = linen.BatchNorm(momentum=0.9, epsilon=1e-3, use_fast_variance=False)
    variables = {
        "params": {"scale": scale, "bias": bias},
        "batch_stats": {"mean": mean, "var": variance},
    }
    for train in (True, False):
        expected, updated = module.apply(variables, x, use_running_average=not train, mutable=["batch_stats"])
        y, statistics = batch_norm(x, mean, variance, scale, bias, train=train, epsilon=1e-3)
        close(y, expected)
        close(statistics[0], updated["batch_stats"]["mean"])
        close(statistics[1], updated["batch_stats"]["var"])


@pytest.mark.parametrize("unbiased, expected", [(False, 1.25), (True, 5 / 3)])
def test_running_variance_of_0_to_3(unbiased, expected):
    # By hand: squared deviations 2.25 + 0.25 + 0.25 + 2.25 = 5, over 4 entries or 3.
    x = jnp.arange(4.0).reshape(4, 1)
    y, (mean, variance) = batch_norm(
        x, jnp.zeros(1), jnp.ones(1), train=True, momentum=0.0, unbiased=unbiased
    )
    assert mean.item() == 1.5
    assert variance.item() == pytest.approx(expected)
    close(y, (np.arange(4.0).reshape(4, 1) - 1.5) / np.sqrt(1.25 + 1e-5))


def test_momentum_weighs_the_old_value():
    x = jnp.full((2, 1), 10.0)
    _, (mean, variance) = batch_norm(x, jnp.zeros(1), jnp.ones(1), train=True, momentum=0.9)
    assert mean.item() == pytest.approx(1.0)
    assert variance.item() == pytest.approx(0.9)


def test_evaluation_uses_and_keeps_the_running_statistics(rng):
    x = images(rng, 3)
    mean, variance = jnp.linspace(-1, 1, CHANNELS), jnp.linspace(0.5, 2, CHANNELS)
    y, statistics = batch_norm(x, mean, variance, train=False)
    np.testing.assert_array_equal(statistics, (mean, variance))
    close(y, (np.asarray(x) - np.asarray(mean)) / np.sqrt(np.asarray(variance) + 1e-5))
    first, _ = batch_norm(x[:1], mean, variance, train=False)
    np.testing.assert_allclose(first, y[:1], rtol=1e-6)


def test_variance_survives_a_large_mean(rng):
    # E[x^2] - E[x]^2 in float32 is off by percents here.
    x = 1000 + rng.normal(size=(4096, CHANNELS))
    x = jnp.asarray(x, jnp.float32)
    _, (_, variance) = batch_norm(x, *running(), train=True, momentum=0.0)
    np.testing.assert_allclose(variance, np.asarray(x, np.float64).var(0), rtol=1e-4)


def test_batch_norm_gradient_is_orthogonal_to_shift_and_scale(rng):
    # The output depends on neither (but for epsilon), so that the gradient sums to 0 with 1 and with x.
    x, weights = images(rng, 3, 4), images(rng, 3, 4)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(weights * batch_norm(x, *running(), train=True)[0])))(x)
    assert np.abs(gradient).max() > 0.1
    np.testing.assert_allclose(gradient.sum((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose((gradient * x).sum((0, 1, 2)), 0, atol=1e-3)


# Batch norm over devices. 8 shards of 2 examples: values, gradients and running statistics of the 16.


def loss_of_batch_norm(x, scale, bias, weights, *, axis_name=None):
    y, statistics = batch_norm(x, *running(), scale, bias, train=True, axis_name=axis_name, unbiased=True)
    loss = jnp.mean(weights * jnp.sin(y))
    return loss if axis_name is None else jax.lax.pmean(loss, axis_name), (y, statistics)


def globally(arguments, arrays):
    return jax.jit(jax.value_and_grad(loss_of_batch_norm, argnums=arguments, has_aux=True))(*arrays)


@pytest.fixture
def arrays(rng, affine):
    # Shards of different means, so that their own statistics would be far off.
    x = images(rng, 3, batch=16) + 5 * jnp.arange(16.0).reshape(16, 1, 1)
    return x, *affine, images(rng, 3, batch=16)


def assert_trees_close(actual, expected):
    jax.tree.map(close, actual, expected)


@pytest.mark.parametrize("axis_names", ["data", ("rows", "columns")], ids=["one_axis", "two_axes"])
def test_batch_norm_in_shard_map_is_global(axis_names, arrays):
    names = (axis_names,) if isinstance(axis_names, str) else axis_names
    shape = {1: (8,), 2: (4, 2)}[len(names)]
    mesh = jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(names))
    split, whole = PartitionSpec(axis_names), PartitionSpec()

    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(split, whole, whole, split),
        out_specs=(whole, (split, (whole, whole))),
    )
    def sharded(*shards):
        return loss_of_batch_norm(*shards, axis_name=axis_names)

    actual = jax.jit(jax.value_and_grad(sharded, argnums=(0, 1, 2), has_aux=True))(*arrays)
    assert_trees_close(actual, globally((0, 1, 2), arrays))


@pytest.mark.parametrize("mapping", [jax.vmap, jax.pmap])
def test_batch_norm_over_a_mapped_axis_is_global(mapping, arrays):
    x, scale, bias, weights = arrays
    shards = [a.reshape(8, 2, *a.shape[1:]) for a in (x, weights)]

    def mean_loss(x):
        mapped = mapping(
            partial(loss_of_batch_norm, axis_name="data"), axis_name="data", in_axes=(0, None, None, 0)
        )
        losses, (y, statistics) = mapped(x, scale, bias, shards[1])
        return losses.mean(), (y, statistics)

    (loss, (y, statistics)), gradient = jax.jit(jax.value_and_grad(mean_loss, has_aux=True))(shards[0])
    (expected_loss, (expected_y, expected_statistics)), expected_gradient = globally(0, arrays)
    close(loss, expected_loss)
    close(y.reshape(x.shape), expected_y)
    close(gradient.reshape(x.shape), expected_gradient)
    for per_shard, expected in zip(statistics, expected_statistics, strict=True):
        assert_trees_close(list(per_shard), [expected] * 8)


# Norms of single examples.


@pytest.mark.parametrize("spatial", [(), (3, 4)])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm_agrees_with_flax(spatial, groups, rng, affine):
    x, (scale, bias) = images(rng, *spatial), affine
    module = linen.GroupNorm(num_groups=groups, epsilon=1e-5, use_fast_variance=False)
    expected = module.apply({"params": {"scale": scale, "bias": bias}}, x)
    close(group_norm(x, scale, bias, groups=groups), expected)


@pytest.mark.parametrize("axes", [None, -1, (1, 2), (-1, 1)])
def test_layer_norm_agrees_with_flax(axes, rng, affine):
    x, (scale, bias) = images(rng, 3, 4), affine
    module = linen.LayerNorm(
        epsilon=1e-5, reduction_axes=(1, 2, 3) if axes is None else axes, use_fast_variance=False
    )
    expected = module.apply({"params": {"scale": scale, "bias": bias}}, x)
    close(layer_norm(x, scale, bias, axes=axes), expected)


def test_instance_norm_agrees_with_flax(rng, affine):
    x, (scale, bias) = images(rng, 3, 4), affine
    module = linen.InstanceNorm(epsilon=1e-5, use_fast_variance=False)
    close(instance_norm(x, scale, bias), module.apply({"params": {"scale": scale, "bias": bias}}, x))


@pytest.mark.parametrize("spatial", [(5,), (3, 4), (2, 3, 2)])
def test_norms_of_examples_are_cases_of_group_norm(spatial, rng, affine):
    x = images(rng, *spatial)
    close(layer_norm(x, *affine), group_norm(x, *affine, groups=1))
    close(instance_norm(x, *affine), group_norm(x, *affine, groups=CHANNELS))


def test_layer_norm_of_features_is_its_definition(rng):
    x = images(rng)
    close(layer_norm(x, epsilon=1e-3), standardized(x, 1, epsilon=1e-3))


@pytest.mark.parametrize(
    "normalize", [partial(group_norm, groups=2), layer_norm, partial(layer_norm, axes=-1), instance_norm]
)
def test_gradients_against_differences(normalize, rng, affine):
    x = images(rng, 3, batch=2)
    check_grads(normalize, (x, *affine), order=1, modes=["rev"], eps=1e-2, atol=1e-2, rtol=1e-2)


NORMS = {
    "batch": lambda x, *affine: batch_norm(x, *running(), *affine, train=True)[0],
    "batch_eval": lambda x, *affine: batch_norm(x, *running(), *affine, train=False)[0],
    "group": partial(group_norm, groups=3),
    "layer": layer_norm,
    "instance": instance_norm,
}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_inputs_have_float32_statistics(name, dtype, rng, affine):
    # Squares of 500 overflow float16, and sums of 4096 entries stagnate in bfloat16.
    x = (100 * images(rng, 32, 32)).astype(dtype)
    y = NORMS[name](x, *affine)
    assert y.dtype == dtype
    expected = NORMS[name](x.astype(jnp.float32), *affine).astype(dtype)
    assert np.isfinite(expected).all()
    # Within the one rounding to `dtype`, and those in float32 of the terms of a sum that is nearly 0.
    wide = [a.astype(np.float32) for a in (y, expected)]
    np.testing.assert_allclose(*wide, rtol=float(jnp.finfo(dtype).eps), atol=1e-6)


def test_running_statistics_stay_float32_for_bfloat16(rng):
    x = images(rng, 3)
    _, expected = batch_norm(x.astype(jnp.bfloat16).astype(jnp.float32), *running(), train=True)
    _, statistics = batch_norm(x.astype(jnp.bfloat16), *running(), train=True)
    assert all(s.dtype == jnp.float32 for s in statistics)
    assert_trees_close(statistics, expected)


@pytest.mark.parametrize("name", NORMS)
def test_float64_is_kept(name, rng):
    with jax.enable_x64():
        x = jnp.asarray(rng.normal(size=(4, 3, CHANNELS)), jnp.float64)
        assert NORMS[name](x).dtype == jnp.float64


# Kernels.


@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (3, 1, 6), (8, 3), (2, 2, 2, 3, 4)])
def test_weight_standardize_without_gain(shape, rng):
    kernel = jnp.asarray(rng.normal(0.5, 1, size=shape), jnp.float32)
    close(weight_standardize(kernel), standardized(kernel, tuple(range(len(shape) - 1)), epsilon=0))


@pytest.mark.parametrize("gain", [2.0, np.array([0.5, 1, 2, 3])], ids=["number", "per_channel"])
def test_weight_standardize_with_gain(gain, rng):
    kernel = jnp.asarray(rng.normal(0.5, 0.1, size=(3, 3, 8, 4)), jnp.float32)
    array = gain if isinstance(gain, float) else jnp.asarray(gain, jnp.float32)
    y = np.asarray(weight_standardize(kernel, gain=array))
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(y.var((0, 1, 2)) * 72, np.broadcast_to(np.square(gain), 4), rtol=1e-4)


@pytest.mark.parametrize("gain, factor", [(None, 2.0), (3.0, 3.0)])
def test_weight_standardize_of_tiny_weights_divides_by_epsilon(gain, factor):
    # Fan-in 4 and variance 1e-10: 4e-10 < 1e-4, so that the divisor is sqrt(1e-4) = 0.01.
    kernel = 1e-5 * jnp.array([[1.0], [-1.0], [1.0], [-1.0]])
    np.testing.assert_allclose(weight_standardize(kernel, gain=gain), 100 * factor * kernel, rtol=1e-5)


def test_weight_standardize_of_constant_weights(rng):
    value, gradient = jax.jit(jax.value_and_grad(lambda k: weight_standardize(k).sum()))(
        jnp.ones((3, 3, 2, 2))
    )
    assert value == 0
    assert np.isfinite(gradient).all()


def test_weight_standardize_keeps_the_type(rng):
    kernel = jnp.asarray(rng.normal(size=(3, 3, 2, 4)), jnp.bfloat16)
    assert weight_standardize(kernel, gain=jnp.ones(4)).dtype == jnp.bfloat16


# Errors.


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda x: group_norm(x, groups=4), ValueError, "6 channels do not divide into 4 groups"),
        (lambda x: group_norm(x, groups=0), ValueError, "6 channels do not divide into 0 groups"),
        (
            lambda x: group_norm(x[0, 0], groups=2),
            ValueError,
            r"group_norm takes x \(batch, \*spatial, channels\)",
        ),
        (lambda x: layer_norm(x[0, 0]), ValueError, r"rank 2 or more, got shape \(6,\)"),
        (lambda x: layer_norm(x, axes=0), ValueError, r"different axes from 1 to 2 \(or -1 to -2\)"),
        (lambda x: layer_norm(x, axes=(2, -1)), ValueError, "different axes"),
        (lambda x: layer_norm(x, axes=3), ValueError, "different axes"),
        (lambda x: layer_norm(x, axes=()), ValueError, "different axes"),
        (lambda x: instance_norm(x[0]), ValueError, r"instance_norm takes .* rank 3 or more"),
        (
            lambda x: layer_norm(x, jnp.ones(5)),
            ValueError,
            r"layer_norm: scale must have shape \(6,\), one value per channel; got \(5,\)",
        ),
        (lambda x: instance_norm(x, None, jnp.ones((1, 6))), ValueError, "bias must have shape"),
        (lambda x: batch_norm(x, jnp.ones(1), jnp.ones(6), train=True), ValueError, "mean must have shape"),
        (
            lambda x: batch_norm(x, jnp.ones(6), jnp.ones(1), train=False),
            ValueError,
            "variance must have shape",
        ),
        (
            lambda x: batch_norm(x[:1, 0], *running(), train=True, unbiased=True),
            ValueError,
            "two values per channel or more, got one: use a larger batch",
        ),
        (
            lambda x: layer_norm(x.astype(int)),
            TypeError,
            "layer_norm takes floating-point numbers, got int32",
        ),
        (lambda x: weight_standardize(x[0, 0]), ValueError, r"takes a kernel \(\*spatial, in, out\)"),
        (lambda x: weight_standardize(x, gain=jnp.ones(3)), ValueError, r"of shape \(6,\), got shape \(3,\)"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call(jnp.ones((2, 3, CHANNELS)))
