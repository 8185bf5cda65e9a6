import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models
from cnnjax.probes import autocorrelation, gradient_autocorrelation

from ..drawn import variables

LINE = jnp.linspace(-2, 2, 256)[:, None]


def test_by_its_definition(rng):
    series = rng.normal(size=(50, 3, 2)).cumsum(axis=0)
    rows = series.reshape(50, 6) - series.reshape(50, 6).mean(axis=0)
    expected = [np.sum(rows[: 50 - k] * rows[k:]) / np.sum(rows**2) for k in range(6)]
    np.testing.assert_allclose(autocorrelation(jnp.asarray(series, jnp.float32), lags=5), expected, atol=1e-5)


def test_of_noise_and_of_a_line(rng):
    noise = autocorrelation(jnp.asarray(rng.normal(size=4000), jnp.float32), lags=20)
    # Deviation 1 / sqrt(4000) = 0.016.
    assert noise[0] == 1 and np.abs(noise[1:]).max() < 0.064
    assert autocorrelation(jnp.linspace(0, 1e-25, 256), lags=1)[1] > 0.98


def test_the_gradient_is_that_of_a_logit():
    model = models.create("mlp", depth=3, width=8, num_classes=3, activation="tanh")
    made = variables(model, LINE)
    slopes = jax.vmap(jax.grad(lambda t: model.apply(made, t[None, None])[0, 2]))(LINE[:, 0])
    found = jax.jit(lambda v: gradient_autocorrelation(model, v, LINE, output=2, lags=4))(made)
    np.testing.assert_allclose(found, autocorrelation(slopes, lags=4), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "pilot"),
    # papers.md, lag 1, width 200. The pilot's biases are not stated: without any a plain net has one kink, at 0.
    [
        ({"depth": 24, "bias_std": 0.1}, 0.85),
        ({"depth": 24, "norm": "batch"}, -0.007),
        ({"depth": 50, "norm": "batch", "skip": True}, 0.55),
    ],
)
def test_balduzzi_2017(options, pilot):
    model = models.create("mlp", width=200, num_classes=1, **options)
    run = jax.jit(lambda key: gradient_autocorrelation(model, model.init(key, LINE), LINE, lags=1)[1])
    draws = [float(run(jax.random.key(seed))) for seed in range(8)]
    # One draw deviates by 0.05 to 0.08 (8 seeds), the pilot is the mean of two; 3 standard errors of the difference.
    assert np.mean(draws) == pytest.approx(pilot, abs=3 * 0.08 * np.sqrt(1 / 8 + 1 / 2))


def test_shortcuts_and_norms_order_as_published():
    def lag_1(**options):
        model = models.create("mlp", width=64, num_classes=1, **options)
        made = variables(model, LINE, gain=np.sqrt(2))
        return float(jax.jit(lambda v: gradient_autocorrelation(model, v, LINE, lags=1)[1])(made))

    plain, normalized = lag_1(depth=24), lag_1(depth=24, norm="batch")
    residual = lag_1(depth=24, norm="batch", skip=True)
    assert normalized < 0.3 < residual and normalized < 0.3 < plain


def test_bad_input():
    model = models.create("mlp", depth=2, width=4, num_classes=3)
    made = variables(model, LINE)
    with pytest.raises(ValueError, match="the lags of 256 points go from 1 to 254; got lags=255"):
        gradient_autocorrelation(model, made, LINE, lags=255)
    with pytest.raises(ValueError, match="output must be one of the 3 logits, 0 to 2; got 3"):
        gradient_autocorrelation(model, made, LINE, output=3)
    with pytest.raises(TypeError, match="inputs must be floating point; got int32"):
        gradient_autocorrelation(model, made, jnp.ones((256, 1), jnp.int32))
