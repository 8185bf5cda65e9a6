import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import explain, models, probes

from ..drawn import images, variables
from . import small


def test_a_grid_by_hand():
    tiles = np.arange(3.0).reshape(3, 1, 1) + np.zeros((3, 2, 1))
    expected = [[0, 9, 1], [0, 9, 1], [9, 9, 9], [2, 9, 9], [2, 9, 9]]
    np.testing.assert_array_equal(explain.image_grid(tiles, background=9.0), expected)
    np.testing.assert_array_equal(explain.image_grid(tiles, columns=3, margin=0), [[0, 1, 2], [0, 1, 2]])
    assert explain.image_grid(np.zeros((5, 3, 4, 3))).shape == (2 * 4 - 1, 3 * 5 - 1, 3)


def test_filters_have_their_sign_and_their_colors():
    model, x = models.create("plain", depth=4, width=5), images(1, 8, 8, 3)
    made = variables(model, x)
    kernel = np.asarray(made["params"]["stem"]["linear"]["kernel"])
    found = explain.first_layer_filters(model, made, x)
    assert found.shape == (5, 3, 3, 3) and {found.min(), found.max()} & {0.0, 1.0}
    np.testing.assert_allclose(2 * found - 1, np.moveaxis(kernel, -1, 0) / np.abs(kernel).max(), atol=1e-6)


def test_filters_of_other_channels_are_gray():
    model, x = models.create("plain", depth=4, width=5), images(1, 8, 8, 2)
    made = variables(model, x)
    found, kernel = explain.first_layer_filters(model, made, x), made["params"]["stem"]["linear"]["kernel"]
    assert found.shape == (10, 3, 3)
    np.testing.assert_allclose(2 * found[3] - 1, kernel[:, :, 1, 1] / jnp.abs(kernel).max(), atol=1e-6)


def test_a_first_layer_that_is_no_convolution():
    model, made, x = small.dense()
    with pytest.raises(ValueError, match=r"of MLP has no filters to look at: its kernel has shape \(8, 16\)"):
        explain.first_layer_filters(model, made, x)


def test_channels_as_pictures():
    maps = jnp.stack([jnp.arange(6.0).reshape(2, 3), jnp.full((2, 3), 7.0)], axis=-1)
    found = explain.channel_pictures(maps)
    np.testing.assert_allclose(found[0], np.arange(6).reshape(2, 3) / 5)
    np.testing.assert_array_equal(found[1], np.zeros((2, 3)))


def test_figures():
    from cnnjax.explain import figures

    model, made, x = small.one_conv()
    assert [axes.get_title() for axes in figures.filters(model, made, x).axes] == [
        "filters of the first layer"
    ]
    drawn = figures.feature_maps(model, made, x[0], channels=3)
    assert [axes.get_title() for axes in drawn.axes] == ["conv"]
    maps = probes.features(model, made, x)["conv"][0]
    expected = explain.image_grid(explain.channel_pictures(maps)[:3])
    np.testing.assert_array_equal(drawn.axes[0].images[0].get_array(), expected)
    pictures = np.zeros((2, 8, 8, 3), np.uint8)
    laid = figures.overlays(pictures, {"gradcam": np.ones((2, 8, 8))})
    assert [axes.get_ylabel() for axes in laid.axes] == ["picture", "", "gradcam", ""]
    with pytest.raises(ValueError, match="unknown layer 'stack9'"):
        figures.feature_maps(model, made, x[0], layers=["stack9"])
    with pytest.raises(
        ValueError, match=r"maps of one image must be \(height, width, channels\); got shape \(3,\)"
    ):
        figures.feature_maps(model, made, x[0], layers=["head"])


@pytest.mark.parametrize("shape", [(0, 3, 3), (3, 3)])
def test_errors(shape):
    with pytest.raises(ValueError, match="pictures must be .n, height, width.*n >= 1; got shape"):
        explain.image_grid(np.zeros(shape))
