import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import errors, nnx

from cnnjax import functional as F
from cnnjax import initializers, nn

from ..drawn import images, shapes, variables

# Module, shape of its input, shapes of its parameters.
SHAPES = {
    "dense": (nn.Dense(3), (2, 5), {"kernel": (5, 3), "bias": (3,)}),
    "dense_of_maps": (nn.Dense(3, use_bias=False), (2, 4, 4, 5), {"kernel": (5, 3)}),
    "conv_1d": (nn.Conv(3), (2, 6, 4), {"kernel": (3, 4, 3), "bias": (3,)}),
    "conv_2d": (nn.Conv(6, (3, 2), groups=2), (2, 5, 5, 4), {"kernel": (3, 2, 2, 6), "bias": (6,)}),
    "conv_3d": (nn.Conv(2, 1, use_bias=False), (2, 3, 3, 3, 4), {"kernel": (1, 1, 1, 4, 2)}),
    "depthwise": (nn.DepthwiseConv(2), (2, 5, 5, 3), {"kernel": (3, 3, 1, 6), "bias": (6,)}),
    "transpose": (nn.ConvTranspose(3), (2, 4, 4, 5), {"kernel": (2, 2, 5, 3), "bias": (3,)}),
    "separable": (
        nn.SeparableConv(4, multiplier=2),
        (2, 5, 5, 3),
        {
            "DepthwiseConv_0": {"kernel": (3, 3, 1, 6)},
            "Conv_0": {"kernel": (1, 1, 6, 4), "bias": (4,)},
        },
    ),
}

# Module, shape of its input, and what it computes from (x, parameters).
OPTIONS = {"stride": 2, "padding": ((0, 1), (2, 0)), "dilation": (1, 2)}
FUNCTIONS = {
    "dense": (nn.Dense(3), (2, 5), lambda x, p: x @ p["kernel"] + p["bias"][None]),
    "conv": (
        nn.Conv(6, 3, groups=2, **OPTIONS),
        (2, 6, 6, 4),
        lambda x, p: F.conv(x, p["kernel"], p["bias"], groups=2, **OPTIONS),
    ),
    "conv_circular": (
        nn.Conv(2, padding="CIRCULAR", use_bias=False),
        (2, 6, 4),
        lambda x, p: F.conv(x, p["kernel"], padding="CIRCULAR"),
    ),
    "depthwise": (
        nn.DepthwiseConv(2, (2, 3), **OPTIONS),
        (2, 6, 6, 3),
        lambda x, p: F.depthwise_conv(x, p["kernel"], p["bias"], **OPTIONS),
    ),
    "separable": (
        nn.SeparableConv(4, (2, 3), **OPTIONS),
        (2, 6, 6, 3),
        lambda x, p: F.separable_conv(
            x, p["DepthwiseConv_0"]["kernel"], p["Conv_0"]["kernel"], p["Conv_0"]["bias"], **OPTIONS
        ),
    ),
    "transpose": (
        nn.ConvTranspose(2, 3, padding=((1, 0), (0, 2)), dilation=2),
        (2, 3, 3, 4),
        lambda x, p: F.conv_transpose(
            x, p["kernel"], p["bias"], stride=2, padding=((1, 0), (0, 2)), dilation=2
        ),
    ),
}


@pytest.mark.parametrize("case", SHAPES)
def test_parameters(case):
    module, shape, expected = SHAPES[case]
    made = shapes(module, jnp.zeros(shape, jnp.bfloat16))
    assert set(made) == {"params"}
    assert jax.tree.map(lambda leaf: leaf.shape, made["params"]) == expected
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("case", FUNCTIONS)
def test_a_layer_is_its_function(case):
    module, shape, function = FUNCTIONS[case]
    x = images(*shape)
    made = variables(module, x)
    y, expected = jax.jit(lambda v, x: (module.apply(v, x), function(x, v["params"])))(made, x)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("case", FUNCTIONS)
