"""Which example stands at which position, and what its cut depends on."""

from functools import partial

import numpy as np
import pytest

from cnnjax.data.image_folder import read_folder
from cnnjax.data.pictures import random_box
from cnnjax.data.reader import Reader

SIZE = 8


@pytest.fixture
def source(write_folder):
    return read_folder(write_folder({"train": {"a": 7, "b": 4}}))[0]["train"]


def reader(source, *, seed=5, cut=None, skip=False):
    return Reader(source=source, size=SIZE, seed=seed, cut=cut, skip=skip)


def indices(source, examples):
    """Which examples of the source these are; images of this size come whole."""
    once = reader(source)
    known = {once.once(index).image.tobytes(): index for index in range(len(source))}
    return [known[example.image.tobytes()] for example in examples]


def test_every_epoch_has_every_example_once_in_an_order_of_its_own(source):
    found = indices(source, [reader(source).endless(position, 0) for position in range(33)])
    epochs = [found[start : start + 11] for start in (0, 11, 22)]
    for number, epoch in enumerate(epochs):
        assert sorted(epoch) == list(range(11))
        assert epoch == np.random.default_rng((5, 0, number)).permutation(11).tolist()
    other = indices(source, [reader(source, seed=6).endless(position, 0) for position in range(11)])
    assert len({tuple(order) for order in (*epochs, other)}) == 4


def test_a_cut_depends_on_seed_epoch_and_example_alone(source):
    cut, drawn = partial(random_box, area=(0.1, 0.5)), []
    watched = reader(source, cut=lambda *size, rng: drawn.append(cut(*size, rng=rng)) or drawn[-1])
    for position in (13, 2, 13):
        watched.endless(position, 0)
    index = int(np.random.default_rng((5, 0, 1)).permutation(11)[2])
    assert drawn[0] == drawn[2] == cut(SIZE, SIZE, rng=np.random.default_rng((5, 1, 1, index))) != drawn[1]


def damage(source, *indices):
    for index in indices:
        (source.root / source.name(index)).write_bytes(b"damaged")


def test_a_damaged_image_is_an_error_with_its_name(source):
    damage(source, 3)
    says = r"train/a/03.png cannot be read \(cannot identify .*\): replace it, or leave it out by on_corrupt='skip'"
    with pytest.raises(ValueError, match=says):
        for position in range(11):
            reader(source).endless(position, 0)
    with pytest.raises(ValueError, match=says):
        reader(source).once(3)


def test_the_next_one_takes_the_place_of_a_damaged_image(source):
    whole = [reader(source).endless(position, 0) for position in range(11)]
    order = indices(source, whole)
    damage(source, 3, 9, 10)
    skipping = [reader(source, skip=True).endless(position, 0) for position in range(11)]
    for index, before, after in zip(order, whole, skipping, strict=True):
        taken, names = {
            3: (4, ("train/a/03.png",)),
            9: (0, ("train/b/02.png", "train/b/03.png")),
            10: (0, ("train/b/03.png",)),
        }.get(index, (index, ()))
        expected = whole[order.index(taken)]
        np.testing.assert_array_equal(after.image, expected.image)
        assert (after.label, after.weight, after.corrupt) == (expected.label, 1.0, names)
        assert (after.image is not before.image) and after.image.shape == (SIZE, SIZE, 3)


def test_once_a_damaged_image_has_no_weight(source):
    damage(source, 3)
    found = [reader(source, skip=True).once(position) for position in range(12)]
    assert [example.weight for example in found] == [1.0] * 3 + [0.0] + [1.0] * 7 + [0.0]
    assert found[3].corrupt == ("train/a/03.png",) and found[11].corrupt == () and not found[3].image.any()


def test_where_nothing_can_be_read_the_search_ends(source):
    damage(source, *range(11))
    with pytest.raises(ValueError, match="11 images in a row cannot be read, from train/./.* to train/./"):
        reader(source, skip=True).endless(0, 0)
