from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from cnnjax.functional.conv import conv
from cnnjax.functional.filters import (
    box_blur,
    emboss,
    gaussian_blur,
    horizontal_edge,
    sharpen,
    vertical_edge,
)

FILTERS = {
    "vertical_edge": vertical_edge,
    "horizontal_edge": horizontal_edge,
    "sobel": partial(vertical_edge, kind="sobel"),
    "sharpen": sharpen,
    "emboss": emboss,
    "box_blur": partial(box_blur, 4),
    "gaussian_blur": partial(gaussian_blur, 5, sigma=1.0),
}


def filtered(kernel, image):
    """Return the image under the kernel, without its border."""
    x = jnp.asarray(image, jnp.float32)[None, :, :, None]
    return np.asarray(conv(x, kernel, padding="VALID")[0, :, :, 0])


@pytest.fixture
def image(rng):
    return rng.normal(size=(9, 8)).astype(np.float32)


def test_textbook_edge():
    # Left half 10, right half 0 (the usual example of a first course): rows 0 30 30 0.
    image = np.repeat([[10.0, 10, 10, 0, 0, 0]], 6, axis=0)
    np.testing.assert_array_equal(filtered(vertical_edge(), image), np.tile([0, 30, 30, 0], (4, 1)))
    np.testing.assert_array_equal(filtered(horizontal_edge(), image), np.zeros((4, 4)))
    np.testing.assert_array_equal(
        filtered(horizontal_edge(), image.T), np.tile([[0], [30], [30], [0]], (1, 4))
    )


@pytest.mark.parametrize("kind, reference", [("prewitt", ndimage.prewitt), ("sobel", ndimage.sobel)])
@pytest.mark.parametrize("edge, axis", [(vertical_edge, 1), (horizontal_edge, 0)])
def test_edges_are_those_of_scipy_with_the_other_sign(kind, reference, edge, axis, image):
    expected = -reference(image, axis=axis)[1:-1, 1:-1]
    np.testing.assert_allclose(filtered(edge(kind=kind), image), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size, sigma", [(3, 0.5), (5, 1.0), (7, 2.5)])
def test_gaussian_blur_is_that_of_scipy(size, sigma, image):
    r = size // 2
    expected = ndimage.gaussian_filter(image, sigma, radius=r)[r:-r, r:-r]
    np.testing.assert_allclose(filtered(gaussian_blur(size, sigma=sigma), image), expected, atol=1e-6)


def test_box_blur_is_that_of_scipy(image):
    expected = ndimage.uniform_filter(image, 3)[1:-1, 1:-1]
    np.testing.assert_allclose(filtered(box_blur(3), image), expected, atol=1e-6)


def test_sharpen_is_the_image_minus_its_laplacian(image):
    expected = (image - ndimage.laplace(image))[1:-1, 1:-1]
    np.testing.assert_allclose(filtered(sharpen(), image), expected, atol=1e-5)


def test_emboss_is_the_image_plus_the_differences_of_opposite_neighbors(image):
    expected = image.copy()
    for weight, (dy, dx) in [(2, (1, 1)), (1, (0, 1)), (1, (1, 0))]:
        # roll by -d brings the neighbor at +d here.
        expected += weight * (np.roll(image, (-dy, -dx), (0, 1)) - np.roll(image, (dy, dx), (0, 1)))
    np.testing.assert_allclose(filtered(emboss(), image), expected[1:-1, 1:-1], atol=1e-5)


@pytest.mark.parametrize("name", FILTERS)
def test_edges_ignore_a_constant_image_and_the_others_keep_it(name):
    constant = filtered(FILTERS[name](), np.full((6, 6), 3.0))
    expected = 0 if name in ("vertical_edge", "horizontal_edge", "sobel") else 3
    np.testing.assert_allclose(constant, np.full_like(constant, expected), rtol=1e-5)


@pytest.mark.parametrize("name", FILTERS)
def test_channels_are_filtered_one_by_one(name, rng):
    x = jnp.asarray(rng.normal(size=(2, 7, 6, 3)), jnp.float32)
    kernel = FILTERS[name](channels=3)
    assert kernel.shape[2:] == (1, 3)
    assert kernel.dtype == jnp.float32
    single = [conv(x[..., c : c + 1], FILTERS[name]()) for c in range(3)]
    expected = np.concatenate(single, axis=-1)
    np.testing.assert_allclose(conv(x, kernel, groups=3), expected, rtol=1e-4, atol=1e-5)


def test_even_gaussian_blur_is_symmetric():
    plane = np.asarray(gaussian_blur(4, sigma=1.0)[:, :, 0, 0])
    np.testing.assert_allclose(plane, plane[::-1, ::-1], rtol=1e-6)
    assert plane.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: vertical_edge(kind="sobl"), ValueError, "unknown edge filter 'sobl'; did you mean 'sobel'"),
        (lambda: horizontal_edge(kind="scharr"), ValueError, "Known: prewitt, sobel"),
        (lambda: sharpen(channels=0), ValueError, "channels must be positive, got 0"),
        (lambda: box_blur(0), ValueError, "size must be positive, got 0"),
        (lambda: box_blur(2.5), TypeError, "size must be an int"),
        (lambda: gaussian_blur(3, sigma=0), ValueError, "sigma must be positive, got 0"),
        (lambda: gaussian_blur(3, sigma=float("nan")), ValueError, "sigma must be positive"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()
