import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import initializers
from cnnjax.functional.activation import ACTIVATIONS
from cnnjax.functional.conv import conv
from cnnjax.initializers import (
    INITIALIZERS,
    RESIDUAL_SCALES,
    constant,
    delta_orthogonal,
    fans,
    gaussian,
    he_normal,
    he_uniform,
    initializer,
    lecun_normal,
    lecun_uniform,
    orthogonal,
    xavier_normal,
    xavier_uniform,
    zeros,
)
from cnnjax.lsuv import lsuv

KEY = jax.random.key(0)
# Few shapes in all: on CPU each one costs a second to compile the random bits.
SHAPE = (3, 3, 24, 96)
SMALL = (3, 4, 8)


@pytest.mark.parametrize(
    ("shape", "groups", "expected"),
    [
        ((7, 5), 1, (7, 5)),
        ((3, 7, 5), 1, (21, 15)),
        ((3, 2, 4, 8), 1, (24, 48)),
        ((3, 2, 4, 8), 4, (24, 12)),
        ((2, 3, 4, 5, 6), 1, (120, 144)),
        ((3, 3, 1, 256), 256, (9, 9)),
    ],
)
def test_fans(shape, groups, expected):
    assert fans(shape, groups=groups) == expected


def test_fan_in_is_what_an_output_sums_and_fan_out_what_an_input_reaches():
    kernel = jnp.ones((3, 2, 12))
    y, pull = jax.vjp(lambda x: conv(x, kernel, groups=3, padding="CIRCULAR"), jnp.ones((1, 5, 6)))
    (gradient,) = pull(jnp.ones_like(y))
    fan_in, fan_out = fans(kernel.shape, groups=3)
    np.testing.assert_array_equal(y, fan_in)
    np.testing.assert_array_equal(gradient, fan_out)


# Each factory and its deviation from the fans; the paper is in the factory's docstring.
DEVIATIONS = [
    (lecun_normal, lambda fan_in, fan_out: 1 / math.sqrt(fan_in)),
    (lecun_uniform, lambda fan_in, fan_out: 1 / math.sqrt(fan_in)),
    (he_normal, lambda fan_in, fan_out: math.sqrt(2 / fan_in)),
    (he_uniform, lambda fan_in, fan_out: math.sqrt(2 / fan_in)),
    (xavier_normal, lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out))),
    (xavier_uniform, lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out))),
    (gaussian, lambda fan_in, fan_out: 1 / math.sqrt(fan_in)),
]


@pytest.mark.parametrize(("factory", "deviation"), DEVIATIONS)
@pytest.mark.parametrize("groups", [1, 4])
def test_deviation_follows_the_fans(factory, deviation, groups):
    kernel = factory(groups=groups, gain=1.5)(KEY, SHAPE)
    assert kernel.shape == SHAPE and kernel.dtype == jnp.float32
    # The deviation of 20,736 draws is known to 0.5 % (one sigma).
    assert kernel.std() == pytest.approx(1.5 * deviation(*fans(SHAPE, groups=groups)), rel=0.025)
    assert abs(kernel.mean()) < 0.03 * kernel.std()


@pytest.mark.parametrize("factory", [lecun_normal, he_normal, xavier_normal, gaussian])
def test_truncated_normal_has_the_deviation_of_the_plain_one(factory):
    plain, truncated = (factory(truncated=flag)(KEY, SHAPE) for flag in (False, True))
    assert truncated.std() == pytest.approx(float(plain.std()), rel=0.025)
    assert jnp.abs(truncated).max() / truncated.std() == pytest.approx(2 / 0.8796256610, rel=0.01)
    assert jnp.abs(plain).max() / plain.std() > 3.5


@pytest.mark.parametrize("factory", [lecun_uniform, he_uniform, xavier_uniform])
def test_uniform_fills_its_interval(factory):
    kernel = factory()(KEY, SHAPE)
    assert jnp.abs(kernel).max() / kernel.std() == pytest.approx(math.sqrt(3), rel=0.01)


