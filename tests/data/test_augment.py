"""Augmentations against NumPy, Pillow, SciPy and colorsys, and by what they must leave as it was."""

import colorsys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from cnnjax.data import augment
from cnnjax.data.augment.color import turn_hue
from cnnjax.data.augment.geometry import rotation, warp
from cnnjax.data.augment.rand_augment import OPERATIONS

KEY = jax.random.key(3)
# Levels of 8 bits, so that Pillow sees the same images.
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 12, 10, 3), np.uint8)
PIXELS[:, :, :, 1] = PIXELS[:, :, :, 1] // 2 + 40
IMAGES = jnp.asarray(PIXELS / 255, jnp.float32)
LABELS = jax.nn.one_hot(jnp.arange(6) % 4, 4)

ON_IMAGES = {
    "crop": partial(augment.crop, padding=3),
    "flip": augment.flip,
    "rotate": partial(augment.rotate, degrees=30),
    "cutout": partial(augment.cutout, size=5),
    "jitter": partial(augment.jitter, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    "rand_augment": augment.rand_augment,
}
MIXING = {"mixup": partial(augment.mixup, alpha=0.4), "cutmix": augment.cutmix}


@pytest.mark.parametrize("name", ON_IMAGES)
def test_shape_type_range_and_determinism(name):
    changed = jax.jit(ON_IMAGES[name])
    first, again, other = changed(IMAGES, KEY), changed(IMAGES, KEY), changed(IMAGES, jax.random.key(4))
    assert first.shape == IMAGES.shape and first.dtype == IMAGES.dtype
    assert 0 <= first.min() and first.max() <= 1
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other) and np.any(first != IMAGES)
    half = jax.eval_shape(ON_IMAGES[name], IMAGES.astype(jnp.bfloat16), KEY)
    assert half.dtype == jnp.bfloat16
    # Images do not see each other, and each draws for itself.
    alike = changed(jnp.broadcast_to(IMAGES[:1], (32, *IMAGES.shape[1:])), KEY)
    assert len({image.tobytes() for image in np.asarray(alike)}) > 1


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_a_crop_is_a_window_of_the_padded_image_and_every_window_comes(mode):
    found = jax.jit(partial(augment.crop, padding=1, mode=mode))(jnp.repeat(IMAGES[:1], 200, axis=0), KEY)
    padded = np.pad(IMAGES[0], ((1, 1), (1, 1), (0, 0)), mode=mode)
    windows = {padded[y : y + 12, x : x + 10].tobytes() for y in range(3) for x in range(3)}
    assert {image.tobytes() for image in np.asarray(found)} == windows


def test_flips_are_mirror_images_as_often_as_asked():
    many = jnp.repeat(IMAGES[:1], 2000, axis=0)
    found = np.asarray(augment.flip(many, KEY, probability=0.3))
    mirrored = (found == np.asarray(IMAGES[0, :, ::-1])).all((1, 2, 3))
    np.testing.assert_array_equal(found[~mirrored], many[: (~mirrored).sum()])
    # Five deviations of a binomial.
    assert abs(mirrored.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 2000)


def test_an_alternating_flip_mirrors_each_example_in_every_second_epoch():
    chosen = jax.jit(augment.alternating)
    index = jnp.arange(2000, dtype=jnp.int32)
    epochs = [np.asarray(chosen(KEY, index, jnp.int32(epoch))) for epoch in range(4)]
    assert epochs[0].dtype == bool and epochs[0].shape == (2000,)
    np.testing.assert_array_equal(epochs[1], ~epochs[0])
    np.testing.assert_array_equal(epochs[2], epochs[0])
    np.testing.assert_array_equal(epochs[3], epochs[1])
    # Five deviations of a fair coin.
    assert abs(epochs[0].mean() - 0.5) < 5 * np.sqrt(0.25 / 2000)


def test_an_alternating_flip_depends_on_the_example_and_not_on_its_batch():
    index = jnp.arange(200, dtype=jnp.int32)
    whole = np.asarray(augment.alternating(KEY, index, 1))
    order = np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(augment.alternating(KEY, index[order][:30], 1), whole[order][:30])
    assert np.any(whole != augment.alternating(jax.random.key(4), index, 1))


def test_mirror_images_of_those_that_are_chosen():
    chosen = np.array([True, False, False, True, True, False])
    found = jax.jit(augment.mirror)(IMAGES, chosen)
    for image, original, mirrored in zip(found, IMAGES, chosen, strict=True):
        np.testing.assert_array_equal(image, original[:, ::-1] if mirrored else original)


