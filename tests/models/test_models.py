import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import functional as F
from cnnjax import initializers, models
from cnnjax.functional.shapes import parameter_count
from cnnjax.models.base import Model
from cnnjax.nn import NORMS
from cnnjax.probes import probe_points

from ..drawn import shapes, variables
from .small import DEEP, IMAGES, SMALL, layers, leaves, small

every_model = pytest.mark.parametrize("name", SMALL)
deep_models = pytest.mark.parametrize("name", DEEP)


@every_model
def test_bfloat16_computes_in_bfloat16(name):
    model = small(name, dtype=jnp.bfloat16, norm="group")
    made = shapes(model, IMAGES)
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype(jnp.float32)}
    text = jax.jit(model.apply).lower(made, IMAGES).as_text()
    products = [
        line for line in text.splitlines() if "stablehlo.convolution" in line or "dot_general" in line
    ]
    assert products
    assert all("bf16>" in line and "xf32>" not in line for line in products)


@every_model
def test_without_a_norm_training_changes_nothing(name):
    model = small(name, norm=None)
    made = variables(model, IMAGES)
    assert set(made) == {"params"}
    text = [
        jax.jit(partial(model.apply, train=train)).lower(made, IMAGES).as_text() for train in (True, False)
    ]
    assert text[0] == text[1]


# The options that every model shares.


@every_model
def test_the_activation_reaches_every_layer(name):
    model = small(name, activation="softsign")
    points = probe_points(model, shapes(model, IMAGES), IMAGES)
    # The head and the stem before a first pre-activation have none.
    linear = {("head", "act"), ("stem", "act")} if name == "cifar_preact_resnet" else {("head", "act")}
    assert {point.path for point in points if point.activation == "identity"} == linear
    assert {point.activation for point in points if point.path not in linear} == {"softsign"}
    text = str(jax.make_jaxpr(model.apply)(shapes(model, IMAGES), IMAGES))
    assert "softsign" in text and "relu" not in text and "tanh" not in text


@every_model
@pytest.mark.parametrize("norm", NORMS)
def test_the_norm_reaches_every_layer(name, norm):
    if norm == "instance" and name in ("mlp", "lenet5", "keras_cifar_cnn"):
        with pytest.raises(ValueError, match="instance_norm takes x .* rank 3 or more"):
            shapes(small(name, norm=norm), IMAGES)
        return
    made = shapes(small(name, norm=norm), IMAGES)
    # All but the head's; the last norm of a pre-activation net is the one that its stem lacks.
    assert layers(leaves(made, "scale")) == layers(leaves(made, "kernel")) - 1
    assert ("batch_stats" in made) == (norm == "batch")
    # A bias in front of a norm would be without effect.
    linear_biases = [path for path, _ in leaves(made, "bias") if path.endswith("linear/bias")]
    assert linear_biases == ["params/head/linear/bias"]
    assert not leaves(shapes(small(name, norm=None), IMAGES), "scale")


@every_model
def test_the_initializer_and_the_gain_reach_every_kernel(name):
    def kernels(gain):
        model = small(name, initializer="constant", gain=gain)
        return leaves(model.init(jax.random.key(0), IMAGES), "kernel")

    found = jax.jit(lambda gain: [leaf for _, leaf in kernels(gain)])(3.0)
    assert len(found) == len(leaves(shapes(small(name), IMAGES), "kernel"))
    for leaf in found:
        np.testing.assert_array_equal(leaf, np.full(leaf.shape, 3, np.float32))


@pytest.mark.parametrize(
    "initializer", [jax.nn.initializers.ones, jax.nn.initializers.constant(1.0), initializers.constant]
)
def test_the_gain_is_a_factor_on_the_kernels_of_any_initializer(initializer):
    def kernels(gain):
        model = small("plain", initializer=initializer, gain=gain)
        return [leaf for _, leaf in leaves(model.init(jax.random.key(0), IMAGES), "kernel")]

    for leaf in jax.jit(kernels)(5.0):
        np.testing.assert_array_equal(leaf, np.full(leaf.shape, 5, np.float32))


