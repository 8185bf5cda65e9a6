import math
from functools import partial

import flax.linen as linen
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

from ..drawn import images, shapes, variables

# What makes each model small; a new one needs its line here.
SMALL = {
    "keras_cifar_cnn": {"padding": "SAME"},
    "lenet5": {"padding": "SAME"},
    "mlp": {"depth": 4, "width": 8},
    "plain": {"depth": 4, "width": 4},
    "cifar_preact_resnet": {"depth": 8, "width": 4},
    "cifar_resnet": {"depth": 8, "width": 4},
}
DEEP = {"mlp": 7, "plain": 7, "cifar_preact_resnet": 14, "cifar_resnet": 14}
IMAGES = images(3, 8, 8, 3)
every_model = pytest.mark.parametrize("name", SMALL)
deep_models = pytest.mark.parametrize("name", DEEP)


def small(name, **options):
    return models.create(name, **{**SMALL[name], "num_classes": 5, **options})


def leaves(tree, last):
    """The arrays of that name, with their paths."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return [("/".join(k.key for k in path), leaf) for path, leaf in found if path[-1].key == last]


def layers(found):
    """How many layers they belong to: stacked ones count each."""
    return sum(leaf.shape[0] if "/block/" in path else 1 for path, leaf in found)


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


def test_resnet_halves_the_image_twice_and_doubles_its_channels():
    model = models.create("cifar_resnet", depth=14)
    made = shapes(model, jnp.zeros((2, 32, 32, 3)))
    captured = jax.eval_shape(
        lambda made: model.apply(made, jnp.zeros((2, 32, 32, 3)), capture_intermediates=True)[1], made
    )["intermediates"]
    assert {
        stage: captured[stage]["__call__"][0].shape for stage in ("stem", "stage1", "stage2", "stage3")
    } == {
        "stem": (2, 32, 32, 16),
        "stage1": (2, 32, 32, 16),
        "stage2": (2, 16, 16, 32),
        "stage3": (2, 8, 8, 64),
    }


def test_a_preactivation_net_keeps_the_identity_clean():
    # With branches of zeros only the stem and the shortcuts are left: option A pads with zeros.
    model = small("cifar_preact_resnet", norm=None, activation="identity")
    made = variables(model, IMAGES)
    params = {
        part: tree if part in ("stem", "head") else jax.tree.map(jnp.zeros_like, tree)
        for part, tree in made["params"].items()
    }
    features, head = jax.jit(
        lambda params: (
            F.conv(IMAGES, params["stem"]["linear"]["kernel"], params["stem"]["linear"]["bias"]),
            model.apply({"params": params}, IMAGES),
        )
    )(params)
    pooled = features[:, ::4, ::4].mean((1, 2))
    # 4 channels become 8, then 16: 2 and then 4 new ones in front.
    kernel = params["head"]["linear"]["kernel"][6:10]
    np.testing.assert_allclose(
        head, pooled @ kernel + params["head"]["linear"]["bias"].reshape(1, -1), rtol=1e-4
    )


# How the residual branches start.

residual_models = pytest.mark.parametrize("name", ["cifar_preact_resnet", "cifar_resnet"])


@residual_models
@pytest.mark.parametrize("branch_scale", ["skipinit", "fixup"])
def test_a_network_that_starts_as_its_skips_has_branches_of_zero(name, branch_scale):
    model = small(name, norm=None, depth=14, branch_scale=branch_scale)

    @jax.jit
    def compute():
        made = model.init(jax.random.key(0), IMAGES)["params"]
        without = {
            part: jax.tree.map(jnp.zeros_like, tree) if part.startswith("stage") else tree
            for part, tree in made.items()
        }
        return made, model.apply({"params": made}, IMAGES), model.apply({"params": without}, IMAGES)

    made, logits, without = compute()
    assert np.all(np.any(logits != 0, axis=0))
    np.testing.assert_array_equal(logits, without)
    # The branches are there: their first kernels are not zero.
    assert all(np.all(leaf.std() > 0.01) for path, leaf in leaves(made, "kernel") if "layer1" in path)


def test_with_fixup_a_step_changes_the_function_as_much_at_any_depth():
    # Zhang et al. 2019, section 3: without it, the change is 200 times as large in the deeper network.
    def change(depth):
        model = small("cifar_resnet", norm=None, depth=depth, branch_scale="fixup")
        params = model.init(jax.random.key(0), IMAGES)["params"]

        def logits(params):
            return model.apply({"params": params}, IMAGES)

        gradient = jax.grad(lambda params: logits(params).sum())(params)
        # The derivative along the step: the change per learning rate as that goes to 0.
        return jnp.linalg.norm(jax.jvp(logits, (params,), (gradient,))[1])

    shallow, deep = jax.jit(lambda: (change(8), change(32)))()
    assert 0.5 < deep / shallow < 2


@residual_models
def test_a_branch_scale_adds_one_number_a_block(name):
    counts = [
        parameter_count(shapes(small(name, depth=20, branch_scale=scale), IMAGES)["params"])
        for scale in (None, "skipinit")
    ]
    assert counts[1] - counts[0] == 9


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


# What cannot be built.


@pytest.mark.parametrize(
    "name, options, text",
    [
        (
            "lenet",
            {},
            "unknown model 'lenet'; did you mean 'lenet5'",
        ),
        (
            "plain",
            {"dept": 3},
            "unknown option of plain 'dept'; did you mean 'depth'. Known: activation, bias_std",
        ),
        ("lenet5", {"depth": 3}, "unknown option of lenet5 'depth'"),
        ("plain", {"name": "x"}, "unknown option of plain 'name'"),
        ("plain", {"activation": "rleu"}, "unknown activation 'rleu'; did you mean 'relu'"),
        ("lenet5", {"initializer": "xavier"}, "unknown initializer 'xavier'; did you mean 'xavier_"),
        (
            "mlp",
            {"norm": "bach"},
            "unknown norm 'bach'; did you mean 'batch'. Known: batch, channel, group, instance, layer",
        ),
        ("plain", {"depth": -3}, "depth counts the layers with weights and must be an integer >= 2; got -3"),
        ("mlp", {"depth": 1}, "must be an integer >= 2; got 1"),
        ("mlp", {"depth": 3.0}, "must be an integer >= 2; got 3.0"),
        ("cifar_resnet", {"depth": 21}, r"depth 6n \+ 2 with n >= 1 \(8, 14, 20, 26, 32, ...\); got 21"),
        ("cifar_preact_resnet", {"depth": 2}, r"depth 6n \+ 2 with n >= 1 .*; got 2"),
        ("plain", {"width": 0}, "width must be a positive integer; got 0"),
        ("cifar_resnet", {"width": -4}, "width must be a positive integer; got -4"),
        ("mlp", {"width": 2.5}, "width must be a positive integer; got 2.5"),
        ("mlp", {"depth": True}, "must be an integer >= 2; got True"),
        ("plain", {"width": True}, "width must be a positive integer; got True"),
        ("plain", {"window": 0}, "window must be a positive integer; got 0"),
        ("plain", {"padding": "REFLECT"}, "unknown padding 'REFLECT': use 'VALID', 'SAME'"),
        ("lenet5", {"padding": -1}, "padding must not be negative, got -1"),
        ("keras_cifar_cnn", {"padding": "RELFECT"}, "unknown padding 'RELFECT'"),
        ("lenet5", {"num_classes": 2.5}, "num_classes must be a positive integer; got 2.5"),
        (
            "cifar_resnet",
            {"branch_scale": "skipint"},
            "unknown branch_scale 'skipint'; did you mean 'skipinit'",
        ),
        (
            "cifar_resnet",
            {"branch_scale": "fixup", "skip": False},
            "branch_scale='fixup' is for residual branches",
        ),
        ("lenet5", {"num_classes": 0}, "num_classes must be a positive integer; got 0"),
    ],
)
def test_errors_of_create(name, options, text):
    with pytest.raises(ValueError, match=text):
        models.create(name, **options)


@pytest.mark.parametrize(
    "name, options, text",
    [
        ("plain", {"padding": 2.5}, "padding must be 'VALID', 'SAME'.*, got 2.5"),
        ("plain", {"norm": 3}, "the name of the norm must be a string, got 3"),
        ("cifar_resnet", {"norm": False}, "the name of the norm must be a string, got False"),
        ("mlp", {"initializer": 3}, "the name of the initializer must be a string, got 3"),
        ("mlp", {"activation": None}, "the name of the activation must be a string, got None"),
        ("plain", {"dtype": "bfloat17"}, "dtype must be a floating-point type .*; got 'bfloat17'"),
        ("plain", {"dtype": jnp.int32}, "dtype must be a floating-point type .*; got .*int32"),
        ("plain", {"skip": "no"}, "skip must be True or False; got 'no'"),
        ("cifar_resnet", {"scan": 1}, "scan must be True or False; got 1"),
        ("mlp", {"remat": None}, "remat must be True or False; got None"),
    ],
)
def test_type_errors_of_create(name, options, text):
    with pytest.raises(TypeError, match=text):
        models.create(name, **options)


def test_options_from_numpy():
    options = {"width": np.int32(4), "num_classes": np.int64(5), "skip": np.True_}
    expected = shapes(small("cifar_resnet", depth=14), IMAGES)
    assert shapes(small("cifar_resnet", depth=np.int64(14), **options), IMAGES) == expected
    made = shapes(small("plain", depth=np.int64(5), dtype="bfloat16", **options), IMAGES)
    assert layers(leaves(made, "kernel")) == 5


@pytest.mark.parametrize("padding", ["same", 1, ((2, 0), (1, 1))])
def test_every_form_of_padding(padding):
    shapes(small("plain", padding=padding), IMAGES)


@pytest.mark.parametrize("name", ["plain", "cifar_resnet"])
def test_delta_orthogonal_kernels_need_as_many_outputs_as_inputs(name):
    model = small(name, width=2, initializer="delta_orthogonal")
    with pytest.raises(ValueError, match="at least as many outputs as inputs, got 3 inputs and 2 outputs"):
        shapes(model, IMAGES)
    # A dense kernel has no center: there it is the orthogonal one, whatever the sizes.
    shapes(small("plain", width=4, initializer="delta_orthogonal"), IMAGES)
    shapes(small("mlp", width=2, initializer="delta_orthogonal"), IMAGES)


def test_images_that_are_too_small():
    for name in ("keras_cifar_cnn", "lenet5"):
        with pytest.raises(ValueError, match="(kernel|window) larger than the padded input"):
            shapes(models.create(name), IMAGES)


def test_a_model_made_by_hand_is_checked_too():
    with pytest.raises(ValueError, match="must be an integer >= 2; got 0"):
        shapes(models.VARIANTS["plain"].family(depth=0), IMAGES)


def test_options_are_listed_with_their_defaults():
    assert models.options("cifar_resnet")["depth"] == 20
    assert models.options("lenet5")["activation"] == "tanh"
    assert not {"name", "parent"} & set(models.options("plain"))
    assert isinstance(models.create("plain"), linen.Module)
