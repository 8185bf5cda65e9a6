import math
from functools import partial

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models, nn
from cnnjax.probes import jacobian_spectrum, layer_jacobians
from cnnjax.probes.jacobian import JACOBIAN_COLUMNS

from ..drawn import images, variables

IMAGE = images(4, 4, 2)


def net(name, **options):
    options = {"num_classes": 5, "width": 4, "activation": "tanh", **options}
    model = models.create(name, **options)
    return model, variables(model, IMAGE[None])


def by_hand(params, x):
    """Pre-activations and layer Jacobians of a tanh MLP in float64, row vectors: z' = tanh(z) W + b."""
    stack = params["stack"]["block"]["layer"]["linear"]
    linear = [params["stem"]["linear"]]
    linear += [jax.tree.map(lambda a, i=i: a[i], stack) for i in range(len(stack["kernel"]))]
    linear += [params["head"]["linear"]]
    z, slope, jacobians = np.asarray(x, np.float64).ravel(), 1.0, []
    y = z
    for layer in linear:
        kernel = np.asarray(layer["kernel"], np.float64)
        jacobians.append(np.broadcast_to(slope, len(kernel))[:, None] * kernel)
        z = y @ kernel + np.asarray(layer["bias"], np.float64)
        y, slope = np.tanh(z), 1 - np.tanh(z) ** 2
    return jacobians


def singular(*jacobians):
    product = jacobians[0]
    for jacobian in jacobians[1:]:
        product = product @ jacobian
    return np.linalg.svd(product, compute_uv=False)


MLP = net("mlp", depth=5, width=6)


@pytest.mark.parametrize(
    ("start", "end", "factors"),
    [
        (None, None, slice(0, 5)),
        ("stem", None, slice(1, 5)),
        ("stem", "stack[0]/layer", slice(1, 2)),
        ("stack[0]/layer", "stack[2]/layer", slice(2, 4)),
        (None, "stack[1]/layer", slice(0, 3)),
    ],
)
def test_between_any_two_layers(start, end, factors):
    model, made = MLP
    expected = singular(*by_hand(made["params"], IMAGE)[factors])
    spectrum = jax.jit(lambda v, x: jacobian_spectrum(model, v, x, start=start, end=end))(made, IMAGE)
    np.testing.assert_allclose(spectrum.values, expected, rtol=1e-4, atol=1e-6)
    top = jacobian_spectrum(model, made, IMAGE, start=start, end=end, k=2)
    np.testing.assert_allclose(top.values, expected[:2], rtol=1e-4)


def test_single_layers():
    model, made = MLP
    table = jax.jit(partial(layer_jacobians, model))(made, IMAGE)
    expected = [singular(jacobian) for jacobian in by_hand(made["params"], IMAGE)]
    frame = table.frame().set_index("path")
    assert list(frame.columns) == list(JACOBIAN_COLUMNS)
    assert list(frame.index) == ["stem", *(f"stack[{i}]/layer" for i in range(3)), "head"]
    np.testing.assert_allclose(frame["mean"], [s.mean() for s in expected], rtol=1e-5)
    np.testing.assert_allclose(frame["maximum"], [s.max() for s in expected], rtol=1e-5)
    np.testing.assert_allclose(frame["median"], [np.median(s) for s in expected], rtol=1e-4)
    some = layer_jacobians(model, made, IMAGE, layers=["head", "stack[1]/layer"]).frame()
    np.testing.assert_allclose(some["mean"], frame.loc[["head", "stack[1]/layer"], "mean"], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [("plain", {"remat": True}), ("plain", {"scan": False}), ("cifar_preact_resnet", {"scan": False})],
)
def test_how_a_stack_runs_changes_nothing(name, options):
    def written_out(tree):
        if not isinstance(tree, dict):
            return tree
        if set(tree) == {"block"}:
            tree = nn.unstack(tree)
        return {key: written_out(child) for key, child in tree.items()}

    model, made = net(name, depth=4 if name == "plain" else 14, norm="batch")
    other = made if options.get("scan", True) else written_out(made)
    start, end = ("stem", "stack[1]/layer") if name == "plain" else ("stage1[0]/layer2", "stage3[0]/layer1")
    expected, values = (
        jax.jit(lambda v, m=m: jacobian_spectrum(m, v, IMAGE, start=start, end=end).values)(v)
        for m, v in ((model, made), (model.clone(**options), other))
    )
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5 * expected[0])


