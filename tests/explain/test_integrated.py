import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import explain

from ..drawn import variables
from . import small


def test_of_a_linear_network_it_is_the_weight_times_the_input():
    model, x = small.Linear(), small.images(2, 3, 3, 1)
    made = variables(model, x)
    found = jax.jit(lambda v: explain.integrated_gradients(model, v, x, target=1, baseline=0.5, steps=2))(
        made
    )
    kernel = made["params"]["head"]["linear"]["kernel"][:, 1].reshape(1, 3, 3, 1)
    np.testing.assert_allclose(found.maps, (x - 0.5) * kernel, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.difference, found.maps.sum(axis=(1, 2, 3)), rtol=1e-4)


def test_contributions_of_a_smooth_network_add_up_to_the_score():
    model, made, x = small.dense(activation="tanh")
    found = jax.jit(lambda v: explain.integrated_gradients(model, v, x, target=3, steps=24))(made)
    logits, gray = (np.asarray(model.apply(made, images))[:, 3] for images in (x, 0 * x))
    assert np.abs(found.difference).min() > 0.01
    np.testing.assert_allclose(found.difference, logits - gray, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.maps.sum(axis=(1, 2, 3)), logits - gray, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.completeness_error, 0, atol=1e-5)


def test_those_of_a_layer_in_a_stack_do_too():
    model, made, x = small.residual(activation="tanh")
    run = jax.jit(
        lambda v: explain.integrated_gradients(model, v, x, target=3, layer="stack[1]/layer", steps=24)
    )
    found = run(made)
    assert found.maps.shape == (2, 6, 6, 4) and np.abs(found.difference).min() > 0.01
    np.testing.assert_allclose(found.maps.sum(axis=(1, 2, 3)), found.difference, rtol=1e-3)
    error = found.maps.sum(axis=(1, 2, 3)) - found.difference
    np.testing.assert_allclose(found.completeness_error, error, atol=1e-6)


def test_more_steps_are_more_complete():
    model, made, x = small.dense(activation="tanh")
    run = jax.jit(lambda v: [explain.integrated_gradients(model, v, 3 * x, steps=n) for n in (1, 3, 16)])
    errors = [np.abs(found.completeness_error).max() for found in run(made)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]


def test_errors():
    model, made, x = small.one_conv()
    with pytest.raises(ValueError, match="take 1 step or more; got steps=0"):
        explain.integrated_gradients(model, made, x, steps=0)
    with pytest.raises(ValueError, match="baseline must broadcast to .2, 6, 5, 3.; got shape .7,."):
        explain.integrated_gradients(model, made, x, baseline=jnp.zeros(7))
