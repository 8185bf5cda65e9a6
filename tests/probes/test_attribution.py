import math
from functools import partial

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import functional as F
from cnnjax import models, nn
from cnnjax.probes import attribute_gradient, gradient_flow
from cnnjax.probes.attribution import _isometries
from cnnjax.probes.parts import Layout, find_parts
from cnnjax.probes.replacement import FACTORS, ISOMETRIES, SWITCHES, _frozen_slope, replacing

from ..drawn import images, variables

IMAGES, LABELS = images(8, 8, 8, 2), jnp.arange(8) % 5


def net(name="plain", *, gain=1.0, **options):
    model = models.create(name, **{"width": 16, "num_classes": 5, **options})
    return model, variables(model, IMAGES, gain=gain)


def table(model, made, **options):
    return attribute_gradient(model, made, IMAGES, LABELS, **options)


def by_kind(model, made):
    found = table(model, made, by_layer=False)
    return dict(zip(found["kind"], found["change"], strict=True))


def without_biases(made):
    return jax.tree_util.tree_map_with_path(
        lambda p, a: jnp.zeros_like(a) if p[-1].key == "bias" else a, made
    )


# The forward pass.


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain", {"depth": 5, "norm": "batch", "skip": True}),
        ("plain", {"depth": 5, "activation": "prelu", "remat": True}),
        ("cifar_preact_resnet", {"depth": 8, "norm": "group"}),
        ("resnet50", {"depths": (1, 1), "stem": "cifar"}),
        ("preact_resnet50", {"depths": (1, 1), "stem": "cifar"}),
    ],
)
def test_the_forward_pass_stays_as_it_is(name, options):
    model, made = net(name, width=4, **options)
    layout = Layout.of(*find_parts(model, made, IMAGES, train=True, rngs={}))
    extra = {
        FACTORS: layout.tree(np.full(layout.size, 0.7, np.float32)),
        ISOMETRIES: _isometries(layout, made),
    }

    def forward(made, images, switch):
        switches = {SWITCHES: layout.tree(jnp.broadcast_to(switch, layout.size))}
        with linen.intercept_methods(replacing):
            return model.apply({**made, **extra, **switches}, images, train=True, mutable=["batch_stats"])

    run = jax.jit(forward)
    plain = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))(made, IMAGES)
    for switch in (0.0, 1.0):
        jax.tree.map(np.testing.assert_array_equal, run(made, IMAGES, jnp.float32(switch)), plain)


@pytest.mark.parametrize("options", [{"depth": 5}, {"depth": 5, "norm": "layer", "skip": True}])
def test_untouched_it_is_the_gradient_of_the_flow(options):
    model, made = net(width=4, **options)
    flow = jax.jit(lambda v: gradient_flow(model, v, IMAGES, LABELS))(made).frame()
    found = table(model, made, by_layer=False).iloc[0]
    assert (found["kind"], found["change"]) == ("none", 0)
    expected = flow["gradient_log10_second_moment"][0]
    assert found["gradient_log10_second_moment"] == pytest.approx(expected, abs=1e-5)


# What the replacements do.


def test_isometries_keep_the_norm():
    """Identity activations and no biases: from the logits to the first layer every kernel is an isometry."""
    model, made = net(depth=6, activation="identity")
    made = without_biases(made)
    found = table(model, made, kinds=["kernel"], by_layer=False)
    logits = model.apply(made, IMAGES)
    gradient = jax.grad(lambda y: jnp.mean(F.cross_entropy(y, LABELS)))(logits)
    expected = 2 * math.log10(np.linalg.norm(gradient)) - math.log10(IMAGES.size / 2 * 16)
    assert list(found["replacement"]) == ["", "isometry"]
    assert found["gradient_log10_second_moment"][1] == pytest.approx(expected, abs=1e-4)


def test_rescaled_kernels_keep_the_norm():
    model, made = net("cifar_resnet", depth=8, width=4, activation="identity", norm=None, skip=False)
    made = without_biases(made)
    found = table(model, made, kinds=["kernel"])
    assert found["replacement"][1] == "isometry or rescaled"
    words = dict(zip(found["layer"][2:], found["replacement"][2:], strict=True))
    assert words["stage2_down/layer1"] == "rescaled" and words["stage2_down/layer2"] == "isometry"
    gradient = jax.grad(lambda y: jnp.mean(F.cross_entropy(y, LABELS)))(model.apply(made, IMAGES))
    # The mean over 2 x 2 positions halves the norm.
    expected = 2 * math.log10(np.linalg.norm(gradient) / 2) - math.log10(8 * 8 * 8 * 4)
    assert found["gradient_log10_second_moment"][1] == pytest.approx(expected, abs=1e-4)


