import functools
import math

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models, nn
from cnnjax.functional import ACTIVATIONS
from cnnjax.initializers import gaussian, he_normal
from cnnjax.initializers import initializer as make_initializer
from cnnjax.probes import (
    Recorder,
    batch_norm_rate,
    gradient_flow,
    mean_field,
    predict,
    residual_trajectory,
    trajectory,
    zero_padding_factor,
)
from cnnjax.probes.theory.kernels import kernel_distribution

from ..drawn import shapes

IMAGE = (8, 8, 1)
LOG2 = math.log10(2)


def predicted(name, image=IMAGE, **options):
    known = {key: options.pop(key) for key in ("batch", "second_moment") if key in options}
    return predict(models.create(name, **options), image, **known)


def slopes(prediction):
    """Of the gradient, from one hidden layer to the next."""
    return np.diff(prediction.gradient_log10_second_moment[:-1])


# Known answers.


@pytest.mark.parametrize(
    ("initializer", "chi"), [("he_normal", 1.0), ("xavier_uniform", 0.5), ("lecun_normal", 0.5)]
)
def test_a_relu_net_of_any_initializer(initializer, chi):
    p = predicted("plain", depth=6, initializer=initializer, padding="CIRCULAR")
    np.testing.assert_allclose(slopes(p), -math.log10(chi), atol=1e-9)
    np.testing.assert_allclose(np.diff(p.log10_second_moment[1:-1]), math.log10(chi), atol=1e-9)
    assert p.covered.all() and set(p.segment) == {0} and set(p.reasons) == {""}
    assert p.gradient_log10_second_moment[-1] == 0


def test_layers_are_those_of_the_flow():
    model = models.create("cifar_preact_resnet", depth=8, width=4)
    images = jnp.zeros((2, *IMAGE))
    recorder = Recorder.of(model, shapes(model, images), images)
    p = predict(model, IMAGE)
    assert (p.layers, p.activations) == (recorder.layers, recorder.activations)
    assert list(p.frame()) == [
        "layer", "path", "activation", "log10_second_moment", "gradient_log10_second_moment", "segment", "reason"
    ]  # fmt: skip
    assert p.frame()["path"].tolist() == list(recorder.layers)


@pytest.mark.parametrize("activation", ["tanh", "gelu", "prelu"])
def test_an_mlp_is_a_trajectory(activation):
    depth, gain, bias = 40, 1.2, 0.3
    p = predicted(
        "mlp",
        depth=depth,
        width=64,
        activation=activation,
        initializer="gaussian",
        gain=gain,
        bias_std=bias,
        second_moment=2.0,
    )
    w, b = gain**2, bias**2
    path = trajectory(activation, depth=depth - 1, q=2 * w + b, c=0.0, sigma_w2=w, sigma_b2=b)
    np.testing.assert_allclose(p.log10_second_moment[:-1], path.log10_second_moment, atol=1e-9)
    np.testing.assert_allclose(slopes(p), np.diff(path.gradient_log10_second_moment), atol=1e-9)


def test_zero_padding_costs_the_factor():
    p = predicted("plain", depth=200)
    np.testing.assert_allclose(slopes(p)[60:-60], -math.log10(zero_padding_factor(8)), atol=1e-6)
    forward = np.diff(p.log10_second_moment)
    np.testing.assert_allclose(forward[60:-60], math.log10(zero_padding_factor(8)), atol=1e-6)
    # A kernel that is zero but for its center reaches no border.
    p = predicted("plain", depth=20, initializer="delta_orthogonal", width=16, activation="identity")
    np.testing.assert_allclose(slopes(p), 0, atol=1e-9)


def test_the_first_layers_position_by_position():
    # Of a 3x3 window on 8x8 zeros are 2 / 24 an axis: a mean share of (1 - 1/12)^2 is left of a flat input.
    p = predicted("plain", depth=3, activation="identity", initializer="lecun_normal")
    assert p.log10_second_moment[0] == pytest.approx(2 * math.log10(1 - 1 / 12))


@pytest.mark.parametrize("batch", [None, 8, 32])
def test_batch_norm_has_its_rate(batch):
    p = predicted("mlp", depth=20, width=64, norm="batch", activation="tanh", batch=batch)
    np.testing.assert_allclose(slopes(p), -math.log10(batch_norm_rate("tanh", batch=batch)), atol=1e-9)
    np.testing.assert_allclose(p.log10_second_moment[:-1], 0, atol=1e-12)