def test_a_shortcut_belongs_to_the_layer():
    """Identity activations: z' = z + z W, whatever the stack does."""
    model = models.create("mlp", depth=4, width=6, activation="identity", skip=True)
    made = variables(model, IMAGE[None])
    kernels = made["params"]["stack"]["block"]["layer"]["linear"]["kernel"]
    found = layer_jacobians(model, made, IMAGE, layers=["stack[0]/layer", "stack[1]/layer"]).frame()
    expected = [singular(np.eye(6) + np.asarray(kernel, np.float64)) for kernel in kernels]
    np.testing.assert_allclose(found["mean"], [s.mean() for s in expected], rtol=1e-5)


def test_a_net_without_stem_starts_in_its_stack():
    class Block(linen.Module):
        @linen.compact
        def __call__(self, x, *, train=False):
            return nn.Layer(partial(nn.Dense, 3), act=partial(nn.Activation, "tanh"), name="layer")(x)

    model, x = nn.Stack(Block, 3), images(3)
    made = variables(model, x[None])
    table = layer_jacobians(model, made, x).frame()
    assert list(table["path"]) == ["[0]/layer", "[1]/layer", "[2]/layer"]
    kernel = made["params"]["block"]["layer"]["linear"]["kernel"][0]
    assert table["maximum"][0] == pytest.approx(singular(np.asarray(kernel))[0], rel=1e-5)


def test_images_by_vmap():
    model, made = MLP
    many = images(3, 4, 4, 2, seed=5)
    values = jax.vmap(lambda x: jacobian_spectrum(model, made, x, k=1).values)(many)
    expected = [singular(*by_hand(made["params"], x))[0] for x in many]
    np.testing.assert_allclose(values[:, 0], expected, rtol=1e-4)
    tables = jax.vmap(lambda x: layer_jacobians(model, made, x, layers=["stem"]))(many)
    with pytest.raises(ValueError, match="select one entry first"):
        tables.frame()


# The papers.


def wide_mlp(rng, *, depth, kernel, activation="tanh", bias=0.0, width=256, inputs=256):
    """An MLP whose kernels `kernel(rng, n)` makes, drawn with NumPy."""
    options = dict(depth=depth, width=width, activation=activation)
    model = models.create("mlp", **options)
    image = jnp.asarray(rng.normal(size=inputs), jnp.float32)

    def draw(path, leaf):
        if path[-1].key == "bias":
            return jnp.asarray(rng.normal(0, bias, leaf.shape), jnp.float32)
        if leaf.shape[-1] != width:
            return jnp.zeros(leaf.shape)
        stacked = leaf.shape[0] if leaf.ndim == 3 else 1
        kernels = np.stack([kernel(rng, width) for _ in range(stacked)])
        return jnp.asarray(kernels.reshape(leaf.shape), jnp.float32)

    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image[None]))
    return model, jax.tree_util.tree_map_with_path(draw, shapes), image


def orthogonal(rng, n):
    q, r = np.linalg.qr(rng.normal(size=(n, n)))
    return q * np.sign(np.diag(r))


def gaussian(rng, n):
    return rng.normal(size=(n, n)) / math.sqrt(n)


Q_STAR = 0.02587
"""Of tanh at (1.05, 2e-5): the table of the critical line in papers.md."""


def through_64_layers(rng, kernel, **options):
    model, made, image = wide_mlp(rng, depth=66, kernel=kernel, **options)
    image = image * math.sqrt((Q_STAR - 2e-5) / 1.05)
    run = partial(jacobian_spectrum, model, start="stem", end="stack[63]/layer")
    return jax.jit(run)(made, image)