@pytest.mark.parametrize("chosen", [np.ones(5, bool), np.ones(6, np.int32), np.ones((6, 1), bool)])
def test_mirror_takes_a_bool_for_each_image(chosen):
    with pytest.raises(ValueError, match="mirror takes a bool for each of the 6 images, got"):
        augment.mirror(IMAGES, chosen)


def test_a_right_angle_is_exact():
    square = IMAGES[0, :10]
    np.testing.assert_allclose(
        warp(square, rotation(jnp.float32(90))), np.rot90(square, k=-1), rtol=0, atol=1e-5
    )


def test_a_warp_is_scipys():
    matrix, shift = np.array([[0.9, -0.3], [0.2, 1.1]]), np.array([1.5, -0.7])
    center = (np.array([12, 10]) - 1) / 2
    offset = center - matrix @ center + shift
    expected = ndimage.affine_transform(
        np.asarray(IMAGES[0, ..., 0]), matrix, offset, order=1, mode="grid-constant", cval=0.5
    )
    found = warp(IMAGES[0, ..., :1], jnp.asarray(matrix), jnp.asarray(shift), fill=0.5)[..., 0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_rotations_reach_both_ends_and_no_further():
    # The angle of a bar through the center is read off where it leaves the image.
    bar = jnp.zeros((41, 41, 1)).at[20].set(1.0)
    found = np.asarray(augment.rotate(jnp.repeat(bar[None], 300, axis=0), KEY, degrees=20))[..., 0]
    # Ten pixels from the center, where the bar is inside of the image at every angle.
    rows = (found[:, :, 30] * np.arange(41)).sum(1) / found[:, :, 30].sum(1) - 20
    angles = np.degrees(np.arctan2(rows, 10))
    assert -20.5 < angles.min() < -18 and 18 < angles.max() < 20.5


def test_cutout_blanks_a_square_of_that_size_around_any_pixel():
    found = np.asarray(augment.cutout(jnp.ones((2000, 9, 9, 1)), KEY, size=3))[..., 0]
    blank = found == 0
    assert set(blank.sum((1, 2))) == {4, 6, 9}
    rows = blank.any(2).sum(1)
    # The border cuts the square off for 2 of 9 centers.
    assert abs((rows == 2).mean() - 2 / 9) < 5 * np.sqrt(2 / 9 * 7 / 9 / 2000)
    assert blank.any(0).all()


ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "color": ImageEnhance.Color,
    "sharpness": ImageEnhance.Sharpness,
}


@pytest.mark.parametrize("level", [-0.6, 0.8])
@pytest.mark.parametrize("name", ENHANCERS)
def test_enhancements_are_pillows(name, level):
    found = OPERATIONS[name](IMAGES[0], jnp.float32(level))
    expected = ENHANCERS[name](Image.fromarray(PIXELS[0])).enhance(1 + 0.9 * level)
    # Pillow rounds gray, mean and result to levels.
    np.testing.assert_allclose(found * 255, np.asarray(expected, float), atol=2.1)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("autocontrast", ImageOps.autocontrast),
        ("solarize", lambda image: ImageOps.solarize(image, 128)),
        ("posterize", lambda image: ImageOps.posterize(image, 6)),
        ("identity", lambda image: image),
    ],
)
def test_operations_on_levels_are_pillows(name, expected):
    found = OPERATIONS[name](IMAGES[0], jnp.float32(0.5)) * 255
    reference = np.asarray(expected(Image.fromarray(PIXELS[0])), float)
    # Where 64 levels are left, ours are 1 / 64 apart and Pillow's 4 / 255.
    np.testing.assert_allclose(found, reference, atol=1.1)


@pytest.mark.parametrize("shape", [(40, 40), (6, 8)], ids=["many pixels a level", "few"])
def test_equalized_is_pillows(shape):
    pixels = (255 * np.random.default_rng(2).random((*shape, 1)) ** 3).astype(np.uint8)
    found = OPERATIONS["equalize"](jnp.asarray(pixels / 255, jnp.float32), jnp.float32(0))[..., 0]
    expected = ImageOps.equalize(Image.fromarray(pixels[..., 0]))
    np.testing.assert_allclose(found * 255, np.asarray(expected, float), atol=1e-3)


@pytest.mark.parametrize("axis, name", [(0, "translate_y"), (1, "translate_x")])
def test_translations_move_along_their_axis(axis, name):
    image = jnp.asarray(np.random.default_rng(1).random((20, 20, 1)), jnp.float32)
    found = OPERATIONS[name](image, jnp.float32(1 / 3))
    np.testing.assert_allclose(found, jnp.where(_inside(axis), jnp.roll(image, -3, axis), 0.5), atol=1e-5)


def _inside(axis):
    line = jnp.arange(20) < 17
    return line[:, None, None] if axis == 0 else line[None, :, None]