def test_a_cut_skip_leaves_the_branch():
    model, made = net("mlp", depth=3, width=6, activation="identity", skip=True)
    head = made["params"]["head"]["linear"]["kernel"]
    kernel = made["params"]["stack"]["block"]["layer"]["linear"]["kernel"][0]
    gradient = jax.grad(lambda y: jnp.mean(F.cross_entropy(y, LABELS)))(model.apply(made, IMAGES))
    found = table(model, made, kinds=["skip"])
    for row, jacobian in ((0, np.eye(6) + kernel), (1, kernel), (2, kernel)):
        expected = np.log10(np.mean(np.square(gradient @ head.T @ jacobian.T)))
        assert found["gradient_log10_second_moment"][row] == pytest.approx(expected, abs=1e-4)
    assert list(found["layer"]) == ["all", "all", "stack[0]/layer"]


@pytest.mark.parametrize("kind", sorted(nn.NORMS))
def test_frozen_statistics(kind, rng):
    """Within a group of entries that share their statistics y - slope x is one number."""
    norm, x = nn.NORMS[kind](), images(3, 4, 4, 16) * 3 + 1
    made = norm.init(jax.random.key(0), x)
    slope = linen.apply(lambda norm, x: (norm(x, train=True), _frozen_slope(norm, x))[1], norm)(made, x)
    y, _ = norm.apply(made, x, train=True, mutable=["batch_stats"])
    rest = np.asarray(y - slope * x).reshape((3, 16, 8, 2) if kind == "group" else (3, 16, 1, 16))
    axes = {"batch": (0, 1, 2), "group": (1, 3), "instance": (1, 2), "layer": (1, 2, 3), "channel": 3}
    assert np.ptp(rest, axis=axes[kind]).max() < 1e-5


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18"])
def test_a_kernel_makes_up_for_the_activation_that_it_reads(name, scan):
    """Also where a shortcut that is executed in between has a kernel and an activation of its own."""
    model, made = net(name, width=4, depths=(1, 3), stem="cifar", norm=None, scan=scan)
    layout = Layout.of(*find_parts(model, made, IMAGES, train=True, rngs={}))
    logs = np.random.default_rng(0).uniform(-1, 1, layout.size)
    factors = layout.factors(layout.tree(logs))
    places = {kind: {} for kind in ("activation", "kernel")}
    for part, index, layer in layout.order:
        places.setdefault(part.kind, {})[layer] = layout.offsets[part] + index
    read = {
        "resnet18": {
            "stage2_down/layer1": "stage1[0]/layer2",
            "stage2_down/shortcut": "stage1[0]/layer2",
            "stage2_down/layer2": "stage2_down/layer1",
            "stage2[0]/layer1": "stage2_down/layer2",
            "stage2[1]/layer1": "stage2[0]/layer2",
            "head": "stage2[1]/layer2",
        },
        "preact_resnet18": {
            "stage1_first/layer1": "stage1_first/layer1",
            "stage2_down/shortcut": "stage2_down/layer1",
            "stage2_down/layer2": "stage2_down/layer2",
            "stage2[0]/layer1": "stage2[0]/layer1",
            "stage2[1]/layer2": "stage2[1]/layer2",
            "head": "final_act",
        },
    }
    for kernel, activation in read[name].items():
        expected = 10 ** -logs[places["activation"][activation]]
        assert factors[places["kernel"][kernel]] == pytest.approx(expected, rel=1e-5), kernel


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18"])
def test_a_cut_skip_cuts_the_projection(name):
    """In a linear network the gradient that then arrives is that of its twin without shortcuts."""
    model, made = net(name, depths=(1, 1), stem="cifar", width=4, norm=None, activation="identity")
    gradient = jax.grad(lambda y: jnp.mean(F.cross_entropy(y, LABELS)))(jax.jit(model.apply)(made, IMAGES))
    cut = table(model, made, kinds=["skip"], by_layer=False)["gradient_log10_second_moment"][1]
    rest = {k: v for k, v in made["params"]["stage2_down"].items() if k != "shortcut"}
    plain = {"params": {**made["params"], "stage2_down": rest}}

    def loss(logits, labels):
        return len(labels) * jnp.sum(logits * gradient, axis=-1)

    twin = model.clone(skip=False)
    flow = jax.jit(lambda v: gradient_flow(twin, v, IMAGES, LABELS, loss=loss))(plain).frame()
    assert cut == pytest.approx(flow["gradient_log10_second_moment"][0], abs=1e-4)


# Nets where the answer is known.


@pytest.mark.parametrize("gain", [1.0, F.get_activation("sigmoid").gain])
def test_the_sigmoid_kills_by_its_derivative(gain):
    model, made = net(depth=10, activation="sigmoid", padding="CIRCULAR", gain=gain)
    change = by_kind(model, made)
    # A derivative of 1/4 at most costs 9 layers more than 9 log10(2) even at the gain that keeps the signal.
    assert change["activation"] > 5
    assert abs(change["kernel"]) < change["activation"] / 4