def test_a_factory_takes_its_gain_from_the_activation():
    def kernels(**options):
        model = small("plain", activation="tanh", **options)
        return model.init(jax.random.key(0), IMAGES)["params"]

    named, given, truncated = jax.jit(
        lambda: [
            kernels(initializer=choice)
            for choice in (
                "he_normal",
                initializers.he_normal,
                partial(initializers.he_normal, truncated=True),
            )
        ]
    )()
    jax.tree.map(np.testing.assert_array_equal, named, given)
    # The stack's 288 draws: the largest of the plain ones lies beyond 2.27 deviations, where the truncated ones end.
    deviation = F.ACTIVATIONS["tanh"].gain / math.sqrt(9 * 4)
    largest = [np.abs(p["stack"]["block"]["layer"]["linear"]["kernel"]).max() for p in (named, truncated)]
    assert largest[0] > 2.28 * deviation > largest[1]


@every_model
def test_images_of_integers_are_refused(name):
    model, bytes_ = small(name), (IMAGES * 50 + 128).astype(jnp.uint8)
    made = variables(model, IMAGES)
    with pytest.raises(TypeError, match="must be floating point; got uint8 with dtype=None"):
        model.apply(made, bytes_)
    with pytest.raises(TypeError, match="must be floating point; got uint8 with dtype=None"):
        shapes(model, bytes_)


@every_model
def test_the_precision_reaches_every_product(name):
    model = small(name, precision="highest")
    text = jax.jit(model.apply).lower(shapes(model, IMAGES), IMAGES).as_text()
    assert "HIGHEST" in text and "precision = [DEFAULT" not in text and "precision DEFAULT" not in text


@every_model
def test_every_model_takes_the_shared_options(name):
    shared = set(models.options("plain")) & set(models.options("lenet5"))
    assert {"num_classes", "activation", "initializer", "gain", "bias_std", "norm", "dtype"} <= shared
    assert set(models.options(name)) >= shared - {"padding"}
    assert issubclass(models.VARIANTS[name].family, Model)


def test_the_gain_and_the_deviation_of_the_biases_may_be_traced():
    @jax.jit
    @jax.vmap
    def run(gain, bias_std):
        model = models.create("mlp", width=6, gain=gain, bias_std=bias_std, initializer="xavier_normal")
        made = model.init(jax.random.key(0), IMAGES)
        return made["params"], model.apply(made, IMAGES)

    params, logits = run(jnp.array([1.0, 2.0, 1.0]), jnp.array([0.0, 0.5, 1.0]))
    assert np.all(np.isfinite(logits))
    for _, leaf in leaves(params, "kernel"):
        np.testing.assert_array_equal(leaf[1], 2 * leaf[0])
        np.testing.assert_array_equal(leaf[2], leaf[0])
    for path, leaf in leaves(params, "bias"):
        assert np.all(leaf[0] == 0) and np.all(leaf[1] != 0), path
        np.testing.assert_array_equal(2 * leaf[1], leaf[2])


def test_he_takes_its_gain_from_the_activation_and_the_head_from_none():
    @jax.jit
    def draw(key):
        each = [models.create("mlp", width=6, activation=name) for name in ("relu", "tanh")]
        return [dict(leaves(model.init(key, IMAGES), "kernel")) for model in each]

    relu, tanh = draw(jax.random.key(0))
    ratio = F.ACTIVATIONS["tanh"].gain / F.ACTIVATIONS["relu"].gain
    for path in relu:
        expected = relu[path] * (1 if "/head/" in path else ratio)
        np.testing.assert_allclose(tanh[path], expected, rtol=1e-6)


# Counts of parameters.


@pytest.mark.parametrize(
    "name, options, shape, count",
    [
        # He et al. 2016, table 6, prints 0.27, 0.85 and 1.7 million. By hand for n = (depth - 2) / 6, norms included:
        # 432 + 2304 * 2n + 4608 + 9216 (2n - 1) + 18432 + 36864 (2n - 1) + 2 (16 (2n + 1) + 32 * 2n + 64 * 2n) + 650.
        ("cifar_resnet", {"depth": 20}, (32, 32, 3), 269_722),
        ("cifar_resnet", {"depth": 56}, (32, 32, 3), 853_018),
        ("cifar_resnet", {"depth": 110}, (32, 32, 3), 1_727_962),
        # As many norms of as many channels, at other places.
        ("cifar_preact_resnet", {"depth": 110}, (32, 32, 3), 1_727_962),
        # 6 (25 + 1) + 16 (6 * 25 + 1) + 120 (400 + 1) + 84 (120 + 1) + 10 (84 + 1), C3 fully connected.
        ("lenet5", {}, (32, 32, 1), 61_706),
        # TensorFlow's tutorial on CNNs prints 896, 18,496, 36,928, 65,600 and 650.
        ("keras_cifar_cnn", {}, (32, 32, 3), 122_570),
        # Glorot & Bengio 2010, 5 hidden layers of 1,000: 784 * 1000 + 4 * 1000^2 + 1000 * 10 weights, 5,010 biases.
        ("mlp", {"depth": 6, "width": 1000}, (28, 28, 1), 4_799_010),
        # 16 (9 + 1) + 8 * 16 (144 + 1) + 10 (8 * 8 * 16 + 1).
        ("plain", {"depth": 10}, (8, 8, 1), 28_970),
    ],
)
def test_golden_parameter_counts(name, options, shape, count):
    made = shapes(models.create(name, **options), jnp.zeros((1, *shape)))
    assert parameter_count(made["params"]) == count


