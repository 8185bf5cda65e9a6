import functools

import jax
import numpy as np

from cnnjax import functional as F
from cnnjax import nn

from ..drawn import images, shapes, variables

IMAGES = images(2, 5, 5, 3)


def layer(features, window, *, name):
    return nn.Layer(functools.partial(nn.Conv, features, window), name=name)


def branches(**steps):
    return nn.Branches(steps, layer)


def test_names_follow_the_steps():
    pool = functools.partial(nn.Pool, 3, 1, 1)
    module = branches(
        one=((2, 1),), two=((3, 1), (4, 3)), fork=((2, 1), ((1, (1, 3)), (2, (3, 1)))), pooled=(pool, (1, 1))
    )
    found = {name: tree["linear"]["kernel"].shape for name, tree in shapes(module, IMAGES)["params"].items()}
    assert found == {
        "one": (1, 1, 3, 2),
        "two_1": (1, 1, 3, 3),
        "two_2": (3, 3, 3, 4),
        "fork_1": (1, 1, 3, 2),
        "fork_2a": (1, 3, 2, 1),
        "fork_2b": (3, 1, 2, 2),
        "pooled": (1, 1, 3, 1),
    }


def test_branches_are_concatenated_in_their_order():
    module = branches(pooled=(functools.partial(nn.Pool, 3, 1, 1), (2, 1)), fork=(((1, (1, 3)), (2, 1)),))
    made = variables(module, IMAGES)

    def relu_conv(x, name):
        linear = made["params"][name]["linear"]
        return jax.nn.relu(F.conv(x, linear["kernel"], linear["bias"]))

    @jax.jit
    def expected(x):
        pooled = F.max_pool(x, 3, stride=1, padding=1)
        return [relu_conv(pooled, "pooled"), relu_conv(x, "forka"), relu_conv(x, "forkb")]

    actual = np.asarray(jax.jit(module.apply)(made, IMAGES))
    for part, channels in zip(expected(IMAGES), ([0, 1], [2], [3, 4]), strict=True):
        np.testing.assert_allclose(actual[..., channels], part, rtol=1e-4, atol=1e-5)
