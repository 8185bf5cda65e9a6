import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import explain

from ..drawn import images, variables
from . import small


def brute_force(model, made, x, target, window, stride, fill):
    """The map pixel by pixel: a loop over windows."""
    batch, height, width, _ = x.shape
    fall, count = np.zeros((batch, height, width)), np.zeros((height, width))
    before = np.asarray(model.apply(made, x))[:, target]
    rows = sorted({*range(0, height - window[0] + 1, stride[0]), height - window[0]})
    columns = sorted({*range(0, width - window[1] + 1, stride[1]), width - window[1]})
    for i in rows:
        for j in columns:
            hidden = np.array(x)
            hidden[:, i : i + window[0], j : j + window[1]] = fill
            after = np.asarray(model.apply(made, jnp.asarray(hidden)))[:, target]
            fall[:, i : i + window[0], j : j + window[1]] += (before - after)[:, None, None]
            count[i : i + window[0], j : j + window[1]] += 1
    return fall / count


@pytest.mark.parametrize(
    ("window", "stride", "fill"), [((3, 2), (2, 1), 0.0), ((2, 2), (2, 2), np.array([1.0, -1.0, 0.5]))]
)
def test_against_a_loop(window, stride, fill):
    model, made, x = small.one_conv()
    run = jax.jit(
        lambda v: explain.occlusion(
            model, v, x, target=2, window=window, stride=stride, fill=jnp.asarray(fill)
        )
    )
    expected = brute_force(model, made, x, 2, window, stride, fill)
    np.testing.assert_allclose(run(made), expected, rtol=1e-4, atol=1e-5)


def test_one_pixel_at_a_time_finds_the_pixel_that_decides():
    model, made, x = small.Linear(), small.pixel_weight(1, 2, 4, 5.0), images(2, 4, 4, 1)
    found = jax.jit(lambda v: explain.occlusion(model, v, x, target=1, window=1))(made)
    expected = np.zeros((2, 4, 4))
    expected[:, 1, 2] = 5 * x[:, 1, 2, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_shifted_image_shifts_the_map():
    model, made, x = small.one_conv()
    run = jax.jit(lambda v, x: explain.occlusion(model, v, x, target=0, window=1))
    shifted = run(made, jnp.roll(x, (1, 3), axis=(1, 2)))
    np.testing.assert_allclose(shifted, jnp.roll(run(made, x), (1, 3), axis=(1, 2)), rtol=1e-3, atol=1e-6)


def test_of_a_layer_and_of_any_rank():
    model, x = small.OneConv(), images(2, 7, 1)
    made = variables(model, x)
    found = jax.jit(lambda v: explain.occlusion(model, v, x, target=1, layer="conv", window=2, stride=1))(
        made
    )
    assert found.shape == (2, 7)
    _, maps = explain.cut(model, made, x, "conv")
    weights = np.asarray(made["params"]["head"]["linear"]["kernel"])[:, 1] / 7
    pairs = np.asarray(maps) @ weights
    windows = pairs[:, :-1] + pairs[:, 1:]
    padded = np.pad(windows, ((0, 0), (1, 1)))
    np.testing.assert_allclose(
        found, (padded[:, :-1] + padded[:, 1:]) / [1, 2, 2, 2, 2, 2, 1], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"window": 9}, r"the window must fit into \(6, 5\); got window=\(9, 9\)"),
        ({"window": 2, "stride": 3}, r"leaves gaps: got stride=\(3, 3\) and window=\(2, 2\)"),
        ({"window": 0}, "window must be positive, got 0"),
        ({"layer": "head"}, r"a layer with spatial maps; 'head' puts out shape \(3,\)"),
    ],
)
def test_errors(options, match):
    model, made, x = small.one_conv()
    with pytest.raises(ValueError, match=match):
        explain.occlusion(model, made, x, **options)