def test_depthwise_kernel_knows_its_groups():
    # JAX's glorot_normal gives 0.030 here: it takes 256 channels for the fan of every output.
    kernel = xavier_normal(groups=256)(KEY, (3, 3, 1, 256))
    assert kernel.std() == pytest.approx(1 / 3, rel=0.06)


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "sigmoid", "selu"])
def test_he_preserves_the_second_moment_forward(name, rng):
    activation = ACTIVATIONS[name]
    z = jnp.float32(rng.normal(size=(64, 512)))
    for key in jax.random.split(KEY, 4):
        z = activation.function(z) @ he_normal(activation=name)(key, (512, 512))
    # Four layers of 512 units; the moment of one draw varies by some per cent.
    assert jnp.mean(z**2) == pytest.approx(1, abs=0.15)


def test_he_preserves_the_second_moment_through_a_relu_convolution(rng):
    z = jnp.float32(rng.normal(size=(8, 6, 6, 24)))
    z = conv(jax.nn.relu(z), he_normal()(KEY, SHAPE), padding="CIRCULAR")
    # The constant part of relu(z) sees the sums of 96 kernels only: 15 % (one sigma). A wrong fan is off by 2.
    assert jnp.mean(z**2) == pytest.approx(1, abs=0.4)


def test_xavier_forward_and_backward_variance_are_the_ratios_of_the_fans(rng):
    n_in, n_out = 200, 600
    kernel = xavier_normal()(KEY, (n_in, n_out))
    x, g = (jnp.float32(rng.normal(size=(300, n))) for n in (n_in, n_out))
    y, backward = jax.vjp(lambda x: x @ kernel, x)
    assert y.var() == pytest.approx(2 * n_in / (n_in + n_out), rel=0.03)
    assert backward(g)[0].var() == pytest.approx(2 * n_out / (n_in + n_out), rel=0.03)


ORTHOGONAL_SHAPES = [((6, 15), 1), ((15, 6), 1), ((3, 5, 12), 3), ((2, 2, 2, 3, 8), 2)]


@pytest.mark.parametrize(("shape", "groups"), ORTHOGONAL_SHAPES)
def test_orthogonal_has_equal_singular_values_in_every_group(shape, groups):
    kernel = orthogonal(groups=groups, gain=1.7)(KEY, shape)
    assert kernel.shape == shape
    for block in np.split(np.asarray(kernel).reshape(-1, shape[-1]), groups, axis=1):
        np.testing.assert_allclose(np.linalg.svd(block, compute_uv=False), 1.7, rtol=1e-5)


def test_orthogonal_preserves_the_norm_on_the_side_that_its_docstring_says(rng):
    wide, tall = orthogonal()(KEY, (6, 15)), orthogonal()(KEY, (15, 6))
    x = jnp.float32(rng.normal(size=6))
    for y in (x @ wide, tall @ x):
        assert jnp.linalg.norm(y) / jnp.linalg.norm(x) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "groups", "padding"),
    [((3, 4, 8), 2, "CIRCULAR"), ((5, 4, 4, 6), 1, "SAME"), ((2, 3, 3, 4, 5), 1, "CIRCULAR")],
)
def test_delta_orthogonal_preserves_the_norm_of_images(shape, groups, padding, rng):
    kernel = delta_orthogonal(groups=groups, gain=1.3)(KEY, shape)
    x = jnp.float32(rng.normal(size=(2, *[6] * (len(shape) - 2), shape[-2] * groups)))
    y = conv(x, kernel, padding=padding, groups=groups)
    assert jnp.linalg.norm(y) / jnp.linalg.norm(x) == pytest.approx(1.3, rel=1e-5)
    assert jnp.count_nonzero(kernel) == shape[-2] * shape[-1]


