import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import functional as F


@pytest.mark.parametrize(
    "shape, groups", [((2, 3, 3, 12), 3), ((2, 5, 8), 2), ((7, 6), 6), ((1, 2, 2, 2, 4), 1)]
)
def test_channels_of_all_groups_alternate(shape, groups):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    n = shape[-1] // groups
    expected = np.empty_like(x)
    for g in range(groups):
        for i in range(n):
            expected[..., i * groups + g] = x[..., g * n + i]
    np.testing.assert_array_equal(F.channel_shuffle(jnp.asarray(x), groups), expected)
    np.testing.assert_array_equal(F.channel_shuffle(F.channel_shuffle(jnp.asarray(x), groups), n), x)


def test_channels_that_do_not_divide_into_groups():
    with pytest.raises(ValueError, match="10 channels do not divide into 4 groups"):
        F.channel_shuffle(jnp.zeros((2, 10)), 4)
    with pytest.raises(ValueError, match="10 channels do not divide into 0 groups"):
        F.channel_shuffle(jnp.zeros((2, 10)), 0)
