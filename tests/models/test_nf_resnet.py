import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import functional as F
from cnnjax import initializers, models, nn
from cnnjax.models.nf_resnet import NFBlock, paper_kernels, predicted_deviations

from ..drawn import images, shapes, variables

IMAGES = images(3, 8, 8, 3)


def small(**options):
    tiny = {"depths": (3, 3), "width": 4, "stem": "cifar", "num_classes": 5}
    return models.create("nf_resnet50", **{**tiny, **options})


def paths(tree):
    return {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}


def test_predicted_deviations_are_those_of_the_recursion():
    # Brock et al. 2021a, section 4.1: Var' = Var + alpha^2, and after a block that changes the shape 1 + alpha^2.
    expected, variance = [], 1.0
    for depth in (3, 4, 6, 3):
        stage = []
        for block in range(depth):
            stage.append(np.sqrt(variance))
            variance = (1 if block == 0 else variance) + 0.3**2
        expected.append(stage)
    found = list(predicted_deviations((3, 4, 6, 3), alpha=0.3))
    assert [len(stage) for stage in found] == [3, 4, 6, 3]
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), rtol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_variance_at_initialization_is_the_predicted_one(activation):
    model = small(width=24, scan=False, activation=activation)
    x = images(8, 16, 16, 3)
    draw = variables(model, x)
    # Standardized kernels of any draw are alike; gains are 1 and biases 0, as they start.
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            jnp.ones_like(leaf)
            if path[-1].key == "gain"
            else (leaf if path[-1].key == "kernel" else 0 * leaf)
        ),
        draw["params"],
    )

    @jax.jit
    def compute(params, x):
        _, seen = model.apply({"params": params}, x, capture_intermediates=True, mutable=["intermediates"])
        seen = seen["intermediates"]
        blocks = [seen["stage1_down"], *(seen["stage1"][f"block_{i}"] for i in range(2))]
        blocks += [seen["stage2_down"], *(seen["stage2"][f"block_{i}"] for i in range(2))]
        return [block["__call__"][0].var((0, 1, 2)).mean() for block in blocks]

    found = np.array(compute(params, x)).reshape(2, 3)
    # Zero padding takes some of it away, once a stage.
    np.testing.assert_allclose(found, [[1.04, 1.08, 1.12]] * 2, rtol=0.15)
    np.testing.assert_allclose(np.diff(found), 0.04, rtol=0.35)


def block_by_hand(x, made, beta):
    """section 4.1 and appendix: alpha = 0.2; the projection reads the first activation."""

    def layer(x, name):
        p = made[name]["linear"]
        kernel = F.weight_standardize(p["kernel"], gain=F.ACTIVATIONS["silu"].variance_gain * p["gain"])
        return F.conv(x, kernel, p["bias"])

    activated = F.silu(x * beta)
    shortcut = layer(activated, "shortcut") if "shortcut" in made else x
    h = layer(F.silu(layer(F.silu(layer(activated, "layer1")), "layer2")), "layer3")
    return shortcut + 0.2 * h


@pytest.mark.parametrize("project", [False, True])
def test_a_block_is_what_its_parts_compose_to(project):
    gain = F.ACTIVATIONS["silu"].variance_gain
    block = NFBlock(
        4,
        project=project,
        conv=lambda *sizes, **options: nn.WSConv(*sizes, scale=gain, **options),
        act=lambda **options: nn.Activation("silu", **options),
    )
    x = images(2, 4, 4, 16)
    made = variables(block, x)
    assert ("shortcut" in made["params"]) == project
    found, expected = jax.jit(
        lambda made, x: (block.apply(made, x, rate=(0.7,)), block_by_hand(x, made["params"], 0.7))
    )(made, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_half_of_the_examples_lose_their_branch_and_the_others_have_it_twice():
    block, x = NFBlock(2), images(200, 2, 2, 8)
    made = variables(block, x)
    rngs = {"dropout": jax.random.key(0)}
    kept, dropped = jax.jit(
        lambda made, x: [block.apply(made, x, rate=rate, rngs=rngs) - x for rate in ((1.0,), (1.0, 0.5))]
    )(made, x)
    lost = np.all(dropped == 0, axis=(1, 2, 3))
    assert lost.mean() == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 200))
    np.testing.assert_allclose(dropped[~lost], 2 * kept[~lost], rtol=1e-3, atol=1e-5)


