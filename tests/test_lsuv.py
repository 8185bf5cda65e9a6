from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.functional.conv import conv
from cnnjax.lsuv import lsuv

# Sorted by name they would come in another order than they run in.
PATHS = ("stem/kernel", "block/kernel", "head/kernel")


def forward(params, x):
    outputs = OrderedDict()
    for path in PATHS[:2]:
        outputs[path] = conv(x, params[path], params["bias"])
        x = jnp.tanh(outputs[path])
    outputs[PATHS[2]] = x.mean(axis=1) @ params[PATHS[2]]
    return outputs


@pytest.fixture
def params(rng):
    shapes = [(3, 2, 8), (3, 8, 8), (8, 5)]
    kernels = {
        path: jnp.float32(3 * rng.normal(size=shape)) for path, shape in zip(PATHS, shapes, strict=True)
    }
    return {"bias": jnp.full(8, 0.1), **kernels}


@pytest.fixture
def x(rng):
    return jnp.float32(rng.normal(size=(16, 10, 2)))


def variances(params, x):
    return [float(output.var()) for output in forward(params, x).values()]


@pytest.mark.parametrize("function", [forward, jax.jit(forward)])
def test_every_layer_gets_unit_variance(function, params, x):
    assert min(abs(variance - 1) for variance in variances(params, x)) > 0.5
    scaled = lsuv(function, params, x, tolerance=0.01)
    np.testing.assert_allclose(variances(scaled, x), 1, atol=0.01)


def test_kernels_change_by_a_factor_and_biases_not_at_all(params, x):
    scaled = lsuv(forward, params, x)
    np.testing.assert_array_equal(scaled["bias"], params["bias"])
    for path in PATHS:
        ratio = scaled[path] / params[path]
        np.testing.assert_allclose(ratio, ratio.ravel()[0], rtol=1e-5)


def test_max_iterations_bounds_the_divisions(params, x):
    untouched = lsuv(forward, params, x, max_iterations=0)
    np.testing.assert_array_equal(untouched["stem/kernel"], params["stem/kernel"])
    once = lsuv(forward, params, x, max_iterations=1)
    deviation = jnp.sqrt(forward(params, x)["stem/kernel"].var())
    np.testing.assert_allclose(once["stem/kernel"], params["stem/kernel"] / deviation, rtol=1e-5)


def test_runs_under_jit_and_vmap(params, x):
    runs = jax.jit(jax.vmap(lambda scale: lsuv(forward, params, scale * x)))(jnp.array([1.0, 3.0]))
    for run, scale in enumerate([1.0, 3.0]):
        single = lsuv(forward, params, scale * x)
        np.testing.assert_allclose(runs["head/kernel"][run], single["head/kernel"], rtol=1e-4)


def test_a_constant_layer_stays_and_the_others_go_on(params, x):
    dead = {**params, "block/kernel": jnp.zeros((3, 8, 8))}
    scaled = lsuv(forward, dead, x, tolerance=0.01)
    np.testing.assert_array_equal(scaled["block/kernel"], 0)
    assert variances(scaled, x)[0] == pytest.approx(1, abs=0.01)
    assert all(jnp.isfinite(leaf).all() for leaf in scaled.values())


@pytest.mark.parametrize("outputs", [{}, {"other": jnp.ones(3)}])
def test_forward_must_return_the_kernels_layers(params, x, outputs):
    with pytest.raises(ValueError, match=r"forward must return an output for each kernel in \['bias', 'stem"):
        lsuv(lambda params, x: outputs, params, x)
