import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.probes.detour import detour, enter, leave, scale_gradient

ON, OFF = jnp.float32(1), jnp.float32(0)
X = jnp.asarray([1.0, -2.0, 3.0])
A = jnp.asarray([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]])


@pytest.mark.parametrize(("taken", "expected"), [(OFF, 2 * X), (ON, jnp.full(3, 5.0))])
def test_a_detour(taken, expected):
    y, gradient = jax.value_and_grad(lambda x: jnp.sum(detour(x * x, 5 * x, taken)))(X)
    assert y == jnp.sum(X * X)
    np.testing.assert_array_equal(gradient, expected)


def test_scaling_a_gradient():
    y, gradient = jax.value_and_grad(lambda x: jnp.sum(scale_gradient(x * x, jnp.float32(3))))(X)
    assert y == jnp.sum(X * X)
    np.testing.assert_array_equal(gradient, 6 * X)


def rescaled(x, gain, taken):
    inside, token = enter(x, jnp.float32(gain), taken)
    return leave(A @ inside, token)


@pytest.mark.parametrize("scale", [1.0, 1e-30])
def test_rescaling_keeps_the_direction(scale):
    g = jnp.asarray([3.0, 4.0]) * jnp.float32(scale)
    y, transpose = jax.vjp(lambda x: rescaled(x, 0.5, ON), X)
    np.testing.assert_array_equal(y, A @ X)
    direction = np.asarray(A.T @ jnp.asarray([3.0, 4.0]))
    (gradient,) = transpose(g)
    expected = direction / np.linalg.norm(direction) * 2.5
    np.testing.assert_allclose(np.asarray(gradient) / scale, expected, rtol=1e-5)
    np.testing.assert_array_equal(jax.vjp(lambda x: rescaled(x, 0.5, OFF), X)[1](g)[0], A.T @ g)


def test_nothing_stays_nothing():
    np.testing.assert_array_equal(
        jax.vjp(lambda x: rescaled(x, 0.5, ON), X)[1](jnp.zeros(2))[0], jnp.zeros(3)
    )