def test_bfloat16_computes_in_bfloat16(case):
    module, shape, function = FUNCTIONS[case]
    x = images(*shape)
    made = variables(module, x)
    narrow = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (x, made["params"]))

    @jax.jit
    def compute(v, x, narrow):
        y = module.clone(dtype=jnp.bfloat16).apply(v, x)
        return y, module.apply(v, x.astype(jnp.bfloat16)), function(*narrow)

    y, of_narrow_input, expected = compute(made, x, narrow)
    assert y.dtype == of_narrow_input.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(of_narrow_input, expected)


def test_the_gradient_of_a_bfloat16_layer_is_float32():
    module, x = nn.Conv(2, dtype=jnp.bfloat16), images(2, 4, 4, 3)
    made = variables(module, x)
    gradients = jax.eval_shape(jax.grad(lambda v: module.apply(v, x).astype(jnp.float32).sum()), made)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
    "module, groups",
    [
        (nn.Dense(2), [1]),
        (nn.Conv(6, groups=3), [3]),
        (nn.DepthwiseConv(2), [6]),
        (nn.SeparableConv(4), [6, 1]),
        (nn.ConvTranspose(2), [1]),
    ],
)
def test_initializers_are_told_the_groups(module, groups):
    told = []

    def kernel_init(*, groups):
        told.append(groups)
        return initializers.constant(2.0)

    x = jnp.zeros((1, 4, 4, 6))
    made = module.clone(kernel_init=kernel_init, bias_init=initializers.constant(3.0)).init(
        jax.random.key(0), x
    )
    assert told == groups
    for path, leaf in jax.tree_util.tree_leaves_with_path(made):
        np.testing.assert_array_equal(leaf, 2.0 if path[-1].key == "kernel" else 3.0)


@pytest.mark.parametrize(
    "kernel_init",
    ["xavier_normal", initializers.xavier_normal, partial(initializers.xavier_normal, groups=2)],
)
def test_a_kernel_initializer_is_a_name_or_a_factory(kernel_init):
    x = jnp.zeros((1, 4, 4, 6))
    kernel = nn.Conv(4, groups=2, kernel_init=kernel_init).init(jax.random.key(0), x)["params"]["kernel"]
    ready = initializers.xavier_normal(groups=2)
    expected = nn.Conv(4, groups=2, kernel_init=ready).init(jax.random.key(0), x)["params"]["kernel"]
    np.testing.assert_array_equal(kernel, expected)


@pytest.mark.parametrize("kernel_init", [jax.nn.initializers.he_normal, jax.nn.initializers.he_normal()])
def test_a_kernel_initializer_may_be_of_jax(kernel_init):
    x = jnp.zeros((1, 4, 4, 6))
    kernel = nn.Conv(4, kernel_init=kernel_init).init(jax.random.key(0), x)["params"]["kernel"]
    own = partial(initializers.he_normal, truncated=True)
    expected = nn.Conv(4, kernel_init=own).init(jax.random.key(0), x)["params"]["kernel"]
    # JAX rounds the deviation of the truncated normal to another last digit.
    np.testing.assert_allclose(kernel, expected, rtol=1e-5)


@pytest.mark.parametrize("case", FUNCTIONS)
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, jnp.bool_])
def test_images_of_integers_need_a_type_of_the_computation(case, dtype):
    module, shape, _ = FUNCTIONS[case]
    x = (4 * images(*shape)).astype(dtype)
    text = rf"must be floating point; got {x.dtype} with dtype=None: use x.astype\(jnp.float32\) / 255"
    with pytest.raises(TypeError, match=text):
        shapes(module, x)
    made = variables(module, x.astype(jnp.float32))
    with pytest.raises(TypeError, match=text):
        module.apply(made, x)
    decided = module.clone(dtype=jnp.float32)
    np.testing.assert_array_equal(decided.apply(made, x), module.apply(made, x.astype(jnp.float32)))


def test_precision_reaches_the_products():
    x = jnp.zeros((1, 4, 4, 2))
    for module in (nn.Dense(2), nn.Conv(2), nn.SeparableConv(2), nn.ConvTranspose(2)):
        module = module.clone(precision="highest")
        text = jax.jit(module.apply).lower(variables(module, x), x).as_text()
        assert "HIGHEST" in text and "DEFAULT" not in text


