"""What the papers' files compute by themselves, against closed forms, sampling and invariants."""

import functools
import math
import runpy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models

from .drawn import variables

PAPERS = Path(__file__).parents[1] / "experiments" / "papers"


@functools.cache
def names(paper: str) -> dict[str, Any]:
    return runpy.run_path(str(PAPERS / f"{paper}.py"))


def test_balduzzi_with_one_input_is_the_network_along_a_pixel():
    model = models.create("mlp", depth=4, width=8, activation="tanh")
    t = jnp.linspace(-2, 2, 5)[:, None]
    images = jnp.zeros((5, 16)).at[:, :1].set(4 * t).reshape(5, 4, 4, 1)
    made = variables(model, images)
    seen = model.apply(names("balduzzi2017")["with_one_input"](made), t)
    np.testing.assert_allclose(seen, model.apply(made, images), rtol=1e-5, atol=1e-6)


def test_balduzzi_beta_is_a_scale_of_the_branches_alone():
    options = dict(depth=4, width=8, skip=True)
    batch = models.create("mlp", norm="batch", **options)
    branch = models.create("mlp", norm=names("balduzzi2017")["BranchNorm"], **options)
    x = jnp.linspace(-2, 2, 16)[:, None]
    made = jax.jit(branch.init)(jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: leaf, made["params"])
    params["stem"]["norm"] = params["stem"]["norm"]["batch"]
    layer = params["stack"]["block"]["layer"]
    layer["norm"] = jax.tree.map(lambda leaf: 0.1 * leaf, layer["norm"]["batch"])
    expected, _ = batch.apply({"params": params}, x, train=True, mutable=["batch_stats"])
    found, _ = branch.apply(made, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_isometry_of_nearly_equal_slopes_is_a_semicircle_of_logarithms():
    # The free central limit: log x of L factors of relative variance v has the radius 2 sqrt(L v).
    ratio = names("isometry2017")["largest_over_median"]
    for spread, layers in ((0.01, 64), (0.003, 200)):
        squares, weights = np.array([1 - spread, 1 + spread]), np.array([0.5, 0.5])
        radius = 2 * spread * math.sqrt(layers)
        found = ratio(squares, weights, layers=layers)
        assert math.log(found) == pytest.approx(radius / 2, rel=radius)
        assert ratio(3 * squares, weights, layers=layers) == pytest.approx(found, rel=1e-6)


def test_isometry_against_sampled_matrices(rng):
    squares, weights, layers, width = np.array([0.25, 1.0, 2.0]), np.array([0.3, 0.5, 0.2]), 6, 300
    product = np.eye(width)
    for _ in range(layers):
        slopes = np.sqrt(rng.choice(squares, size=width, p=weights))
        product = np.linalg.qr(rng.normal(size=(width, width)))[0] @ (slopes[:, None] * product)
    values = np.linalg.svd(product, compute_uv=False)
    limit = names("isometry2017")["largest_over_median"](squares, weights, layers=layers)
    # The largest value fluctuates by about width^(-2/3) = 2 %, the median by less.
    assert names("isometry2017")["spread"](values) == pytest.approx(limit, rel=0.06)


def test_isometry_is_lost_where_half_of_the_values_vanish():
    assert names("isometry2017")["spread"](np.array([3.0, 0.0, 0.0])) == np.inf


def test_glorot_singular_value_of_a_linear_network_is_that_of_the_quarter_circle():
    model = models.create("mlp", depth=6, width=256, activation="identity")
    images = jnp.ones((2, 8, 8, 1))
    made = variables(model, images, gain=1 / math.sqrt(3))
    file = names("glorot2010")
    found = jax.jit(lambda v: file["singular_value"](model, v, images, jnp.zeros(2), jax.random.key(0)))(made)
    # The mean of n singular values fluctuates by about 1 / n.
    assert found == pytest.approx(file["LINEAR"], rel=0.01)
