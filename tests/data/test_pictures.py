"""Decoding and cutting, against Pillow's own resizing and cropping."""

import io
from functools import partial

import numpy as np
import PIL.Image
import pytest

from cnnjax.data.pictures import center_box, decode, random_box

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def encoded(pixels, kind="png", mode=None):
    file = io.BytesIO()
    picture = PIL.Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(file, kind)
    return file.getvalue()


def opened(data, channels=3):
    return PIL.Image.open(io.BytesIO(data)).convert(MODES[channels])


def smooth(height, width):
    """An image without detail, so that it survives a reduction."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / width * 5), np.cos(y / height * 4), np.sin((x + y) / (width + height) * 6)]
    return (127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "kind, mode", [("png", "RGB"), ("png", "L"), ("png", "P"), ("jpeg", "CMYK"), ("gif", None)]
)
def test_an_image_of_the_size_is_what_pillow_decodes(rng, channels, kind, mode):
    data = encoded(rng.integers(0, 256, (16, 16, 3), np.uint8), kind, mode)
    found = decode(data, partial(center_box, size=16), size=16, channels=channels)
    assert found.shape == (16, 16, channels) and found.dtype == np.uint8
    np.testing.assert_array_equal(found.squeeze(), np.asarray(opened(data, channels)))


@pytest.mark.parametrize("height, width", [(50, 37), (37, 50), (29, 29), (300, 41), (9, 7), (64, 1)])
def test_the_center_is_what_pillow_resizes_and_crops(rng, height, width):
    size, short = 28, 32
    data = encoded(rng.integers(0, 256, (height, width, 3), np.uint8))
    found = decode(data, partial(center_box, size=size), size=size, channels=3)
    resized = [int(short * side / min(width, height)) for side in (width, height)]
    left, upper = (round((side - size) / 2.0) for side in resized)
    whole = opened(data).resize(resized, PIL.Image.Resampling.BILINEAR)
    expected = np.asarray(whole.crop((left, upper, left + size, upper + size)), int)
    # Pillow keeps the edges of a box in single precision.
    np.testing.assert_allclose(found.astype(int), expected, atol=1)


def test_a_cut_is_what_pillow_makes_of_that_box(rng):
    data, box = encoded(rng.integers(0, 256, (40, 60, 3), np.uint8)), (10, 5, 47, 33)
    found = decode(data, lambda *size: box, size=12, channels=3)
    np.testing.assert_array_equal(
        found, opened(data).resize((12, 12), PIL.Image.Resampling.BILINEAR, box=box)
    )


@pytest.mark.parametrize("width", [800, 799])
def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(width, monkeypatch):
    data, sizes = encoded(smooth(600, width), "jpeg"), []
    convert = PIL.Image.Image.convert
    monkeypatch.setattr(
        PIL.Image.Image, "convert", lambda self, mode: sizes.append(self.size) or convert(self, mode)
    )
    for box, expected in (
        ((0, 0, width, 600), (100, 75)),
        ((300, 200, 500, 400), (400, 300)),
        ((0, 0, 90, 90), None),
    ):
        found = decode(data, lambda *size, box=box: box, size=64, channels=3)
        assert sizes.pop() == (expected or (width, 600))
        whole = convert(PIL.Image.open(io.BytesIO(data)), "RGB")
        exact = np.asarray(whole.resize((64, 64), PIL.Image.Resampling.BILINEAR, box=box), int)
        assert np.abs(found - exact).mean() < 1


def test_random_boxes_lie_inside_within_the_limits_and_reach_both_ends(rng):
    boxes = np.array([random_box(400, 300, rng, area=(0.2, 0.6), ratio=(0.5, 2.0)) for _ in range(3000)])
    left, upper, right, lower = boxes.T
    assert (left >= 0).all() and (upper >= 0).all() and (right <= 400).all() and (lower <= 300).all()
    areas, ratios = (right - left) * (lower - upper) / 120_000, (right - left) / (lower - upper)
    for values, ends in ((areas, (0.2, 0.6)), (ratios, (0.5, 2.0))):
        # A side is rounded to a whole pixel.
        assert (
            ends[0] * 0.98 < values.min() < ends[0] * 1.05 and ends[1] * 0.95 < values.max() < ends[1] * 1.02
        )
    # Nothing large is rejected at this shape, so the area is uniform.
    squares = np.array([random_box(500, 500, rng, area=(0.1, 0.5), ratio=(1.0, 1.0)) for _ in range(3000)])
    shares = (squares[:, 2] - squares[:, 0]) ** 2 / 250_000
    assert shares.mean() == pytest.approx(0.3, abs=5 * 0.4 / np.sqrt(12 * 3000))
    places = squares[:, 0] / (500 - (squares[:, 2] - squares[:, 0]))
    assert places.mean() == pytest.approx(0.5, abs=5 / np.sqrt(12 * 3000))


@pytest.mark.parametrize(
    "width, height, expected",
    [
        (100, 10, (43, 0, 56, 10)),
        (10, 100, (0, 43, 10, 56)),
        (1, 1, (0, 0, 1, 1)),
        (5000, 1, (2499, 0, 2500, 1)),
    ],
)
def test_what_never_fits_is_the_largest_part_in_the_center(rng, width, height, expected):
    assert random_box(width, height, rng, area=(1.0, 1.0)) == expected


def test_damaged_data():
    data = encoded(smooth(100, 100), "jpeg")
    with pytest.raises(OSError, match="truncated"):
        decode(data[: len(data) // 2], partial(center_box, size=8), size=8, channels=3)
    with pytest.raises(OSError, match="cannot identify image file"):
        decode(b"no image", partial(center_box, size=8), size=8, channels=3)