def test_positions_count_as_examples_for_batch_norm():
    p = predicted("plain", depth=6, norm="batch", batch=2)
    np.testing.assert_allclose(slopes(p), -math.log10(batch_norm_rate("relu", batch=128)), atol=1e-9)


def test_different_widths_count_in_both_directions():
    # Xavier between 64 inputs and 16 units; then 16 and 10.
    p = predicted("mlp", depth=3, width=16, activation="identity", initializer="xavier_normal")
    assert p.log10_second_moment[0] == pytest.approx(math.log10(64 * 2 / 80))
    assert p.gradient_log10_second_moment[-2] == pytest.approx(math.log10(10 * 2 / 26))


@pytest.mark.parametrize(
    ("initializer", "variance"),
    [
        (functools.partial(he_normal, activation="tanh"), ACTIVATIONS["tanh"].gain ** 2 / 64),
        (functools.partial(gaussian, sigma_w=1.3, gain=2.0), 4 * 1.3**2 / 64),
        ("orthogonal", 1 / 64),
        ("xavier_uniform", 2 / 80),
    ],
)
def test_variances_are_those_of_the_initializers(initializer, variance):
    chosen = functools.partial(make_initializer, initializer)
    choice = functools.partial(chosen, activation="relu", gain=3.0)
    found = kernel_distribution(choice, (64, 16))
    assert found.variance == pytest.approx(9 * variance)
    drawn = make_initializer(choice)(jax.random.key(0), (64, 16))
    # 1,024 entries: a deviation of 4.4 % for normal ones.
    assert np.mean(np.square(drawn)) == pytest.approx(9 * variance, rel=0.2)


def test_a_custom_initializer_is_drawn():
    ours = predicted("mlp", depth=10, width=64, initializer="lecun_normal")
    theirs = predicted("mlp", depth=10, width=64, initializer=jax.nn.initializers.lecun_normal)
    # 2^19 entries and more: 0.2 % of each variance.
    np.testing.assert_allclose(
        theirs.gradient_log10_second_moment,
        ours.gradient_log10_second_moment,
        atol=9 * 4 * 0.002 / math.log(10),
    )


def test_the_order_of_a_scan_does_not_matter():
    options = dict(depth=7, activation="tanh", bias_std=0.1, skip=True)
    scanned, written = (predicted("plain", scan=scan, **options) for scan in (True, False))
    for name in ("log10_second_moment", "gradient_log10_second_moment"):
        np.testing.assert_allclose(getattr(scanned, name), getattr(written, name), atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        dict(
            activation="tanh",
            initializer="gaussian",
            gain=math.sqrt(1.04991),
            bias_std=math.sqrt(2e-5),
            padding="CIRCULAR",
        ),
        dict(norm="batch"),
        dict(),
        dict(skip=True, padding="CIRCULAR"),
    ],
)
def test_what_is_extrapolated_is_what_would_be_followed(options, monkeypatch):
    short = predicted("plain", depth=300, **options)
    monkeypatch.setattr("cnnjax.probes.theory.signals.STEADY", -1.0)
    full = predicted("plain", depth=300, **options)
    for name in ("log10_second_moment", "gradient_log10_second_moment"):
        np.testing.assert_allclose(getattr(short, name), getattr(full, name), atol=1e-7)


def test_ten_thousand_layers():
    p = predicted("plain", depth=10_000, initializer="xavier_normal", padding="CIRCULAR")
    assert p.log10_second_moment[9_998] - p.log10_second_moment[1] == pytest.approx(-9_997 * LOG2, rel=1e-8)
    assert p.gradient_log10_second_moment[0] - p.gradient_log10_second_moment[9_998] == pytest.approx(
        -9_998 * LOG2, rel=1e-8
    )


# Residual nets.


