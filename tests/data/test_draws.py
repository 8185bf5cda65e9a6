"""Which examples become training, validation and test parts."""

import numpy as np
import pytest

from cnnjax.data.dataset import Split
from cnnjax.data.draws import check_options, divide

OPTIONS = {"split_seed": 0, "validation": None, "subset": None}


def split(size, start=0):
    """Examples that are their number."""
    return Split(np.arange(start, start + size), np.arange(size) % 5)


def numbers(*parts):
    return [part.images.tolist() for part in parts]


def test_what_is_there_is_kept():
    official = {"train": split(50), "validation": split(10, 100), "test": split(5, 200)}
    parts = divide("set", official, **OPTIONS)
    assert (
        numbers(parts.train, parts.validation, parts.test) == numbers(*official.values())
        and parts.notes == ()
    )


def test_what_is_missing_is_drawn_from_training_with_the_shares_of_its_classes():
    parts = divide("set", {"train": split(50)}, **OPTIONS)
    assert sorted(sum(numbers(*parts[:3]), [])) == list(range(50))
    # Of 10 examples a class: 2 for test, 8 / 5 for validation.
    counts = [np.bincount(part.labels) for part in parts[:3]]
    assert counts[2].tolist() == [2] * 5 and set(counts[1]) == {1, 2} and counts[1].sum() == 8
    assert parts.notes == ("set has no official test split: 10 images were drawn by split_seed=0",)


def test_a_validation_split_serves_as_test_split():
    parts = divide("set", {"train": split(50), "validation": split(10, 100)}, **OPTIONS)
    assert numbers(parts.test) == numbers(split(10, 100)) and (len(parts.train), len(parts.validation)) == (
        40,
        10,
    )
    assert parts.notes == ("set has no labeled test split: its official validation split is the test split",)


def test_labels_are_not_asked_for_in_vain():
    class Unlabeled(Split):
        @property
        def labels(self):
            raise AssertionError("reading labels may take minutes")

        def __len__(self):
            return len(self.images)

        def take(self, indices):
            return Split(self.images[indices], indices)

    train = object.__new__(Unlabeled)
    object.__setattr__(train, "images", np.arange(9))
    parts = divide("set", {"train": train, "test": split(5)}, **OPTIONS | {"validation": 0.0})
    assert parts.train is train and len(parts.validation) == 0


def test_an_official_validation_split_is_not_replaced():
    official = {"train": split(50), "validation": split(10), "test": split(5)}
    says = r"set has a validation split of its own \(10 images\): leave validation out, got 0.1"
    with pytest.raises(ValueError, match=says):
        divide("set", official, **OPTIONS | {"validation": 0.1})


def test_options_out_of_range():
    check_options(split_seed=0, validation=None)
    with pytest.raises(ValueError, match="expected split_seed >= 0, 0 <= validation < 1, got 0, 1.5"):
        check_options(split_seed=0, validation=1.5)
    with pytest.raises(ValueError, match="set has 36 images left for training: subset cannot be 40"):
        divide("set", {"train": split(45), "test": split(1)}, **OPTIONS | {"subset": 40})
