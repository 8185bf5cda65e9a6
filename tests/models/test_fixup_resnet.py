import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import functional as F
from cnnjax import models, nn

from ..drawn import images, shapes, variables

IMAGES = images(3, 8, 8, 3)
TINY = {"depths": (2, 2), "width": 4, "num_classes": 5}
both = pytest.mark.parametrize("name", ["fixup_resnet50", "fixup_resnet110"])


def small(name, **options):
    return models.create(name, **{**TINY, "stem": "cifar", **options})


def paths(tree):
    return {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}


def conv(x, made, stride=1):
    kernel = made["linear"]["kernel"]
    return F.conv(x, kernel, stride=stride, padding=(kernel.shape[0] - 1) // 2)


def block_by_hand(x, p, stride, layers):
    """As in the authors' code: bias1a in front of the first convolution and of the shortcut that changes the shape."""
    shifted = h = x + p["shift"]["bias"]
    for i in range(1, layers + 1):
        own = p[f"layer{i}"]
        if i > 1:
            h = h + own["shift_in"]["bias"]
        # The stride is in the first 3x3.
        z = conv(h, own, stride if i == layers - 1 else 1)
        if i == layers:
            z = z * own["multiplier"]["factor"]
        h = z + own["shift"]["bias"]
        h = F.relu(h) if i < layers else h
    if "shortcut" in p:
        x = conv(shifted, p["shortcut"], stride)
    elif h.shape != x.shape:
        thinned = shifted[:, ::2, ::2]
        x = jnp.concatenate([thinned, jnp.zeros_like(thinned)], -1)
    return F.relu(h + x)


def by_hand(params, x, layers):
    x = F.relu(conv(x, params["stem"]) + params["stem"]["shift"]["bias"])
    for stage in (1, 2):
        blocks = [
            *([params[f"stage{stage}_down"]] if f"stage{stage}_down" in params else []),
            *params[f"stage{stage}"].values(),
        ]
        for i, block in enumerate(blocks):
            x = block_by_hand(x, block, 2 if stage == 2 and i == 0 else 1, layers)
    x = x.mean((1, 2)) + params["head_shift"]["bias"]
    return x @ params["head"]["linear"]["kernel"] + params["head"]["linear"]["bias"].reshape(1, -1)


@pytest.mark.parametrize("name, layers", [("fixup_resnet50", 3), ("fixup_resnet110", 2)])
def test_scanned_and_written_out_it_is_the_network_of_the_authors(name, layers):
    model = small(name)
    made = variables(model, IMAGES)
    apart = nn.unstack(made)
    unrolled = model.clone(scan=False)
    assert jax.tree.structure(shapes(unrolled, IMAGES)) == jax.tree.structure(apart)
    scanned, written, expected = jax.jit(
        lambda made, apart, x: (
            model.apply(made, x),
            unrolled.apply(apart, x),
            by_hand(apart["params"], x, layers),
        )
    )(made, apart, IMAGES)
    np.testing.assert_allclose(scanned, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(written, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name, layers", [("fixup_resnet50", 3), ("fixup_resnet110", 2)])
def test_kernels_start_as_in_the_paper(name, layers):
    # Kernels of ones show their factors: L^(-1 / (2 m - 2)), L = 4 branches of m layers, but for the last one, 0.
    model = small(name, initializer="constant")
    made = jax.jit(model.init)(jax.random.key(0), IMAGES)["params"]
    expected = {f"layer{i}": 4 ** (-1 / (2 * layers - 2)) for i in range(1, layers)}
    expected |= {f"layer{layers}": 0, "head": 0, "stem": 1, "shortcut": 1}
    for path, leaf in jax.tree_util.tree_leaves_with_path(made):
        if path[-1].key == "kernel":
            np.testing.assert_allclose(leaf, expected[path[-3].key], rtol=1e-6)
        else:
            np.testing.assert_array_equal(leaf, 1 if path[-1].key == "factor" else 0)


@both
def test_the_twin_without_skips_has_no_projections_and_unscaled_kernels(name):
    whole, twin = (shapes(small(name, skip=skip), IMAGES)["params"] for skip in (True, False))
    projections = {path for path in paths(whole) if "['shortcut']" in path}
    assert len(projections) == {"fixup_resnet50": 2, "fixup_resnet110": 0}[name]
    assert paths(whole) - paths(twin) == projections and not paths(twin) - paths(whole)
    model = small(name, skip=False, initializer="constant")
    made = jax.jit(model.init)(jax.random.key(0), IMAGES)["params"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(made):
        assert path[-1].key != "kernel" or np.all(leaf == 1)


@both
def test_norms_stand_behind_the_convolutions_and_the_shifts_remain(name):
    bare, normed = (paths(shapes(small(name, norm=norm), IMAGES)["params"]) for norm in (None, "batch"))
    kernels = {path for path in bare if "['kernel']" in path and "['head']" not in path}
    added = {
        path.replace("['linear']['kernel']", f"['norm']['{p}']")
        for path in kernels
        for p in ("scale", "bias")
    }
    assert normed - bare == added and not bare - normed


@pytest.mark.slow
@both
def test_a_step_of_the_kernels_changes_the_function_as_much_at_any_depth(name):
    def change(blocks):
        model = small(name, width=8, depths=(blocks, blocks))
        params = model.init(jax.random.key(0), IMAGES)["params"]
        # A classifier of zeros lets no gradient through.
        params["head"]["linear"]["kernel"] = images(*params["head"]["linear"]["kernel"].shape)

        def logits(params):
            return model.apply({"params": params}, IMAGES)

        gradient = jax.grad(lambda params: logits(params).sum())(params)
        step = jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf if path[-1].key == "kernel" and path[0].key != "head" else 0 * leaf,
            gradient,
        )
        return jnp.linalg.norm(jax.jvp(logits, (params,), (step,))[1])

    shallow, deep = jax.jit(lambda: (change(2), change(16)))()
    assert 0.5 < deep / shallow < 2


def test_biases_may_be_drawn():
    model = small("fixup_resnet110", depths=(1,), initializer="constant", bias_std=0.5)
    made = jax.jit(model.init)(jax.random.key(0), IMAGES)["params"]
    biases = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(made) if path[-1].key == "bias"]
    # Of the stem, 4 of the block, in front of the head, and the head's own.
    assert len(biases) == 7 and all(np.all(leaf != 0) for leaf in biases)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"block": "botleneck"}, "unknown block 'botleneck'; did you mean 'bottleneck'"),
        ({"shortcut": "padding"}, "unknown shortcut 'padding'.*projection, zeros"),
        ({"stem": "cifr"}, "unknown stem 'cifr'; did you mean 'cifar'"),
        ({"branch_scale": "fixpu"}, "unknown branch_scale 'fixpu'; did you mean 'fixup'"),
        ({"depths": (2, 0)}, r"depths must be a tuple of positive integers .*; got \(2, 0\)"),
    ],
)
def test_errors(options, text):
    with pytest.raises(ValueError, match=text):
        models.create("fixup_resnet50", **options)
