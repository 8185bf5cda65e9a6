import numpy as np
import pytest

from cnnjax import explain
from cnnjax.explain.overlay import normalized

GRAY = np.full((2, 3, 3), 100, np.uint8)


def test_a_map_of_zeros_leaves_the_picture_in_gray():
    colored = np.zeros((1, 2, 3), np.uint8) + np.array([30, 60, 90], np.uint8)
    np.testing.assert_array_equal(explain.overlay(colored, np.zeros((1, 2))), np.full((1, 2, 3), 60))


def test_orange_speaks_for_and_blue_against():
    heat = np.array([[1.0, -1.0, 0.0], [0.5, 0, 0]])
    laid = explain.overlay(GRAY, heat).astype(int)
    assert laid[0, 0, 0] > laid[0, 0, 2] and laid[0, 1, 0] < laid[0, 1, 2]
    assert (laid[0, 2] == 100).all()
    # A smaller value is nearer to the picture.
    assert np.abs(laid[0, 0] - 100).sum() > np.abs(laid[1, 0] - 100).sum() > 0


def test_gray_pictures_need_no_channels():
    np.testing.assert_array_equal(
        explain.overlay(GRAY[..., 0], np.eye(2, 3)), explain.overlay(GRAY[..., :1], np.eye(2, 3))
    )


def test_single_pixels_do_not_set_the_scale():
    heat = np.ones((40, 40))
    heat[3, 4] = 1e6
    np.testing.assert_array_equal(normalized(heat), np.ones((40, 40)))
    # Nor does one that is alone vanish.
    heat = np.zeros((40, 40))
    heat[3, 4] = -7
    assert normalized(heat).min() == -1


def test_pixels_are_repeated():
    big = explain.enlarge(np.arange(6, dtype=np.uint8).reshape(2, 3), at_least=5)
    assert big.shape == (6, 9)
    np.testing.assert_array_equal(big[::3, ::3], np.arange(6).reshape(2, 3))
    assert explain.enlarge(GRAY, at_least=1).shape == GRAY.shape


def test_errors():
    with pytest.raises(TypeError, match="the picture must be uint8; got float64"):
        explain.overlay(GRAY / 255, np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"as large as the picture, \(2, 3\); got \(3, 2\)"):
        explain.overlay(GRAY, np.zeros((3, 2)))
