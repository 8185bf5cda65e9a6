from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnnjax.functional import Moments, new_slot, tap


@pytest.fixture
def network(rng):
    """Weights of three layers and a batch: (layers, 5, 5), (4, 5)."""
    return jnp.asarray(rng.normal(size=(3, 5, 5)), jnp.float32), jnp.asarray(
        rng.normal(size=(4, 5)), jnp.float32
    )


def loss(weights, x, slots=None, shift=None):
    """A network of three layers, with a tap or a shift of each pre-activation where asked."""
    for i, weight in enumerate(weights):
        z = x @ weight
        if slots is not None:
            z = tap(z, jax.tree.map(lambda s, i=i: s[i], slots))
        if shift is not None:
            z = z + shift[i]
        x = jnp.tanh(z)
    return jnp.sum(jnp.square(x))


def stacked_slots(count):
    return jax.tree.map(lambda s: jnp.stack([s] * count), new_slot())


def test_a_tap_changes_no_gradient(network):
    weights, x = network
    plain = jax.jit(jax.value_and_grad(loss, (0, 1)))(weights, x)
    tapped = jax.jit(jax.value_and_grad(loss, (0, 1)))(weights, x, stacked_slots(3))
    jax.tree.map(np.testing.assert_array_equal, tapped, plain)


def test_the_gradient_of_a_slot_is_the_moments_of_the_cotangent(network):
    weights, x = network
    shift = jnp.zeros((3, 4, 5))
    slots = Moments.of(jax.jit(jax.grad(loss, 2))(weights, x, stacked_slots(3)))
    cotangents = np.asarray(jax.jit(jax.grad(loss, 3))(weights, x, None, shift), np.float64)
    np.testing.assert_allclose(slots.mean, cotangents.mean((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(
        slots.log10_second_moment, np.log10(np.square(cotangents).mean((1, 2))), atol=1e-5
    )
    np.testing.assert_allclose(slots.log10_max, np.log10(np.abs(cotangents).max((1, 2))), atol=1e-5)


def through(cotangent):
    """The gradient behind a tap through which `cotangent` comes, and the moments that the slot received."""

    def objective(x, slot):
        return jnp.vdot(tap(x, slot), cotangent).astype(jnp.float32)

    gradient, slot = jax.grad(objective, (0, 1))(jnp.zeros_like(cotangent), new_slot())
    return gradient, Moments.of(slot)


def test_a_gradient_of_1e_30_is_a_number():
    gradient, slot = through(jnp.array([1e-30, -2e-30, 0.0, 1e-30]))
    np.testing.assert_array_equal(gradient, np.float32([1e-30, -2e-30, 0, 1e-30]))
    # (1 + 4 + 0 + 1) / 4 = 1.5 times 1e-60, which float32 does not hold.
    assert slot.log10_second_moment == pytest.approx(-60 + np.log10(1.5), abs=1e-4)
    assert slot.log10_max == pytest.approx(-30 + np.log10(2), abs=1e-5)


def test_a_gradient_of_zero_is_minus_infinity():
    _, slot = through(jnp.zeros(4))
    assert slot.mean == 0
    assert slot.log10_second_moment == slot.log10_max == -np.inf


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_seen(value):
    gradient, slot = through(jnp.array([1.0, value]))
    np.testing.assert_array_equal(gradient, [1.0, value])
    assert not np.isfinite(slot.mean)
    assert np.isnan(slot.log10_second_moment)


def test_low_precision_goes_through_untouched():
    cotangent = jnp.array([0.1, -3.0], jnp.bfloat16)
    gradient, slot = through(cotangent)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient, cotangent)
    assert {leaf.dtype for leaf in slot} == {jnp.dtype(jnp.float32)}
    assert slot.log10_max == pytest.approx(np.log10(3), abs=1e-6)


def test_in_scan_and_map_and_checkpoint_it_is_a_loop(network):
    weights, x = network

    def scanned(weights, x, slots, remat=False):
        def layer(x, operands):
            weight, slot = operands
            return jnp.tanh(tap(x @ weight, slot)), None

        return jnp.sum(
            jnp.square(lax.scan(jax.checkpoint(layer) if remat else layer, x, (weights, slots))[0])
        )

    @jax.jit
    def variants(weights, x, slots):
        examples = x[:, None]
        gradients = [
            jax.grad(f, (0, 2))(weights, x, slots) for f in (loss, scanned, partial(scanned, remat=True))
        ]

        def each(example):
            return jax.grad(scanned, 2)(weights, example, slots)

        return gradients, jax.vmap(each)(examples), lax.map(each, examples)

    (expected, *others), vmapped, mapped = variants(weights, x, stacked_slots(3))
    for other in others:
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), other, expected)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), vmapped, mapped)
    # The largest over the batch is the largest over its examples.
    largest = Moments.of(vmapped).log10_max.max(0)
    np.testing.assert_allclose(largest, Moments.of(expected[1]).log10_max, atol=1e-5)


def test_the_value_of_a_slot_is_never_read(network):
    weights, x = network
    garbage = jax.tree.map(lambda s: jnp.full_like(s, jnp.nan), stacked_slots(3))
    results = [jax.jit(jax.value_and_grad(loss, (0, 2)))(weights, x, s) for s in (stacked_slots(3), garbage)]
    jax.tree.map(np.testing.assert_array_equal, *results)