def test_isometry_of_orthogonal_tanh(rng):
    """Pennington et al. 2017: 64 layers of width 256 at (1.05, 2e-5).

    papers.md accepts s_max / s_median <= 2 and prints 1.41 without the input's q. From q* on, five draws in float64 NumPy
    gave 1.53 to 1.60.
    """
    scale = math.sqrt(1.05)
    spectrum = through_64_layers(rng, lambda r, n: scale * orthogonal(r, n), bias=math.sqrt(2e-5))
    assert 1.4 < spectrum.maximum / spectrum.median < 1.75
    # On the critical line the mean square keeps 1, to sqrt(depth / width) of the draw.
    assert abs(spectrum.log10_mean_square) < 0.1


def test_isometry_of_gaussian_tanh(rng):
    # papers.md: above 1e7. In float32 the median lies below what the maximum's rounding resolves.
    spectrum = through_64_layers(rng, gaussian)
    assert spectrum.maximum / spectrum.median > 1e6


def test_isometry_of_linear_orthogonal(rng):
    spectrum = through_64_layers(rng, orthogonal, activation="identity")
    # 64 products in float32.
    np.testing.assert_allclose(spectrum.values, 1, atol=1e-5)


@pytest.mark.parametrize(
    ("variance", "second_moment", "expected", "tolerance"),
    # Near the origin the mean of a Gaussian kernel's singular values, 8 / (3 pi), to 1 / width; and at the input's second
    # moment of normalized digits 0.80 +- 0.05 (papers.md).
    [(1 / 3, 1e-4, 8 / (3 * math.pi) / math.sqrt(3), 0.005), (1.0, 0.1, 0.80, 0.05)],
)
def test_layers_of_glorot_2010(rng, variance, second_moment, expected, tolerance):
    half = math.sqrt(3 * variance / 256)
    model, made, image = wide_mlp(rng, depth=4, kernel=lambda r, n: r.uniform(-half, half, (n, n)))
    table = layer_jacobians(
        model, made, image * math.sqrt(second_moment), layers=["stack[0]/layer", "stack[1]/layer"]
    )
    np.testing.assert_allclose(table.frame()["mean"], expected, atol=tolerance)


# Bad input.


def test_images_that_do_not_fit():
    model, made = net("plain", depth=3)
    with pytest.raises(ValueError, match=r"does not take an image of shape \(1, 4, 4, 2\): give one example"):
        jacobian_spectrum(model, made, IMAGE[None])
    with pytest.raises(ValueError, match=r"does not take an image of shape \(4, 4, 3\)"):
        layer_jacobians(model, made, images(4, 4, 3))
    with pytest.raises(TypeError, match="the image must be floating point; got int32"):
        jacobian_spectrum(model, made, jnp.ones((4, 4, 2), jnp.int32))


def test_layers_that_do_not_exist():
    model, made = MLP
    with pytest.raises(
        ValueError, match=r"unknown layer 'stack\[9\]/layer'; did you mean 'stack\[\d\]/layer'"
    ):
        jacobian_spectrum(model, made, IMAGE, start="stack[9]/layer")
    with pytest.raises(ValueError, match="unknown layer 'hed'; did you mean 'head'"):
        layer_jacobians(model, made, IMAGE, layers=["hed"])
    with pytest.raises(ValueError, match="name one layer or more"):
        layer_jacobians(model, made, IMAGE, layers=[])
    for end in ("stem", "stack[0]/layer"):
        with pytest.raises(
            ValueError, match=f"end must come after start; got start='stack\\[0\\]/layer'.*{end[:4]}"
        ):
            jacobian_spectrum(model, made, IMAGE, start="stack[0]/layer", end=end)
    with pytest.raises(ValueError, match="has 5 singular values; got k=6"):
        jacobian_spectrum(model, made, IMAGE, k=6)


def test_a_model_without_probe_points():
    model = linen.Dense(3)
    with pytest.raises(ValueError, match="does not take an image"):
        jacobian_spectrum(model, variables(model, IMAGE[None]), IMAGE)

    class Bare(linen.Module):
        @linen.compact
        def __call__(self, x, *, train=False):
            return linen.Dense(3)(x)

    with pytest.raises(ValueError, match="Bare has no probe point: use cnnjax.nn.Activation"):
        jacobian_spectrum(Bare(), variables(Bare(), IMAGE[None]), IMAGE)
