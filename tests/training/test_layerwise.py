from functools import partial

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax import models, nn
from cnnjax.training import freeze, layer_depths, layerwise_decay

from ..drawn import shapes, variables

IMAGES = jnp.zeros((2, 8, 8, 1))


def depths(model, images=IMAGES):
    return layer_depths(model, shapes(model, images), images)


def test_a_residual_network():
    found = depths(models.create("cifar_resnet", depth=14, width=2))
    # Two blocks a stage, two layers a block; the second and third stage begin with a block of their own.
    expected = {
        ("stem",): 0,
        ("stage1", "block", "layer1"): [1, 3],
        ("stage1", "block", "layer2"): [2, 4],
        ("stage2_down", "layer1"): 5,
        ("stage2_down", "layer2"): 6,
        ("stage2", "block", "layer1"): [7],
        ("stage2", "block", "layer2"): [8],
        ("stage3_down", "layer1"): 9,
        ("stage3_down", "layer2"): 10,
        ("stage3", "block", "layer1"): [11],
        ("stage3", "block", "layer2"): [12],
        ("head",): 13,
    }
    for path, numbers in expected.items():
        layer = found
        for name in path:
            layer = layer[name]
        for leaf in jax.tree.leaves(layer):
            np.testing.assert_array_equal(leaf, numbers)


def test_a_norm_in_front_of_an_activation_belongs_to_its_layer():
    found = depths(models.create("cifar_preact_resnet", depth=8, width=2))
    layer = found["stage1"]["block"]["layer2"]
    assert layer["norm"]["scale"] == layer["linear"]["kernel"] == [2]
    last = found["stage3_down"]["layer2"]["linear"]["kernel"]
    assert last < found["final_norm"]["scale"] < found["head"]["linear"]["kernel"]


def test_written_out_stacks_have_the_same_depths():
    model = models.create("cifar_preact_resnet", depth=14, width=2)
    jax.tree.map(np.testing.assert_array_equal, nn.unstack(depths(model)), depths(model.clone(scan=False)))


@pytest.mark.parametrize("name", ["mlp", "lenet5", "keras_cifar_cnn"])
def test_every_number_is_there_and_the_head_is_last(name):
    images = jnp.zeros((2, 32, 32, 1))
    found = depths(models.create(name), images)
    numbers = np.unique(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found)]))
    np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
    assert found["head"]["linear"]["kernel"] == len(numbers) - 1 > 1


dense = partial(nn.Dense, 4)


class Pair(linen.Module):
    @linen.compact
    def __call__(self, x, *, train=False):
        x = nn.Layer(dense, name="first")(x, train=train)
        return nn.Layer(dense, name="second")(x, train=train)


class Odd(linen.Module):
    """A norm in front of a stack, nested stacks, and parameters that only `unused` calls."""

    unused: bool = False

    @linen.compact
    def __call__(self, x, *, train=False):
        x = nn.BatchNorm(name="norm")(x, train=train)
        x = nn.Stack(partial(nn.Stack, Pair, 3), 2, name="outer")(x, train=train)
        if self.unused and self.is_initializing():
            nn.Dense(2, name="aside")(x)
        return x


def test_nested_stacks_and_what_stands_before_them():
    found = depths(Odd(), jnp.zeros((2, 4)))
    pair = found["outer"]["block"]["block"]
    np.testing.assert_array_equal(pair["first"]["linear"]["kernel"], np.arange(0, 12, 2).reshape(2, 3))
    np.testing.assert_array_equal(pair["second"]["linear"]["kernel"], np.arange(1, 12, 2).reshape(2, 3))
    assert found["norm"]["scale"].shape == () and found["norm"]["scale"] == 0


def by_hand(params, numbers, decay, last):
    """Each block of each leaf times its factor, one by one."""

    def scaled(leaf, number):
        out = np.array(leaf)
        for index in np.ndindex(number.shape):
            out[index] *= decay ** (last - int(number[index]))
        return out

    return jax.tree.map(scaled, params, numbers)


@pytest.mark.usefixtures("optax_promotes")
@pytest.mark.parametrize(
    "optimizer", [optax.sgd(1.0), optax.adamw(0.1, weight_decay=0.1)], ids=["sgd", "adamw"]
)
def test_updates_are_multiplied_by_the_factor_of_their_layer(optimizer):
    model = models.create("plain", depth=5, width=2, norm="batch")
    made = variables(model, IMAGES)
    params, gradients = made["params"], jax.tree.map(np.sin, made["params"])
    chain = optax.chain(optimizer, layerwise_decay(model, made, IMAGES, decay=0.5))
    plain, found = jax.jit(
        lambda: [one.update(gradients, one.init(params), params)[0] for one in (optimizer, chain)]
    )()
    expected = by_hand(plain, layer_depths(model, made, IMAGES), 0.5, 4)
    # Powers of 2 are exact.
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    np.testing.assert_array_equal(found["head"]["linear"]["kernel"], plain["head"]["linear"]["kernel"])


def test_it_goes_together_with_freezing():
    model = models.create("plain", depth=4, width=2, norm="batch")
    made = variables(model, IMAGES)
    chain = optax.chain(optax.sgd(1.0), layerwise_decay(model, made, IMAGES, decay=0.5))
    optimizer = freeze("stem").optimizer(chain)
    ones = jax.tree.map(jnp.ones_like, made["params"])
    updates, _ = optimizer.update(ones, optimizer.init(made["params"]), made["params"])
    assert not jnp.any(updates["stem"]["linear"]["kernel"])
    kernels = updates["stack"]["block"]["layer"]["linear"]["kernel"]
    np.testing.assert_array_equal(kernels.reshape(2, -1)[:, 0], [-0.25, -0.5])


def test_half_precision_stays():
    model = models.create("mlp", depth=3, width=2)
    made = shapes(model, IMAGES)
    updates = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, jnp.bfloat16), made["params"])
    found, _ = layerwise_decay(model, made, IMAGES, decay=0.5).update(updates, optax.EmptyState())
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("decay", [0.0, 1.5, float("nan")])
def test_decay_out_of_range(decay):
    model = models.create("mlp", depth=3, width=2)
    with pytest.raises(ValueError, match=r"decay is the factor .*, in \(0, 1\]; got"):
        layerwise_decay(model, shapes(model, IMAGES), IMAGES, decay=decay)


def test_what_a_call_does_not_use_is_a_head():
    found = depths(Odd(unused=True), jnp.zeros((2, 4)))
    assert found["aside"]["kernel"] == found["aside"]["bias"] == 11


def test_a_model_without_probe_point():
    class Bare(linen.Module):
        @linen.compact
        def __call__(self, x, *, train=False):
            return nn.Dense(2)(x)

    with pytest.raises(ValueError, match="Bare has no probe point"):
        depths(Bare(), jnp.zeros((2, 4)))