@deep_models
def test_the_twin_with_and_without_skips_has_the_same_parameters(name):
    variants = [small(name, skip=skip, norm="batch") for skip in (True, False)]
    assert shapes(variants[0], IMAGES) == shapes(variants[1], IMAGES)


@deep_models
def test_a_skip_is_another_program(name):
    programs = [jax.make_jaxpr(small(name, skip=skip).apply) for skip in (True, False)]
    made = shapes(small(name), IMAGES)
    additions = [str(program(made, IMAGES)).count("= add") for program in programs]
    assert additions[0] > additions[1]


@deep_models
def test_depth_counts_the_layers_with_weights(name):
    depth = DEEP[name]
    made = shapes(small(name, depth=depth), IMAGES)
    assert layers(leaves(made, "kernel")) == depth


@deep_models
@pytest.mark.parametrize("depth", [1000, 10_000])
def test_a_thousand_layers_are_as_easy_as_ten(name, depth):
    depth = 6 * (depth // 6) + 2

    def program(depth):
        model = small(name, depth=depth, remat=True)
        made = shapes(model, IMAGES)
        gradient = jax.grad(
            lambda params, rest: jnp.sum(model.apply({"params": params, **rest}, IMAGES, train=False))
        )
        rest = {key: tree for key, tree in made.items() if key != "params"}
        return layers(leaves(made, "kernel")), str(jax.make_jaxpr(gradient)(made["params"], rest)).count(
            " = "
        )

    count, size = program(depth)
    assert count == depth
    # At depth 140 no stack's length fills its chunks (see `Stack`): the largest program that there is.
    assert size <= program(140)[1]


@pytest.mark.parametrize("name, remat", [("mlp", True), ("cifar_resnet", False)])
def test_written_out_it_is_the_same_network(name, remat):
    scanned = small(name, remat=remat, depth=DEEP[name])
    unrolled = scanned.clone(scan=False)
    made = variables(scanned, IMAGES)
    apart = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes(unrolled, IMAGES))

    def fill(path, leaf):
        keys = [key.key for key in path]
        place = next((i for i, key in enumerate(keys) if key.startswith("block_")), None)
        if place is None:
            return _at(made, keys)
        index = int(keys[place].removeprefix("block_"))
        return _at(made, [*keys[:place], "block", *keys[place + 1 :]])[index]

    apart = jax.tree_util.tree_map_with_path(fill, apart)
    expected, actual = jax.jit(lambda a, b: (scanned.apply(a, IMAGES), unrolled.apply(b, IMAGES)))(
        made, apart
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def _at(tree, keys):
    for key in keys:
        tree = tree[key]
    return tree


# Each model against its paper.


def test_lenet_on_its_paper_sizes():
    made = shapes(models.create("lenet5"), jnp.zeros((1, 32, 32, 1)))["params"]
    kernels = {path.split("/")[0]: leaf.shape for path, leaf in leaves(made, "kernel")}
    assert kernels == {
        "c1": (5, 5, 1, 6),
        "c3": (5, 5, 6, 16),
        "c5": (400, 120),
        "f6": (120, 84),
        "head": (84, 10),
    }


def test_circular_padding_knows_no_border():
    model = small("plain", padding="CIRCULAR", activation="tanh")
    made = variables(model, IMAGES)
    kernel = made["params"]["head"]["linear"]["kernel"]
    made["params"]["head"]["linear"]["kernel"] = jnp.broadcast_to(kernel[:4][None], (64, 4, 5)).reshape(
        256, 5
    )
    apply = jax.jit(model.apply)
    moved = jnp.roll(IMAGES, (3, 2), (1, 2))
    np.testing.assert_allclose(apply(made, moved), apply(made, IMAGES), rtol=1e-4, atol=1e-4)
