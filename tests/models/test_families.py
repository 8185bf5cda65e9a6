"""One small network of every family: what all of them have in common."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models
from cnnjax.probes import probe_points

from ..drawn import images, shapes, variables


class Small(NamedTuple):
    """Options that make a variant small; the shape of its inputs; that of the maps its logits are."""

    options: dict
    input: tuple[int, ...] = (8, 8, 3)
    map: tuple[int, ...] = ()


STAGES = {"depths": (1, 2), "width": 4, "stem": "cifar"}
SMALL = {
    "airbench96": Small({"widths": (4, 6), "head_scale": 1.0}, (16, 16, 3)),
    "alexnet": Small({"stem": "cifar", "widths": (4, 6, 8, 6, 6), "hidden": 8, "dropout": 0.0}, (16, 16, 3)),
    "c3d": Small({"width": 4, "hidden": 8, "dropout": 0.0}, (4, 8, 8, 3)),
    "cifar_preact_resnet": Small({"depth": 8, "width": 4}),
    "cifar_preact_resnet164": Small({"depth": 11, "width": 2}),
    "cifar_resnet": Small({"depth": 14, "width": 4}),
    "convnext_tiny": Small(
        {"depths": (1, 1), "widths": (4, 8), "stem": "cifar", "drop_path": 0.0, "layer_scale": 1.0}
        | {"initializer": "he_normal"}
    ),
    "deepsea": Small(
        {"widths": (4, 6, 4), "window": 3, "hidden": 6, "dropout": 0.0, "early_dropout": 0.0}, (80, 2)
    ),
    "densenet_bc100_12": Small({"depths": (1, 2), "growth": 4, "width": 8}),
    "efficientnet_v2_s": Small(
        {"stages": ((True, 2, 3, 1, 8, 2), (False, 2, 3, 2, 16, 3)), "stem_width": 8, "last_width": 16}
        | {"stem": "cifar", "dropout": 0.0, "drop_path": 0.0}
    ),
    "fixup_resnet50": Small({"depths": (2, 2), "width": 4, "stem": "cifar", "branch_scale": None}),
    "fixup_resnet110": Small({"depths": (2, 2), "width": 4, "branch_scale": None}),
    "googlenet": Small({"stem": "cifar", "depths": (1, 1, 1), "width": 8, "dropout": 0.0}),
    "inception_v3": Small({"stem": "cifar", "depths": (1, 2, 1), "width": 2, "aux": False, "dropout": 0.0}),
    "keras_cifar_cnn": Small({"padding": "SAME"}),
    "lenet5": Small({"padding": "SAME"}),
    "m34_res": Small({"stem_width": 4, "widths": (4, 8), "depths": (2, 1)}, (80, 2)),
    "m5": Small({"stem_width": 4, "widths": (4, 8), "depths": (2, 1)}, (80, 2)),
    "mlp": Small({"depth": 4, "width": 8}),
    "mobilenet_v1": Small({"stages": ((8, 1, 1), (16, 3, 2)), "stem": "cifar", "width_multiplier": 0.25}),
    "mobilenet_v2": Small(
        {"stages": ((1, 8, 1, 1), (2, 16, 3, 2)), "stem": "cifar", "width_multiplier": 0.25, "dropout": 0.0}
    ),
    "mobilenet_v3_large": Small(
        {"blocks": ((3, 16, 8, False, "relu", 2), *[(3, 64, 8, True, "hard_swish", 1)] * 2)}
        | {"dense_width": 16, "stem": "cifar", "dropout": 0.0}
    ),
    "nf_resnet50": Small({"depths": (2, 2), "width": 4, "stem": "cifar"}),
    "plain": Small({"depth": 4, "width": 4}),
    "preact_resnet18": Small(STAGES),
    "preact_resnet50": Small(STAGES | {"depths": (1, 1)}),
    "r3d_18": Small({"depths": (1, 2), "width": 4}, (4, 8, 8, 3)),
    "resnet18": Small(STAGES),
    "resnext50_32x4d": Small(STAGES | {"depths": (1, 1), "groups": 2, "width_per_group": 32}),
    "shufflenet_v1_g2": Small({"widths": (8, 16, 24), "depths": (2, 1, 1), "stem_width": 4, "stem": "cifar"}),
    "shufflenet_v2_x1_0": Small(
        {"widths": (4, 8, 12), "depths": (2, 1, 1), "stem_width": 4, "last_width": 8, "stem": "cifar"}
    ),
    "squeezenet1_1": Small({"stem": "cifar", "width": 8, "squeezes": (2, 3), "pooled": (2,), "dropout": 0.0}),
    "text_cnn": Small(
        {"vocabulary": 7, "embedding_size": 4, "windows": (2, 3), "width": 4, "dropout": 0.0}, (9,)
    ),
    "unet_padded": Small({"depth": 1, "width": 4, "dropout": 0.0}, map=(8, 8)),
    "vgg11": Small({"depths": (1, 2), "width": 4, "head": "cifar"}),
    "wide_resnet16_4": Small({"depth": 16, "width": 2, "width_factor": 2}),
}
every_family = pytest.mark.parametrize("name", SMALL)


def small(name, **options):
    return models.create(name, **{**SMALL[name].options, "num_classes": 5, **options})


def inputs(name):
    if models.VARIANTS[name].dtype == "int32":
        return jnp.asarray(np.random.default_rng(0).integers(0, 7, (3, *SMALL[name].input)), jnp.int32)
    return images(3, *SMALL[name].input)


# Networks whose blocks others here have, too.
ALIKE = (
    *("cifar_preact_resnet", "fixup_resnet50", "fixup_resnet110", "inception_v3", "m34_res", "mobilenet_v1"),
    *("preact_resnet18", "preact_resnet50", "r3d_18", "resnext50_32x4d", "wide_resnet16_4"),
)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in SMALL],
)
def trained(request):
    """A small model, its variables, and what one compiled call of it gives."""
    name = request.param
    model, x = small(name), inputs(name)
    made = variables(model, x)

    def gradients(model, made, x):
        def objective(params):
            call = partial(model.apply, train=True, mutable=["batch_stats"])
            logits, state = call({**made, "params": params}, x)
            return jnp.sum(jnp.sin(logits)), (logits, state)

        return jax.grad(objective, has_aux=True)(made["params"])

    @jax.jit
    def compute(made, x):
        found, (logits, state) = gradients(model, made, x)
        again = gradients(model.clone(remat=True), made, x)[0] if hasattr(model, "remat") else found
        narrow = model.clone(dtype=jnp.bfloat16).apply(made, x)
        return logits, state, found, again, model.apply(made, x), narrow

    return name, made, jax.device_get(compute(made, x))


def test_logits_are_finite_and_float32(trained):
    name, _, (logits, _, _, _, evaluated, narrow) = trained
    for result in (logits, evaluated, narrow):
        assert result.shape == (3, *SMALL[name].map, 5)
        assert result.dtype == jnp.float32
        assert np.all(np.isfinite(result))


def test_training_and_evaluation_differ_where_there_is_batch_norm(trained):
    _, made, (logits, state, _, _, evaluated, _) = trained
    assert ("batch_stats" in made) == (np.abs(logits - evaluated).max() > 0.01)
    before, after = (jax.tree.leaves(tree.get("batch_stats", {})) for tree in (made, state))
    assert all(np.any(a != b) for a, b in zip(before, after, strict=True))


def test_every_parameter_receives_a_gradient(trained):
    _, _, (_, _, gradients, *_) = trained
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        rows = leaf if any(key.key == "block" for key in path) else leaf[None]
        assert np.all(np.any(rows.reshape(len(rows), -1) != 0, axis=1)), path


def test_recomputed_activations_give_the_same_gradients(trained):
    _, _, (_, _, gradients, again, _, _) = trained
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5 * scale), again, gradients)


def test_bfloat16_is_near_float32(trained):
    _, _, (_, _, _, _, evaluated, narrow) = trained
    # Each layer, and each norm, rounds its numbers by 2^-9 of them at most; the deepest here has 20.
    assert 0 < np.abs(narrow - evaluated).max() < 40 * 2**-9 * np.abs(evaluated).max()


def test_every_family_is_here():
    def families(names):
        return {models.VARIANTS[name].family for name in names}

    assert families(SMALL) == families(models.names())


# What is linear by design: heads, shortcuts, bottlenecks' ends, depthwise convolutions, stems before a pre-activation.
LINEAR = ("head", "stem", "shortcut", "depthwise", "project", "upsample", "conv", "layer1", "embedding")


@every_family
def test_the_activation_reaches_every_layer(name):
    x = inputs(name)
    model = small(name, activation="softsign")
    points = probe_points(model, shapes(model, x), x)
    chosen = [point for point in points if point.activation == "softsign"]
    linear = [point.path for point in points if point.activation == "identity"]
    gates = [point.path for point in points if point.activation in ("sigmoid", "hard_sigmoid")]
    assert len(chosen) + len(linear) + len(gates) == len(points)
    assert chosen and all(path[-3:-1] == ("squeeze", "expand") for path in gates)
    assert all(any(part.startswith(LINEAR) for part in path) for path in linear)
    text = str(jax.make_jaxpr(model.apply)(shapes(model, x), x))
    assert "softsign" in text and "relu" not in text and "tanh" not in text and "silu" not in text


@every_family
def test_the_norm_reaches_the_layers_and_its_twin_has_none(name):
    x = inputs(name)
    found = {}
    for norm in ("batch", "group", None):
        made = shapes(small(name, norm=norm), x)
        assert ("batch_stats" in made) == (norm == "batch")
        leaves = jax.tree_util.tree_leaves_with_path(made["params"])
        found[norm] = [path for path, _ in leaves if path[-1].key == "scale"]
    assert found["batch"] == found["group"] and found["batch"]
    assert not found[None]


@every_family
def test_the_twin_without_skips_has_no_other_layers(name):
    model, x = small(name), inputs(name)
    if "skip" not in models.options(name):
        assert "no skip" not in models.twins(model)
        return
    whole, twin = (set(_names(shapes(model.clone(skip=skip), x)["params"])) for skip in (True, False))
    assert twin <= whole


def _names(tree):
    return ["/".join(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
