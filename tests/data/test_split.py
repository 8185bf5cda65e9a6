"""Stratified draws: exact size, shares within one example, nothing lost."""

import numpy as np
import pytest

from cnnjax.data.split import stratified


@pytest.mark.parametrize("size", [0, 1, 17, 50, 99, 100])
def test_every_class_keeps_its_share(rng, size):
    labels = rng.permutation(np.repeat([0, 1, 2, 4], [50, 30, 13, 7]))  # class 3 has no example
    drawn, others = stratified(labels, size, np.random.default_rng(0))
    assert len(drawn) == size
    np.testing.assert_array_equal(np.sort(np.concatenate([drawn, others])), np.arange(100))
    shares = np.bincount(labels) * size / 100
    assert np.all(np.abs(np.bincount(labels[drawn], minlength=5) - shares) < 1)


def test_the_draw_depends_on_the_seed_alone():
    labels = np.arange(40) % 4
    first, again, other = (stratified(labels, 20, np.random.default_rng(seed))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