@pytest.mark.parametrize(("gain", "guilty"), [(1.0, True), (math.sqrt(2), False)])
def test_xavier_kills_relu_by_the_scale_of_its_kernels(gain, guilty):
    model, made = net("mlp", depth=12, width=128, gain=gain)
    made = without_biases(made)
    change = by_kind(model, made)
    # 10 kernels that halve the second moment, and the head, which the draw scales by the same gain. Of a draw ln|g|^2 has
    # variance 5 depth / width = 0.5 (papers.md, finding 6): 0.3 decades.
    assert change["kernel"] == pytest.approx(11 * math.log10(2) if guilty else 0, abs=0.9)
    assert abs(change["activation"]) < 0.9


def test_batch_norm_explodes_by_itself():
    model, made = net("mlp", depth=12, width=128, norm="batch")
    made = jax.tree_util.tree_map_with_path(
        lambda p, a: a if p[-1].key == "kernel" else jnp.full_like(a, p[-1].key in ("scale", "variance")),
        made,
    )
    x, y = images(128, 20), jnp.arange(128) % 5
    made["params"]["stem"]["linear"]["kernel"] = images(20, 128, seed=3)
    found = attribute_gradient(model, made, x, y, by_layer=False).set_index("kind")["change"]
    # Yang et al. 2019: pi / (pi - 1) a layer as the batch grows; 10 norms lie behind the first activation. At 128 the
    # projections that the statistics make take 1 % a layer.
    assert found["norm"] == pytest.approx(-10 * math.log10(math.pi / (math.pi - 1)), rel=0.2)
    assert found.drop("norm").abs().max() < 0.5


@pytest.mark.parametrize("scan", [True, False])
def test_a_dead_layer_is_found(scan):
    model, made = net("mlp", depth=8, width=16)
    bias = made["params"]["stack"]["block"]["layer"]["linear"]["bias"]
    made["params"]["stack"]["block"]["layer"]["linear"]["bias"] = bias.at[3].set(-100.0)
    if not scan:
        model = model.clone(scan=False)
        made["params"]["stack"] = nn.unstack(made["params"]["stack"])
    found = table(model, made)
    assert found["gradient_log10_second_moment"][0] == -np.inf
    revived = found[found["change"] != 0]
    assert list(zip(revived["kind"], revived["layer"], strict=True)) == [
        ("activation", "all"),
        ("activation", "stack[3]/layer"),
    ]
    assert (revived["change"] == np.inf).all()


def test_a_kernel_of_zeros_is_found():
    model, made = net("mlp", depth=8, width=16)
    kernel = made["params"]["stack"]["block"]["layer"]["linear"]["kernel"]
    made["params"]["stack"]["block"]["layer"]["linear"]["kernel"] = kernel.at[2].set(0.0)
    found = table(model, made)
    revived = found[found["change"] == np.inf]
    assert list(zip(revived["kind"], revived["layer"], strict=True)) == [
        ("kernel", "all"),
        ("kernel", "stack[2]/layer"),
    ]


def test_rows():
    model, made = net("cifar_preact_resnet", depth=8, width=4)
    found = table(model, made)
    layers = {kind: list(group["layer"]) for kind, group in found.groupby("kind", sort=False)}
    down = [f"stage{i}_down/layer{j}" for i in (2, 3) for j in (1, 2)]
    inner = ["stage1[0]/layer1", "stage1[0]/layer2", *down]
    assert layers["activation"] == ["all", *inner, "final_act"]
    assert layers["kernel"] == ["all", *inner, "head"]
    assert layers["norm"] == layers["statistics"] == ["all", *inner, "final_norm"]
    assert layers["skip"] == ["all", "stage1[0]", "stage2_down", "stage3_down"]
    model, made = net("mlp", depth=3, width=4, norm="batch")
    evaluated = table(model, made, train=False, by_layer=False)
    assert "statistics" not in set(evaluated["kind"]) and "norm" in set(evaluated["kind"])


# Bad input.


def test_bad_input():
    model, made = net("mlp", depth=3, width=4)
    with pytest.raises(ValueError, match="unknown kind of part 'activations'; did you mean 'activation'"):
        table(model, made, kinds=["activations"])
    with pytest.raises(ValueError, match="as many labels; got images of shape"):
        attribute_gradient(model, made, IMAGES, LABELS[:3])
    with pytest.raises(ValueError, match="must hold the collection 'params'"):
        table(model, {})
    with pytest.raises(TypeError, match="images must be floating point; got int32"):
        attribute_gradient(model, made, IMAGES.astype(jnp.int32), LABELS)
    with pytest.raises(ValueError, match="label 100 at index 0 is out of range: 5 classes"):
        attribute_gradient(model, made, IMAGES, LABELS + 100)

    class Bare(linen.Module):
        @linen.compact
        def __call__(self, x, *, train=False):
            return linen.Dense(5)(x.reshape(x.shape[0], -1))

    with pytest.raises(ValueError, match="Bare has no probe point: use cnnjax.nn.Activation"):
        table(Bare(), variables(Bare(), IMAGES))