def test_hue_is_turned_as_in_hsv():
    found = turn_hue(IMAGES, jnp.full(IMAGES.shape[:1] + (1, 1), 0.2))

    def turned(pixel):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        return colorsys.hsv_to_rgb((hue + 0.2) % 1, saturation, value)

    expected = np.apply_along_axis(turned, -1, np.asarray(IMAGES, float))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_jitter_without_strength_and_gray_images():
    np.testing.assert_array_equal(augment.jitter(IMAGES, KEY), IMAGES)
    dull = augment.jitter(IMAGES[..., :1], KEY, saturation=0.9, hue=0.5)
    np.testing.assert_array_equal(dull, IMAGES[..., :1])
    darker = np.asarray(augment.jitter(jnp.full((500, 1, 1, 3), 0.5), KEY, brightness=0.5))
    assert 0.25 <= darker.min() < 0.26 and 0.74 < darker.max() <= 0.75


@pytest.mark.parametrize("name", MIXING)
def test_labels_are_mixed_as_the_pixels_are(name):
    # Images that are constant with the class as their value tell the shares.
    images = jnp.broadcast_to(jnp.arange(6.0)[:, None, None, None], (6, 8, 8, 1))
    labels, changed = jnp.eye(6), 0
    for seed in range(8):
        mixed, shares = MIXING[name](images, labels, jax.random.key(seed))
        assert mixed.shape == images.shape and shares.shape == labels.shape
        np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-6)
        np.testing.assert_allclose(mixed.mean((1, 2, 3)), shares @ jnp.arange(6.0), rtol=1e-5)
        assert len(np.unique(np.round(shares.max(-1), 5))) <= 2
        changed += bool(jnp.any(shares != labels))
        if name == "cutmix":
            assert set(np.unique(mixed)) <= set(range(6))
    assert changed >= 6


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_share_of_mixup_is_beta(alpha):
    def share(key):
        mixed, _ = augment.mixup(jnp.arange(2.0)[:, None, None, None], jnp.eye(2), key, alpha=alpha)
        return mixed[1, 0, 0, 0]

    found = np.asarray(jax.jit(jax.vmap(share))(jax.random.split(KEY, 4000)))
    # Half of the draws have themselves as partner: 1. The others: E[(t - 1/2)^2] = 1 / (4 (2 alpha + 1)).
    spread = found[found < 1] - 0.5
    expected = 1 / (4 * (2 * alpha + 1))
    assert (spread**2).mean() == pytest.approx(expected, rel=0.1)


def test_views():
    both = augment.flips(IMAGES)
    np.testing.assert_array_equal(both, np.stack([IMAGES, IMAGES[:, :, ::-1]]))
    five = augment.crops(IMAGES, size=6)
    assert five.shape == (5, 6, 6, 6, 3)
    np.testing.assert_array_equal(five[3], IMAGES[:, 6:, 4:])
    np.testing.assert_array_equal(five[4], IMAGES[:, 3:9, 2:8])


@pytest.mark.parametrize(
    "function, error, text",
    [
        (
            partial(augment.crop, IMAGES[0], KEY, padding=2),
            ValueError,
            r"\(batch, height, width, channels\), got",
        ),
        (partial(augment.flip, jnp.asarray(PIXELS), KEY), TypeError, "got uint8: divide uint8 by 255 first"),
        (
            partial(augment.crop, IMAGES, KEY, padding=-1),
            ValueError,
            r"padding of crop must lie in \[0, 12\], got -1",
        ),
        (partial(augment.rotate, IMAGES, KEY, degrees=200), ValueError, "degrees of rotate must lie in"),
        (partial(augment.cutout, IMAGES, KEY, size=0), ValueError, "size of cutout must lie in"),
        (partial(augment.jitter, IMAGES, KEY, hue=0.6), ValueError, r"hue of jitter must lie in \[0, 0.5\]"),
        (partial(augment.jitter, IMAGES[..., :2], KEY, hue=0.1), ValueError, "1 or 3 channels, got 2"),
        (partial(augment.rand_augment, IMAGES, KEY, magnitude=31), ValueError, "magnitude of rand_augment"),
        (partial(augment.mixup, IMAGES, LABELS, KEY, alpha=0), ValueError, "alpha of mixup must be positive"),
        (partial(augment.mixup, IMAGES, jnp.arange(6), KEY, alpha=1), ValueError, "use jax.nn.one_hot"),
        (partial(augment.crops, IMAGES, size=11), ValueError, r"size of crops must lie in \[1, 10\], got 11"),
    ],
    ids=lambda value: getattr(getattr(value, "func", None), "__name__", None),
)
def test_bad_input_is_named(function, error, text):
    with pytest.raises(error, match=text):
        function()