def test_delta_orthogonal_convolution_is_an_orthogonal_map_and_orthogonal_is_not():
    def singular_values(kernel):
        images = jnp.eye(40).reshape(40, 8, 5)
        return np.linalg.svd(conv(images, kernel, padding="CIRCULAR").reshape(40, 40), compute_uv=False)

    np.testing.assert_allclose(singular_values(delta_orthogonal()(KEY, (3, 5, 5))), 1, rtol=1e-5)
    assert np.ptp(singular_values(orthogonal()(KEY, (3, 5, 5)))) > 0.5


def test_delta_orthogonal_rejects_fewer_outputs_than_inputs():
    with pytest.raises(
        ValueError, match=r"at least as many outputs as inputs, got 8 inputs and 4 outputs a group"
    ):
        delta_orthogonal()(KEY, (3, 3, 8, 4))
    with pytest.raises(ValueError, match=r"got 3 inputs and 2 outputs a group \(kernel \(3, 3, 4\)\)"):
        delta_orthogonal(groups=2)(KEY, (3, 3, 4))
    assert delta_orthogonal()(KEY, (8, 4)).shape == (8, 4)


@pytest.mark.parametrize("name", INITIALIZERS)
@pytest.mark.parametrize("shape", [(6, 12), (3, 6, 12), (3, 3, 6, 12), (3, 2, 1, 6, 12)])
def test_every_initializer_in_every_rank(name, shape):
    initialize = initializer(name, groups=2)
    kernel = jax.eval_shape(lambda key: initialize(key, shape, jnp.bfloat16), KEY)
    assert kernel.shape == shape and kernel.dtype == jnp.bfloat16


@pytest.mark.parametrize("name", ["lecun_normal", "delta_orthogonal"])
def test_keys_decide_inside_scan_and_vmap(name):
    def initialize(key):
        return initializer(name, groups=2)(key, SMALL)

    keys = jax.random.split(KEY, (2, 3))
    _, kernels = jax.lax.scan(lambda carry, row: (carry, jax.vmap(initialize)(row)), None, keys)
    np.testing.assert_allclose(initialize(keys[1, 2]), kernels[1, 2], rtol=1e-5, atol=1e-6)
    flat = kernels.reshape(6, -1)
    assert all(jnp.abs(flat[i] - flat[j]).max() > 0.01 for i in range(6) for j in range(i))


@pytest.mark.parametrize("name", ["constant", "lecun_normal", "delta_orthogonal"])
def test_gain_may_be_traced_and_low_precision_is_drawn_in_float32(name):
    def draw(gain, dtype=jnp.bfloat16):
        return initializer(name, gain=gain)(KEY, SMALL, dtype)

    kernels = jax.vmap(draw)(jnp.array([1.0, 2.0]))
    assert kernels.dtype == jnp.bfloat16
    np.testing.assert_array_equal(kernels[1], 2 * kernels[0])
    np.testing.assert_array_equal(kernels[0], draw(1.0, jnp.float32).astype(jnp.bfloat16))


def test_constants():
    np.testing.assert_array_equal(constant(0.5, gain=4.0)(KEY, (3,)), [2, 2, 2])
    np.testing.assert_array_equal(zeros()(KEY, (3,)), [0, 0, 0])
    np.testing.assert_allclose(gaussian(3.0)(KEY, SMALL), 3 * lecun_normal()(KEY, SMALL), rtol=1e-6)


def test_initializer_hands_each_factory_its_options():
    options = dict(activation="tanh", groups=2, gain=3.0)
    np.testing.assert_allclose(
        initializer("he_normal", **options)(KEY, SMALL), he_normal(**options)(KEY, SMALL), rtol=1e-6
    )
    expected = xavier_uniform(groups=2, gain=3.0)(KEY, SMALL)
    np.testing.assert_allclose(initializer("xavier_uniform", **options)(KEY, SMALL), expected, rtol=1e-6)
    expected = he_normal(truncated=True)(KEY, SMALL)
    np.testing.assert_array_equal(initializer("he_normal", truncated=True)(KEY, SMALL), expected)


