"""Optimizers against optax's own chains, PyTorch's definition of SGD, and the papers of what is added."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from cnnjax import models
from cnnjax.optim.optimizers import OPTIMIZERS, Optimizer, adaptive_clip, decayed

from ..drawn import images, variables

pytestmark = pytest.mark.usefixtures("optax_promotes")

MODEL = models.create("cifar_resnet", depth=14, width=4, activation="prelu")
PARAMS = variables(MODEL, images(2, 8, 8, 3))["params"]
RATE, DECAY = 0.01, 0.1


def gradients(step):
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), PARAMS)


def trained(optimizer, steps=4):
    @jax.jit
    def run(stacked):
        def one(carry, gradient):
            params, state = carry
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(one, (PARAMS, optimizer.init(PARAMS)), stacked)[0][0]

    return run(jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(gradients, range(steps))))


def assert_same(found, expected, rtol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), found, expected)


OPTAX = {
    "sgd": ({"momentum": 0.9, "nesterov": True}, optax.sgd(RATE, 0.9, True)),
    "adam": ({"b2": 0.95}, optax.adam(RATE, b2=0.95)),
    "rmsprop": ({"decay": 0.95}, optax.rmsprop(RATE, 0.95)),
    "lamb": ({}, optax.lamb(RATE)),
    "lion": ({}, optax.lion(RATE, weight_decay=0.0)),
}


@pytest.mark.parametrize("name", OPTAX)
def test_without_decay_they_are_optaxs(name):
    options, expected = OPTAX[name]
    assert_same(trained(Optimizer(name=name, options=options).make(RATE)), trained(expected))


@pytest.mark.parametrize(
    "name, expected",
    [
        ("adam", optax.adamw(RATE, weight_decay=DECAY, mask=decayed)),
        ("lamb", optax.lamb(RATE, weight_decay=DECAY, mask=decayed)),
        ("lion", optax.lion(RATE, weight_decay=DECAY, mask=decayed)),
    ],
)
def test_decoupled_decay_is_optaxs(name, expected):
    assert_same(trained(Optimizer(name=name, weight_decay=DECAY).make(RATE)), trained(expected))


def test_l2_with_momentum_is_torchs_sgd():
    # d = g + decay p; b = momentum b + d; p = p - rate b.
    params = {"/".join(path): np.asarray(leaf, np.float64) for path, leaf in flatten_dict(PARAMS).items()}
    buffers = {path: np.zeros_like(leaf) for path, leaf in params.items()}
    for step in range(4):
        for keys, gradient in flatten_dict(gradients(step)).items():
            path = "/".join(keys)
            share = DECAY if keys[-1] == "kernel" else 0.0
            buffers[path] = 0.9 * buffers[path] + np.asarray(gradient) + share * params[path]
            params[path] = params[path] - RATE * buffers[path]
    optimizer = Optimizer(options={"momentum": 0.9}, weight_decay=DECAY, decay="l2").make(RATE)
    for keys, leaf in flatten_dict(trained(optimizer)).items():
        np.testing.assert_allclose(leaf, params["/".join(keys)], rtol=1e-4, atol=1e-6)


def test_decay_leaves_norms_biases_and_slopes_alone():
    mask = {"/".join(path): bool(leaf) for path, leaf in flatten_dict(decayed(PARAMS)).items()}
    assert {path.rpartition("/")[2] for path, leaf in mask.items() if leaf} == {"kernel"}
    assert {path.rpartition("/")[2] for path, leaf in mask.items() if not leaf} == {"bias", "scale", "slope"}


def by_path(tree):
    return {"/".join(path): np.asarray(leaf, np.float64) for path, leaf in flatten_dict(tree).items()}


# A rate and a decay for each: the head's, those of biases, and all the rest, of which the scales stay.
GROUPS = {"head/linear/kernel": (2.0, 0.3), "bias": (8.0, 0.02), "scale": (0.0, 0.0), "": (1.0, DECAY)}


def group(path):
    return next(numbers for end, numbers in GROUPS.items() if path.endswith(end))


def test_rates_and_decays_are_torchs_parameter_groups():
    # For each group d = g + decay p; b = momentum b + d; p = p - rate (d + momentum b).
    params = by_path(PARAMS)
    buffers = {path: np.zeros_like(leaf) for path, leaf in params.items()}
    for step in range(4):
        for path, gradient in by_path(gradients(step)).items():
            rate, decay = group(path)
            d = gradient + decay * params[path]
            buffers[path] = 0.9 * buffers[path] + d
            params[path] = params[path] - RATE * rate * (d + 0.9 * buffers[path])
    optimizer = Optimizer(
        options={"momentum": 0.9, "nesterov": True},
        weight_decay=DECAY,
        decay="l2",
        decays={"**": 1.0, "head/linear/kernel": 0.3 / DECAY, "**/bias": 0.02 / DECAY, "**/scale": 0.0},
        rates={"head/linear/kernel": 2.0, "**/bias": 8.0, "**/scale": 0.0},
    )
    found = by_path(trained(optimizer.make(RATE)))
    for path, leaf in found.items():
        np.testing.assert_allclose(leaf, params[path], rtol=1e-4, atol=1e-5, err_msg=path)


def test_factors_of_several_patterns_multiply():
    optimizer = Optimizer(rates={"stage1": 0.5, "**/kernel": 3.0}).make(1.0)
    gradient = gradients(0)
    updates, _ = optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)
    for path, update in by_path(updates).items():
        factor = (0.5 if path.startswith("stage1/") else 1.0) * (3.0 if path.endswith("kernel") else 1.0)
        np.testing.assert_allclose(update, -factor * by_path(gradient)[path], rtol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rate_of_0_freezes_whatever_the_optimizer(name):
    optimizer = Optimizer(
        name=name, weight_decay=DECAY, normalize=True, rates={"stem": 0.0, "stage1/**/kernel": 0.0}
    ).make(RATE)
    gradient = gradients(0)
    gradient["stem"] = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), gradient["stem"])
    updates, state = optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)
    kept = [
        path
        for path in by_path(PARAMS)
        if path.startswith("stem/") or (path.startswith("stage1/") and path.endswith("kernel"))
    ]
    for path, update in by_path(updates).items():
        assert np.all(np.isfinite(update)), path
        assert np.any(update != 0) == (path not in kept), path
    # Nothing is remembered of them.
    remembered = {str(path[-4:]) for path, leaf in jax.tree_util.tree_leaves_with_path(state) if leaf.ndim}
    assert not any("'stem'" in path for path in remembered)


def test_frozen_gradients_do_not_count_for_clipping():
    gradient = gradients(0)
    large = {**gradient, "stem": jax.tree.map(lambda leaf: 1e6 * leaf, gradient["stem"])}
    optimizer = Optimizer(clip="norm", clip_at=1.0, rates={"stem": 0.0}).make(1.0)
    updates = [optimizer.update(each, optimizer.init(PARAMS), PARAMS)[0] for each in (gradient, large)]
    assert_same(*updates)
    assert float(optax.global_norm(updates[0])) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize(
    "options", [{"rates": {"stame1": 2.0}}, {"decays": {"stame1": 2.0}, "weight_decay": 0.1}]
)
def test_a_pattern_that_matches_nothing_is_named(options):
    optimizer = Optimizer(**options).make(0.1)
    with pytest.raises(ValueError, match="the pattern 'stame1' matches no parameter; nearest: 'stage1'"):
        optimizer.init(PARAMS)


def test_factors_need_the_parameters():
    optimizer = Optimizer(rates={"stem": 2.0}).make(0.1)
    with pytest.raises(ValueError, match="factors by pattern need the parameters"):
        optimizer.update(gradients(0), optimizer.init(PARAMS))


def test_clipping_by_norm_and_by_value():
    gradient = gradients(0)
    norm = optax.global_norm(gradient)
    by_norm = Optimizer(clip="norm", clip_at=1.0).make(1.0)
    updates, _ = by_norm.update(gradient, by_norm.init(PARAMS), PARAMS)
    assert_same(updates, jax.tree.map(lambda g: -g / norm, gradient))
    by_value = Optimizer(clip="value", clip_at=0.5).make(1.0)
    updates, _ = by_value.update(gradient, by_value.init(PARAMS), PARAMS)
    assert_same(updates, jax.tree.map(lambda g: -jnp.clip(g, -0.5, 0.5), gradient))


def test_adaptive_clipping_bounds_each_outputs_kernel():
    optimizer, gradient = adaptive_clip(0.01), gradients(0)
    updates, _ = optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)
    for path, update in flatten_dict(updates).items():
        given, kernel = flatten_dict(gradient)[path], flatten_dict(PARAMS)[path]
        if path[-1] != "kernel" or path[0] == "head":
            np.testing.assert_array_equal(update, given)
            continue
        axes = tuple(range("block" in path, update.ndim - 1))
        norms = [np.sqrt(np.square(x).sum(axes)) for x in (update, given, kernel)]
        np.testing.assert_allclose(
            norms[0], np.minimum(norms[1], 0.01 * np.maximum(norms[2], 1e-3)), rtol=1e-4
        )
    with pytest.raises(ValueError, match="needs the parameters"):
        optimizer.update(gradient, optax.EmptyState())


def test_accumulated_gradients_are_those_of_the_larger_batch():
    accumulating = Optimizer(options={"momentum": 0.9}, accumulate=2).make(RATE)
    expected = optax.sgd(RATE, 0.9)

    @jax.jit
    def whole():
        params, state = PARAMS, expected.init(PARAMS)
        for step in (0, 2):
            mean = jax.tree.map(lambda a, b: (a + b) / 2, gradients(step), gradients(step + 1))
            updates, state = expected.update(mean, state, params)
            params = optax.apply_updates(params, updates)
        return params

    assert_same(trained(accumulating), whole())


@pytest.mark.parametrize(
    "optimizer, text",
    [
        (Optimizer(name="adm"), "did you mean 'adam'"),
        (Optimizer(options={"momentun": 0.9}), "did you mean 'momentum'"),
        (Optimizer(clip="norms", clip_at=1.0), "did you mean 'norm'"),
        (Optimizer(decay="l1"), "unknown decay 'l1'. Known: decoupled, l2"),
        (Optimizer(weight_decay=-1.0), "weight_decay must be 0 or more, got -1.0"),
        (Optimizer(accumulate=0), "accumulate must be 1 or more, got 0"),
        (Optimizer(clip="norm", clip_at=0.0), "clip_at must be positive, got 0.0"),
        (Optimizer(rates={"head": -1.0}), "the factor of 'head' in rates must be 0 or more, got -1.0"),
        (
            Optimizer(decays={"head": float("nan")}),
            "the factor of 'head' in decays must be 0 or more, got nan",
        ),
        (Optimizer(name="muon", options={"rest": "sdg"}), "unknown rest of muon 'sdg'; did you mean 'sgd'"),
    ],
)
def test_what_does_not_exist_is_named(optimizer, text):
    with pytest.raises(ValueError, match=text):
        optimizer.make(0.1)


def test_every_optimizer_lowers_a_loss():
    def loss(params):
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))

    for name in OPTIMIZERS:
        optimizer = Optimizer(name=name).make(1e-3)
        updates, _ = optimizer.update(jax.grad(loss)(PARAMS), optimizer.init(PARAMS), PARAMS)
        assert loss(optax.apply_updates(PARAMS, updates)) < loss(PARAMS), name