def test_a_pre_activation_net_is_a_residual_trajectory():
    p = predicted("cifar_preact_resnet", depth=26, width=4, norm=None, branch_scale="inverse_sqrt")
    blocks, own = 4, [1, 3, 5, 7]
    # He's kernels on zero-padded 8x8 maps: a branch of two loses twice what one does, but for the profile.
    growth = np.diff(p.log10_second_moment[own])
    kept = 10**growth - 1
    assert np.all(kept < 1 / (3 * blocks)) and np.all(kept > zero_padding_factor(8) ** 2 / (3 * blocks) * 0.9)
    path = residual_trajectory(
        "relu", depth=blocks, q=1.0, c=0.0, alpha=math.sqrt(1 / 12), sigma_w2=2.0, sigma_b2=0.0, layers=2
    )
    assert np.all(growth < np.diff(path.log10_second_moment))


def test_where_a_residual_net_leaves_the_theory():
    p = predicted("cifar_resnet", depth=14, width=4)
    assert p.covered[:5].all() and len(set(p.segment[:5])) == 1
    row = p.layers.index("stage2_down/layer2")
    assert not p.covered[row] and p.reasons[row] == "a shortcut that changes the shape"
    assert p.reasons[-1] == "pooling" and math.isnan(p.gradient_log10_second_moment[-1])


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18"])
def test_a_projected_shortcut_is_not_covered(name):
    p = predicted(name, block="bottleneck", depths=(2, 2), width=8, stem="cifar")
    aside = [i for i, layer in enumerate(p.layers) if layer.endswith("shortcut")]
    assert [p.layers[i] for i in aside] == ["stage1_down/shortcut", "stage2_down/shortcut"]
    assert not p.covered[aside].any()
    assert {p.reasons[i] for i in aside} == {"a projected shortcut"}
    first, last = (p.layers.index(f"stage2_down/layer{i}") for i in (1, 3))
    inside = [i for i in range(first, last + (name != "resnet18")) if i not in aside]
    # What is executed between the layers of a branch is no part of it.
    assert p.covered[inside].all() and len(set(p.segment[inside])) == 1
    behind = p.layers.index("stage2[0]/layer1")
    assert p.segment[inside[0]] != p.segment[behind]
    if name == "resnet18":
        assert not p.covered[last] and p.reasons[last] == "a shortcut that changes the shape"


def test_a_multiplier_of_zero():
    p = predicted("cifar_preact_resnet", depth=14, width=4, norm=None, branch_scale="skipinit")
    np.testing.assert_allclose(p.log10_second_moment[[1, 3]], p.log10_second_moment[1], atol=1e-12)
    assert p.gradient_log10_second_moment[2] == -np.inf


def test_a_plain_twin_with_strides_is_covered():
    p = predicted("cifar_resnet", depth=14, width=4, norm=None, skip=False)
    assert p.covered[:-1].all() and len(set(p.segment[:-1])) == 1
    assert not p.covered[-1] and p.reasons[-1] == "pooling"


# What theory does not cover.


def test_lenet_of_relu_is_covered_behind_its_pooling():
    p = predicted("lenet5", (32, 32, 1), activation="relu")
    assert p.segment.tolist() == [-1, -1, 0, 0, 0]
    assert p.reasons == ("", "pooling", "pooling", "", "")


@pytest.mark.parametrize("norm", ["group", "layer", "channel", "instance"])
def test_other_norms_are_named(norm):
    p = predicted("plain", depth=5, norm=norm)
    assert p.reasons[:4] == (f"{norm} norm",) * 4
    assert p.segment.tolist() == [-1, -1, -1, 0, 0]


def test_a_model_that_theory_does_not_cover():
    with pytest.raises(
        ValueError, match="theory covers no two neighboring layers of LeNet5: pooling. Measure it with"
    ):
        predicted("lenet5", (32, 32, 1))


class Odd(linen.Module):
    """Layers with something between them."""

    between: str

    @linen.compact
    def __call__(self, x, *, train=False):
        dense = functools.partial(nn.Layer, functools.partial(nn.Dense, 4))
        x = dense(name="first")(x)
        if self.between == "product":
            x = 2 * x
        elif self.between == "dropout":
            x = nn.Dropout(0.5, name="dropout")(x, train=train)
        elif self.between == "foreign":
            x = linen.Dense(4, name="foreign")(x)
        return dense(name="second")(x)