def test_dropout_scales_what_is_left():
    x = jnp.ones((64, 64))
    y = nn.Dropout(0.25).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    # Five deviations of a mean over 4,096 draws: 5 sqrt(0.25 0.75 / 4096) = 0.034.
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.034)


def test_dropout_is_there_only_in_training():
    x = images(4, 5)
    for module, train in ((nn.Dropout(0.5), False), (nn.Dropout(0.0), True)):
        assert module.apply({}, x, train=train) is x
    with pytest.raises(errors.InvalidRngError, match="dropout"):
        nn.Dropout(0.5).apply({}, x, train=True)


@pytest.mark.parametrize("function, constant", [(F.dropout_channels, (1, 2)), (F.drop_path, (1, 2, 3))])
def test_dropout_of_maps_and_of_examples(function, constant):
    x = jnp.ones((8, 3, 3, 5))
    y = nn.Dropout(0.5, function).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    assert np.all(np.ptp(y, axis=constant) == 0)
    assert set(np.unique(y)) == {0, 2}


def test_an_nnx_module_wraps_a_layer():
    def kernel_init(key, shape, dtype):
        return jnp.linspace(-1, 1, math.prod(shape), dtype=dtype).reshape(shape)

    module, x = nn.Conv(3, stride=2, kernel_init=kernel_init), images(2, 5, 5, 2)
    wrapped = nnx.bridge.ToNNX(module, rngs=nnx.Rngs(0)).lazy_init(x)
    made = {"params": {"kernel": wrapped.kernel[...], "bias": wrapped.bias[...]}}
    np.testing.assert_array_equal(wrapped(x), module.apply(made, x))
    gradients = nnx.grad(lambda layer: jnp.sum(jnp.square(layer(x))))(wrapped)
    expected = jax.grad(lambda v: jnp.sum(jnp.square(module.apply(v, x))))(made)["params"]
    np.testing.assert_array_equal(gradients["kernel"][...], expected["kernel"])


@pytest.mark.parametrize(
    "module, shape, text",
    [
        (nn.Conv(4, groups=3), (1, 4, 4, 4), "4 input channels do not divide into 3 groups"),
        (nn.Conv(4, groups=2), (1, 4, 4, 3), "3 input channels do not divide into 2 groups"),
        (nn.Conv(3, groups=2), (1, 4, 4, 4), "3 output channels do not divide into 2 groups"),
        (nn.Conv(4, (3, 3)), (1, 4, 4), r"window must have one entry per spatial axis \(1\)"),
        (nn.Conv(4, 5, padding="VALID"), (1, 4, 4, 2), "kernel larger than the padded input"),
        (nn.DepthwiseConv(window=0), (1, 4, 4, 2), "window must be positive, got 0"),
        (nn.ConvTranspose(2, padding="FULL"), (1, 4, 4, 2), "takes SAME or VALID padding"),
        (
            nn.Conv(1, kernel_init=initializers.delta_orthogonal),
            (1, 4, 4, 2),
            "delta_orthogonal needs at least as many outputs as inputs, got 2 inputs and 1 outputs",
        ),
    ],
)
def test_errors(module, shape, text):
    with pytest.raises(ValueError, match=text):
        shapes(module, jnp.zeros(shape))


def test_a_pooling_counts_the_window_that_reaches_over_the_end_on_request():
    x = jnp.arange(6.0).reshape(1, 6, 1)
    # Windows 0..2, 2..4 and, of which one entry is missing, 4..6.
    for ceil, expected in ((False, [2, 4]), (True, [2, 4, 5])):
        y = nn.Pool(3, 2, ceil=ceil).apply({}, x)
        np.testing.assert_array_equal(y[0, :, 0], np.array(expected, np.float32))
    averages = nn.Pool(3, 2, ceil=True, function=F.avg_pool).apply({}, x)
    np.testing.assert_allclose(averages[0, :, 0], [1, 3, 4.5])
    with pytest.raises(ValueError, match="in layer Pool: .*window larger than the padded input"):
        nn.Pool(3, 2).apply({}, x[:, :2])
