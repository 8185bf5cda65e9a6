import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import functional as F
from cnnjax import models, nn
from cnnjax.probes import GradientNoise, Recorder, gradient_noise
from cnnjax.probes.gsnr import signal_to_noise

from ..drawn import images, variables

IMAGES, LABELS = images(6, 4, 4, 2), jnp.arange(6) % 5
MODEL = models.create("plain", depth=5, width=3, num_classes=5, activation="tanh")
MADE = variables(MODEL, IMAGES)


def test_by_its_definition(rng):
    gradients = rng.normal(1, 2, size=(20, 4, 5))
    mean, variance = gradients.mean(axis=0), gradients.var(axis=0, ddof=1)
    expected = [np.mean(mean**2 / variance), np.sum(mean**2) / np.sum(variance), 0]
    np.testing.assert_allclose(signal_to_noise(jnp.asarray(gradients, jnp.float32)), expected, rtol=1e-5)


def test_scale_does_not_count_and_silent_weights_are_left_out(rng):
    gradients = jnp.asarray(rng.normal(1, 2, size=(20, 10)), jnp.float32)
    with_silent = jnp.concatenate([gradients, jnp.zeros((20, 5)), jnp.full((20, 5), 0.3)], axis=1)
    plain, silent, tiny = map(signal_to_noise, (gradients, with_silent, gradients * 1e-25))
    np.testing.assert_allclose(silent, [*plain[:2], 0.5], rtol=1e-6)
    np.testing.assert_allclose(tiny, plain, rtol=1e-5)
    assert np.isnan(signal_to_noise(jnp.zeros((20, 5)))[:2]).all()


def test_pure_noise_is_at_the_floor(rng):
    gradients = jnp.asarray(rng.normal(size=(30, 20_000)), jnp.float32)
    floor = GradientNoise((), 30, jnp.zeros(0)).floor
    # Of F(1, 29) / 30: relative deviation 1.5 a weight, 1 % of 20,000.
    assert signal_to_noise(gradients)[0] == pytest.approx(floor, rel=0.05)


def test_every_layer_of_a_scanned_stack():
    def gradient(image, label):
        def objective(params):
            return jnp.sum(F.cross_entropy(MODEL.apply({"params": params}, image[None]), label[None]))

        return jax.grad(objective)(MADE["params"])

    each = jax.vmap(gradient)(IMAGES, LABELS)
    stacked = each["stack"]["block"]["layer"]["linear"]["kernel"]
    kernels = [
        each["stem"]["linear"]["kernel"],
        *jnp.moveaxis(stacked, 1, 0),
        each["head"]["linear"]["kernel"],
    ]
    found = jax.jit(lambda v, x, y: gradient_noise(MODEL, v, x, y))(MADE, IMAGES, LABELS)
    assert found.layers == Recorder.of(MODEL, MADE, IMAGES).layers
    np.testing.assert_allclose(found.table, [signal_to_noise(k) for k in kernels], rtol=1e-3, atol=1e-6)
    together = jax.jit(lambda v: gradient_noise(MODEL, v, IMAGES, LABELS, examples_at_once=4))(MADE)
    np.testing.assert_allclose(together.table, found.table, rtol=1e-3, atol=1e-6)
    assert list(found.frame()["path"]) == list(found.layers)


def test_a_layer_without_kernel_has_none():
    class Bare(linen.Module):
        @linen.compact
        def __call__(self, x, *, train=False):
            x = nn.Activation("tanh", name="act")(x.reshape(x.shape[0], -1))
            return nn.Layer(lambda **options: nn.Dense(5, **options), name="head")(x)

    table = gradient_noise(Bare(), variables(Bare(), IMAGES), IMAGES, LABELS).frame()
    assert list(table["mean"].isna()) == [True, False]


def test_bad_input():
    with pytest.raises(ValueError, match=r"takes 2 examples or more.*got shape \(1, 4, 4, 2\)"):
        gradient_noise(MODEL, MADE, IMAGES[:1], LABELS[:1])
    with pytest.raises(ValueError, match=r"6 images need as many labels; got shape \(5,\)"):
        gradient_noise(MODEL, MADE, IMAGES, LABELS[:5])
    with pytest.raises(ValueError, match="must hold the collection 'params'"):
        gradient_noise(MODEL, {}, IMAGES, LABELS)
    with pytest.raises(ValueError, match="Dense has no probe point"):
        gradient_noise(Dense(), variables(Dense(), IMAGES), IMAGES, LABELS)
    noise = GradientNoise(("a",), 3, jnp.zeros((2, 1, 3)))
    assert noise.floor == float("inf")
    with pytest.raises(ValueError, match="select one entry first"):
        noise.frame()


class Dense(linen.Module):
    @linen.compact
    def __call__(self, x, *, train=False):
        return linen.Dense(5)(x.reshape(x.shape[0], -1))
