import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import explain
from cnnjax import functional as F

from ..drawn import images
from . import small

# One pixel of 16 decides: with it the second of two classes has probability 1 / (1 + exp(-6)), without it 1/2.
WITH, WITHOUT = 1 / (1 + np.exp(-6.0)), 0.5


def decided_by_one_pixel():
    return small.Linear(), small.pixel_weight(2, 1, 4, 6.0), jnp.ones((1, 4, 4, 1))


def curves(maps):
    model, made, x = decided_by_one_pixel()
    options = dict(target=1, steps=16)
    run = jax.jit(
        lambda v: (
            explain.deletion(model, v, x, maps, **options),
            explain.insertion(model, v, x, maps, blank=0.0, **options),
        )
    )
    return run(made)


def test_a_map_that_finds_the_pixel():
    maps = jnp.zeros((1, 4, 4)).at[0, 2, 1].set(1.0)
    deleted, inserted = curves(maps)
    np.testing.assert_allclose(deleted.fractions, np.arange(17) / 16)
    np.testing.assert_allclose(deleted.probabilities[0], [WITH] + 16 * [WITHOUT], rtol=1e-5)
    np.testing.assert_allclose(inserted.probabilities[0], [WITHOUT] + 16 * [WITH], rtol=1e-5)
    # The trapezoid of the first step, and a flat rest.
    np.testing.assert_allclose(deleted.areas, [WITHOUT + (WITH - WITHOUT) / 32], rtol=1e-5)
    np.testing.assert_allclose(inserted.areas, [WITH - (WITH - WITHOUT) / 32], rtol=1e-5)


def test_a_map_that_leaves_the_pixel_to_the_end():
    maps = jnp.zeros((1, 4, 4)).at[0, 2, 1].set(-1.0)
    deleted, inserted = curves(maps)
    np.testing.assert_allclose(deleted.probabilities[0], 16 * [WITH] + [WITHOUT], rtol=1e-5)
    np.testing.assert_allclose(inserted.areas, [WITHOUT + (WITH - WITHOUT) / 32], rtol=1e-5)


def test_few_steps_and_the_predicted_class():
    model, made, x = decided_by_one_pixel()
    maps = jnp.arange(16.0)[::-1].reshape(1, 4, 4)
    curve = jax.jit(lambda v: explain.deletion(model, v, x, maps, steps=3))(made)
    # The pixel is the tenth in the order, and 0, 5, 11 and 16 are replaced.
    np.testing.assert_allclose(curve.fractions, np.array([0, 5, 11, 16]) / 16)
    np.testing.assert_allclose(curve.probabilities[0], [WITH, WITH, WITHOUT, WITHOUT], rtol=1e-5)


def test_blurred_pictures_keep_constants_and_lose_detail():
    constant = jnp.full((1, 9, 7, 2), 3.0)
    np.testing.assert_allclose(explain.blurred(constant), constant, rtol=1e-6)
    noise = images(1, 24, 24, 1)
    assert jnp.std(explain.blurred(noise)) < 0.2 * jnp.std(noise)
    np.testing.assert_array_equal(explain.blurred(noise, size=1), noise)


def test_blur_in_the_middle_is_the_gaussian_filter():
    point = jnp.zeros((1, 31, 31, 1)).at[0, 15, 15, 0].set(1.0)
    found = explain.blurred(point, size=5, sigma=2.0)[0, 13:18, 13:18, 0]
    np.testing.assert_allclose(found, F.gaussian_blur(5, sigma=2.0)[:, :, 0, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "steps", "match"),
    [
        (
            (1, 2, 2),
            4,
            r"maps must hold a number for each pixel, shape \(1, 4, 4\); got \(1, 2, 2\): resize them",
        ),
        ((1, 4, 4), 17, "steps must be from 1 to the 16 pixels of an image; got 17"),
        ((1, 4, 4), 0, "got 0"),
    ],
)
def test_errors(shape, steps, match):
    model, made, x = decided_by_one_pixel()
    for curve in (explain.deletion, explain.insertion):
        with pytest.raises(ValueError, match=match):
            curve(model, made, x, jnp.zeros(shape), steps=steps)