@pytest.mark.parametrize(
    ("between", "reason"),
    [("product", "an operation between the modules"), ("dropout", "dropout"), ("foreign", "Dense")],
)
def test_what_lies_between_layers_is_seen(between, reason):
    with pytest.raises(ValueError, match=f"no two neighboring layers of Odd: {reason}"):
        predict(Odd(between), (4,))
    assert predict(Odd("nothing"), (4,)).covered.all()


def test_bad_input():
    with pytest.raises(
        ValueError, match="second_moment, the mean square of the images, must be positive; got 0.0"
    ):
        predicted("plain", second_moment=0.0)
    zeros = models.create("mlp", depth=4, initializer="zeros")
    with pytest.raises(ValueError, match="a kernel that is not random"):
        predict(zeros, IMAGE)


# Against networks.


def check(name, *, seeds=8, batch=16, allowed, **options):
    """The measured gradient lies on the predicted line, put on the last hidden layer; forward on the first."""
    model = models.create(name, **options)
    rng = np.random.default_rng(0)
    images, labels = jnp.asarray(rng.normal(size=(batch, *IMAGE)), jnp.float32), jnp.arange(batch) % 10

    def one(key):
        flow = gradient_flow(model, model.init(key, images), images, labels)
        return flow.columns["log10_second_moment"], flow.columns["gradient_log10_second_moment"]

    keys = jax.vmap(jax.random.key)(np.arange(seeds))
    found = jax.jit(lambda keys: jax.lax.map(one, keys))(keys)
    p = predict(model, IMAGE, batch=batch)
    lines = (p.log10_second_moment, p.gradient_log10_second_moment)
    hidden = np.flatnonzero(p.segment == 0)[: -1 if p.covered.all() else None]
    for measured, line in zip(found, lines, strict=True):
        # log of the mean: the mean of the logarithm is lower by half the variance of one net.
        mean = np.log10(np.mean(10.0 ** np.asarray(measured, np.float64), axis=0))
        slope, expected = (np.polyfit(hidden, column[hidden], 1)[0] * math.log(10) for column in (mean, line))
        assert slope == pytest.approx(expected, abs=allowed)


def random_walk(width, layers, seeds, per_layer=5):
    """Four deviations of a fitted slope: a layer adds per_layer / width to the variance (Hanin & Nica 2019: 5 for ReLU)."""
    return 4 * math.sqrt(1.2 * per_layer / width / (layers * seeds))


def test_a_zero_padded_net_lies_on_its_line():
    # A convolution's fan-in is 9 times its width.
    check("plain", depth=16, width=24, allowed=random_walk(9 * 24, 15, 8))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp", dict(skip=True)),
        ("mlp", dict(skip=True, activation="tanh", initializer="xavier_normal")),
        ("mlp", dict(skip=True, norm="batch", batch=64)),
        # At gain 0.9 q falls slowly at first (slope of its map 0.93), and in each net of finite width at other layers.
        ("mlp", dict(activation="gelu", bias_std=0.2, gain=0.7)),
    ],
)
def test_residual_and_plain_mlps_lie_on_their_lines(name, options):
    check(name, depth=20, width=384, allowed=random_walk(384, 19, 8), **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain", dict(depth=16, width=32, padding="CIRCULAR", norm="batch")),
        ("plain", dict(depth=16, width=32, skip=True)),
        (
            "plain",
            dict(depth=16, width=32, activation="tanh", initializer="delta_orthogonal", padding="CIRCULAR"),
        ),
        ("cifar_preact_resnet", dict(depth=38, width=24, norm=None, branch_scale="inverse_sqrt")),
    ],
)
def test_convolutional_nets_lie_on_their_lines(name, options):
    check(name, allowed=random_walk(options["width"] * 9, 11, 8), **options)


def test_the_point_of_xiao_2018_is_critical():
    p = predicted(
        "plain", depth=1000, activation="tanh", initializer="delta_orthogonal", width=16, padding="CIRCULAR",
        gain=math.sqrt(1.05), bias_std=math.sqrt(2e-5),
    )  # fmt: skip
    field = mean_field("tanh", sigma_w2=1.05, sigma_b2=2e-5)
    assert abs(field.chi_1 - 1) < 2e-4
    assert slopes(p)[-300:-100] == pytest.approx(-math.log10(field.chi_1), abs=1e-8)