def test_the_rates_of_stochastic_depth_grow_by_equal_steps():
    model = small(drop_path=0.3)
    assert [rate for stage in model._rates(train=True) for _, rate in stage] == pytest.approx(
        [0.3 * i / 6 for i in range(6)]
    )
    assert all(len(rate) == 1 for stage in model._rates(train=False) for rate in stage)
    made, rngs = shapes(model, IMAGES), {"dropout": jax.random.key(0)}

    def program(net, **options):
        return str(jax.make_jaxpr(lambda made: net.apply(made, IMAGES, **options))(made))

    without = program(model.clone(drop_path=0.0))
    assert program(model) == without
    assert "random_bits" in program(model, train=True, rngs=rngs) and "random_bits" not in without


def test_written_out_or_rematerialized_it_is_the_same_network():
    model = small(depths=(4,))
    made = variables(model, IMAGES)
    unrolled, apart = model.clone(scan=False), nn.unstack(made)
    assert jax.tree.structure(shapes(unrolled, IMAGES)) == jax.tree.structure(apart)
    nets = ((model, made), (unrolled, apart), (model.clone(remat=True), made))
    found = jax.jit(
        lambda trees: [net.apply(tree, IMAGES) for (net, _), tree in zip(nets, trees, strict=True)]
    )
    scanned, *others = found([tree for _, tree in nets])
    for logits in others:
        np.testing.assert_allclose(logits, scanned, rtol=1e-4, atol=1e-5)


def test_twins():
    whole = shapes(small(), IMAGES)["params"]
    without_skips = shapes(small(skip=False), IMAGES)["params"]
    assert paths(whole) - paths(without_skips) == {
        f"['stage{stage}_down']['shortcut']['linear']['{part}']"
        for stage in (1, 2)
        for part in ("kernel", "gain", "bias")
    }
    assert not paths(without_skips) - paths(whole)
    # Nothing is added up there: no input is divided by a deviation.
    assert all(rate == (1.0,) for stage in small(skip=False)._rates(train=False) for rate in stage)
    # Norms take the place of the biases, and the kernels stay standardized.
    normed = shapes(small(norm="batch"), IMAGES)["params"]
    assert {path for path in paths(whole) - paths(normed)} == {
        path for path in paths(whole) if "['linear']['bias']" in path and "head" not in path
    }
    assert all("norm" in path for path in paths(normed) - paths(whole))


def test_skip_init_adds_one_number_a_block_and_starts_as_the_shortcuts():
    model, plain = small(skip_init=True), small()
    counts = [F.parameter_count(shapes(net, IMAGES)["params"]) for net in (model, plain)]
    assert counts[0] - counts[1] == 6
    conv = functools.partial(nn.WSConv, kernel_init="constant")
    block, x = NFBlock(2, skip_init=True, conv=conv), IMAGES.repeat(3, -1)[..., :8]
    found = jax.jit(lambda x: block.apply(block.init(jax.random.key(0), x), x))(x)
    np.testing.assert_array_equal(found, x)


def test_stem_of_the_paper():
    model, x = models.create("nf_resnet50"), jnp.zeros((1, 224, 224, 3))
    seen = jax.eval_shape(lambda v: model.apply(v, x, capture_intermediates=True)[1], shapes(model, x))[
        "intermediates"
    ]
    assert {part: seen[part]["__call__"][0].shape[1:] for part in ("stem", "pool", "stage1", "stage4")} == {
        "stem": (112, 112, 64),
        "pool": (56, 56, 64),
        "stage1": (56, 56, 256),
        "stage4": (7, 7, 2048),
    }


def test_kernels_start_as_in_the_authors_code():
    @jax.jit
    def draw(key):
        make = initializers.initializer(paper_kernels)
        return make(key, (3, 3, 64, 64), jnp.float32), make(key, (256, 200), jnp.float32)

    convolution, dense = draw(jax.random.key(0))
    assert convolution.std() == pytest.approx(1 / np.sqrt(9 * 64), rel=0.02)
    assert dense.std() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"skip_init": True, "skip": False}, "skip_init=True is for residual branches: use skip=True"),
        ({"stem": "cifr"}, "unknown stem 'cifr'; did you mean 'cifar'"),
        ({"alpha": 0.0}, "alpha is a factor and must be a positive number; got 0.0"),
        ({"depths": ()}, "depths must be a tuple of positive integers"),
        ({"drop_path": 1.5}, r"drop_path is a probability of dropping and must lie in \[0, 1\); got 1.5"),
    ],
)
def test_errors(options, text):
    with pytest.raises(ValueError, match=text):
        models.create("nf_resnet50", **options)