# A choice and the initializer that it stands for, where the options are groups=2 and activation="tanh".
CHOICES = {
    "name": ("he_normal", he_normal(activation="tanh", groups=2)),
    "factory": (he_normal, he_normal(activation="tanh", groups=2)),
    "partial": (partial(he_normal, truncated=True), he_normal(activation="tanh", groups=2, truncated=True)),
    "decided": (partial(he_normal, activation="relu", gain=2.0), he_normal(groups=2, gain=2.0)),
    "positional": (partial(gaussian, 1.5), gaussian(1.5, groups=2)),
    "chosen": (
        partial(initializer, "he_normal", truncated=True),
        he_normal(activation="tanh", groups=2, truncated=True),
    ),
    "ready": (he_normal(), he_normal()),
    "factory_of_jax": (jax.nn.initializers.he_normal, jax.nn.initializers.he_normal()),
    "ready_of_jax": (jax.nn.initializers.ones, jax.nn.initializers.ones),
    "function": (lambda *arguments: jnp.ones(arguments[1]), jax.nn.initializers.ones),
}


@pytest.mark.parametrize("form", CHOICES)
def test_every_form_of_a_choice(form):
    choice, expected = CHOICES[form]
    kernel, tripled = jax.jit(
        lambda gain: [
            initializer(choice, activation="tanh", groups=2, gain=g)(KEY, SMALL) for g in (1.0, gain)
        ]
    )(3.0)
    np.testing.assert_allclose(kernel, expected(KEY, SMALL, jnp.float32), rtol=1e-5)
    np.testing.assert_allclose(tripled, 3 * kernel, rtol=1e-6)


def test_lsuv_is_found_beside_the_others():
    assert initializers.lsuv is lsuv


def test_errors():
    with pytest.raises(ValueError, match="unknown initializer 'he_norml'; did you mean 'he_normal'"):
        initializer("he_norml")
    with pytest.raises(TypeError, match="name of the initializer must be a string, got 3"):
        initializer(3)
    for choice in ("he_uniform", zeros, jax.nn.initializers.ones):
        with pytest.raises(
            ValueError, match="truncated is no option of .*: use one of xavier_normal, he_normal, lecun"
        ):
            initializer(choice, truncated=True)
    with pytest.raises(
        TypeError, match=r"a factory must return a function of \(key, shape, dtype\); .* returned 3"
    ):
        initializer(lambda: 3)
    with pytest.raises(ValueError, match="unknown activation 'rellu'"):
        he_normal(activation="rellu")
    with pytest.raises(ValueError, match=r"a kernel has shape \(\*spatial, .*, got \(3,\)"):
        he_normal()(KEY, (3,))
    with pytest.raises(ValueError, match="10 output channels do not divide into 3 groups"):
        lecun_normal(groups=3)(KEY, (3, 2, 10))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("fixup", (1, 0.25, 0)), ("skipinit", (0, 1, 1)), ("rezero", (0, 1, 1)), ("inverse_sqrt", (0.25, 1, 1))],
)
def test_residual_scales(name, expected):
    assert RESIDUAL_SCALES[name](16, 2) == pytest.approx(expected)


def test_fixup_scale_depends_on_the_layers_of_a_branch():
    # Zhang et al. 2019, section 3: L^(-1/4) for the three layers of a bottleneck.
    assert RESIDUAL_SCALES["fixup"](16, 3).kernels == pytest.approx(0.5)
    with pytest.raises(ValueError, match="fixup needs at least 2 layers in a residual branch, got 1"):
        RESIDUAL_SCALES["fixup"](16, 1)


def test_inverse_sqrt_scale_keeps_the_variance_below_e(rng):
    blocks, width = 32, 256
    x = start = rng.normal(size=(64, width))
    for _ in range(blocks):
        branch = x @ rng.normal(size=(width, width)) / math.sqrt(width)
        x = x + RESIDUAL_SCALES["inverse_sqrt"](blocks, 1).multiplier * branch
    assert x.var() / start.var() == pytest.approx((1 + 1 / blocks) ** blocks, rel=0.1)
