"""Muon against its definition, and kernels that keep their norm."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from cnnjax import models
from cnnjax.optim.muon import muon, normalized_kernels
from cnnjax.optim.optimizers import Optimizer

from ..drawn import images, variables

pytestmark = pytest.mark.usefixtures("optax_promotes")

MODEL = models.create("cifar_resnet", depth=14, width=4, activation="prelu")
PARAMS = variables(MODEL, images(2, 8, 8, 3))["params"]


def gradients(step):
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), PARAMS)


def is_hidden(path):
    return path[-1] == "kernel" and path[0] != "head"


def blocks(path, array):
    """The kernels of a stack, or the one that there is."""
    return np.asarray(array, np.float64) if "block" in path else np.asarray(array, np.float64)[None]


def test_muon_makes_kernels_orthogonal_steps_and_leaves_the_rest_to_adam():
    optimizer = Optimizer(name="muon").make(1.0)
    gradient = gradients(0)
    updates, _ = optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)
    found = flatten_dict(updates)
    for path, update in found.items():
        if path[-1] == "kernel" and path[0] != "head":
            blocks = update if "block" in path else update[None]
            for block in blocks:
                values = np.linalg.svd(np.asarray(block).reshape(-1, block.shape[-1]), compute_uv=False)
                # Five steps of Newton and Schulz bring singular values near 1, not to it (Jordan et al. 2024).
                assert values.max() / values.min() < 3, path
                assert np.vdot(update, flatten_dict(gradient)[path]) < 0
        else:
            # The first step of Adam is the sign, times a number that Nesterov's momentum adds.
            np.testing.assert_allclose(
                update, -np.sign(flatten_dict(gradient)[path]) * np.abs(update).max(), rtol=1e-3
            )


def orthogonal(matrix, steps):
    """Newton and Schulz's iteration as in Jordan et al. 2024, for a matrix of at most as many rows as columns."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


def test_with_sgd_it_is_airbenchs_after_its_first_steps():
    optimizer = Optimizer(
        name="muon", options={"beta": 0.6, "ns_steps": 3, "rest": "sgd", "momentum": 0.85}
    ).make(1.0)
    update = jax.jit(optimizer.update)
    state, buffers = optimizer.init(PARAMS), jax.tree.map(jnp.zeros_like, PARAMS)
    for step in range(16):
        updates, state = update(gradients(step), state, PARAMS)
        momenta = jax.tree_util.tree_map_with_path(
            lambda path, _: 0.6 if is_hidden([key.key for key in path]) else 0.85, PARAMS
        )
        buffers = jax.tree.map(lambda b, m, g: m * b + g, buffers, momenta, gradients(step))
    ahead = flatten_dict(jax.tree.map(lambda b, m, g: g + m * b, buffers, momenta, gradients(15)))
    for path, found in flatten_dict(updates).items():
        if not is_hidden(path):
            np.testing.assert_allclose(found, -ahead[path], rtol=1e-4, atol=1e-5)
            continue
        for one, expected in zip(blocks(path, found), blocks(path, ahead[path]), strict=True):
            matrix = expected.reshape(-1, expected.shape[-1]).T
            outputs, inputs = matrix.shape
            assert outputs <= inputs
            np.testing.assert_allclose(
                one.reshape(inputs, outputs).T, -orthogonal(matrix, 3), rtol=0, atol=2e-3
            )


def test_kernels_have_their_norm_when_the_update_is_added():
    optimizer = normalized_kernels()
    moved = flatten_dict(optax.apply_updates(PARAMS, optimizer.update(gradients(0), (), PARAMS)[0]))
    for path, kernel in flatten_dict(PARAMS).items():
        update = flatten_dict(gradients(0))[path]
        if not is_hidden(path):
            np.testing.assert_allclose(moved[path], kernel + update, rtol=1e-6)
            continue
        for one, before, change in zip(
            *(blocks(path, x) for x in (moved[path], kernel, update)), strict=True
        ):
            scale = np.sqrt(before.shape[-1]) / np.linalg.norm(before)
            np.testing.assert_allclose(one, scale * before + change, rtol=1e-4, atol=1e-5)


def test_normalized_kernels_take_their_updates_at_the_learning_rate():
    optimizer = Optimizer(normalize=True).make(0.0)
    updates, _ = optimizer.update(gradients(0), optimizer.init(PARAMS), PARAMS)
    for path, kernel in flatten_dict(optax.apply_updates(PARAMS, updates)).items():
        if is_hidden(path):
            norms = [np.linalg.norm(block) for block in blocks(path, kernel)]
            np.testing.assert_allclose(norms, np.sqrt(kernel.shape[-1]), rtol=1e-5)


def test_a_kernel_of_zeros_stays_finite():
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = normalized_kernels().update(gradients(0), (), zeros)
    jax.tree.map(np.testing.assert_array_equal, updates, gradients(0))


def test_errors():
    with pytest.raises(ValueError, match="unknown rest of muon 'adm'; did you mean 'adam'"):
        muon(rest="adm")
    with pytest.raises(ValueError, match="normalized kernels need the parameters"):
        normalized_kernels().update(gradients(0), ())
