"""Pictures against Pillow's own resizing and cropping; probabilities against JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cnnjax.training.predict import read_images, top

RNG = np.random.default_rng(0)
SMOOTH = np.add.outer(np.arange(96), np.arange(160))[..., None] * np.asarray([1.0, 0.5, 0.2])


def save(path, pixels):
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


def test_a_picture_of_just_the_size_is_left_whole(tmp_path):
    pixels = RNG.integers(0, 256, (2, 8, 8, 3), np.uint8)
    paths = [save(tmp_path / f"{i}.png", image) for i, image in enumerate(pixels)]
    notes = []
    found = read_images(paths, image_shape=(8, 8, 3), note=notes.append)
    assert found.dtype == np.uint8 and notes == []
    np.testing.assert_array_equal(found, pixels)
    np.testing.assert_array_equal(read_images(paths[::-1], image_shape=(8, 8, 3)), pixels[::-1])


def test_a_larger_one_is_resized_by_its_short_side_and_its_center_cut_out(tmp_path):
    path = save(tmp_path / "wide.png", SMOOTH)
    found = read_images([path], image_shape=(28, 28, 3))[0]
    # 256 / 224 of 28 is 32.
    resized = np.asarray(Image.open(path).resize((53, 32), Image.Resampling.BILINEAR), int)
    np.testing.assert_allclose(found, resized[2:30, 12:40], atol=2)


def test_gray_from_colors_and_colors_from_gray(tmp_path):
    colors = save(tmp_path / "colors.png", np.full((6, 6, 3), [200, 100, 50]))
    gray = read_images([colors], image_shape=(6, 6, 1))
    # ITU-R 601-2.
    np.testing.assert_array_equal(gray, np.full((1, 6, 6, 1), round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)))
    flat = save(tmp_path / "gray.png", np.full((6, 6), 70))
    np.testing.assert_array_equal(read_images([flat], image_shape=(6, 6, 3)), np.full((1, 6, 6, 3), 70))


def test_a_size_that_is_not_square_is_covered(tmp_path):
    # The middle third of the height fills it.
    levels = np.zeros((30, 30, 3))
    levels[10:20] = [200, 100, 0]
    found = read_images([save(tmp_path / "square.png", levels)], image_shape=(4, 12, 3))
    np.testing.assert_array_equal(found[:, 1:-1], np.broadcast_to([200, 100, 0], (1, 2, 12, 3)))
    exact = RNG.integers(0, 256, (4, 6, 3), np.uint8)
    np.testing.assert_array_equal(
        read_images([save(tmp_path / "exact.png", exact)], image_shape=(4, 6, 3)), exact[None]
    )


def test_small_pictures_are_enlarged_with_a_note(tmp_path):
    notes = []
    path = save(tmp_path / "small.png", np.full((3, 40, 3), 9))
    found = read_images([path], image_shape=(8, 8, 3), note=notes.append)
    np.testing.assert_array_equal(found, np.full((1, 8, 8, 3), 9))
    assert notes == [f"{path} has 40 x 3 pixels and is enlarged to 8 x 8"]


@pytest.mark.parametrize("shape", [(4, 4, 3), (4, 6, 3)])
@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + 40 * b"\0"])
def test_what_is_no_picture_is_named(content, shape, tmp_path):
    good, bad = save(tmp_path / "good.png", np.zeros((4, 4, 3))), tmp_path / "bad.jpg"
    bad.write_bytes(content)
    with pytest.raises(ValueError, match="bad.jpg is no picture that Pillow can read"):
        read_images([good, bad], image_shape=shape)


def test_what_does_not_fit_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file .*cat.jpg: name a picture"):
        read_images([tmp_path / "cat.jpg"], image_shape=(4, 4, 3))
    with pytest.raises(ValueError, match="name one or more pictures"):
        read_images([], image_shape=(4, 4, 3))
    with pytest.raises(ValueError, match="expected pictures of 1, 3, 4 channels; the network takes 2"):
        read_images([tmp_path / "cat.jpg"], image_shape=(4, 4, 2))


def test_the_likeliest_classes_with_their_probabilities():
    probabilities = jax.nn.softmax(jnp.asarray(RNG.normal(size=(3, 6)) * 3, jnp.float32))
    names = tuple("abcdef")
    expected, places = jax.lax.top_k(probabilities, 2)
    found = top(probabilities, count=2, class_names=names)
    assert [[name for name, _ in row] for row in found] == [[names[i] for i in row] for row in places]
    np.testing.assert_allclose([[p for _, p in row] for row in found], expected, rtol=1e-5)


def test_ties_and_few_classes():
    assert top(np.full((1, 2), 0.5), class_names=("a", "b")) == [[("a", 0.5), ("b", 0.5)]]
    assert top(np.asarray([[0.0, 1.0]]), class_names=("a", "b"), count=1) == [[("b", 1.0)]]
    with pytest.raises(
        ValueError, match=r"expected probabilities \(n, 3\), a column for each name; got \(1, 2\)"
    ):
        top(np.zeros((1, 2)), class_names=("a", "b", "c"))
    with pytest.raises(ValueError, match="at least 1; got 0"):
        top(np.zeros((1, 2)), class_names=("a", "b"), count=0)
