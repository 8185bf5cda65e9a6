from functools import partial

import flax.linen as linen
import jax.numpy as jnp
import pytest

from cnnjax import models, nn
from cnnjax.probes import Recorder, probe_points

from ..drawn import shapes

IMAGES = jnp.zeros((2, 8, 8, 3))
ROWS = jnp.zeros((2, 4))
dense = partial(nn.Dense, 4)


def table(model, x):
    """(name, kernel) of each layer in execution order."""
    made = shapes(model, x)
    points = probe_points(model, made, x)
    kernels = {"/".join(point.path[:-1] or point.path): point.kernel for point in points}
    return Recorder.of(model, made, x).layers, kernels


class Pair(linen.Module):
    """Two layers, which alternate when blocks of them are stacked."""

    @linen.compact
    def __call__(self, x, *, train=False):
        x = nn.Layer(dense, name="first")(x, train=train)
        return nn.Layer(dense, name="second")(x, train=train)


class Nested(linen.Module):
    """A layer, a stack, a layer."""

    scan: bool = True

    @linen.compact
    def __call__(self, x, *, train=False):
        x = nn.Layer(dense, name="before")(x, train=train)
        x = nn.Stack(Pair, 2, scan=self.scan, name="inner")(x, train=train)
        return nn.Layer(dense, name="behind")(x, train=train)


class Outer(linen.Module):
    scan: bool = True

    @linen.compact
    def __call__(self, x, *, train=False):
        return nn.Stack(partial(Nested, self.scan), 2, scan=self.scan, name="outer")(x, train=train)


def test_a_plain_network():
    model = models.create("plain", depth=5, width=4, activation="tanh")
    layers, kernels = table(model, IMAGES)
    assert layers == ("stem", "stack[0]/layer", "stack[1]/layer", "stack[2]/layer", "head")
    assert kernels == {
        "stem": ("stem", "linear", "kernel"),
        "stack/block/layer": ("stack", "block", "layer", "linear", "kernel"),
        "head": ("head", "linear", "kernel"),
    }
    recorder = Recorder.of(model, shapes(model, IMAGES), IMAGES)
    assert recorder.activations == ("tanh", "tanh", "tanh", "tanh", "identity")


@pytest.mark.parametrize("name", ["cifar_resnet", "cifar_preact_resnet"])
def test_a_residual_network(name):
    layers, kernels = table(models.create(name, depth=14, width=4), IMAGES)
    stages = [
        ["stage1[0]", "stage1[1]"],
        ["stage2_down", "stage2[0]"],
        ["stage3_down", "stage3[0]"],
    ]
    blocks = [f"{block}/{layer}" for stage in stages for block in stage for layer in ("layer1", "layer2")]
    # The activation behind the last block of a pre-activation net belongs to no layer with weights.
    final = ["final_act"] if name == "cifar_preact_resnet" else []
    assert list(layers) == ["stem", *blocks, *final, "head"]
    assert kernels.pop("final_act", None) is None
    assert {path: (*path.split("/"), "linear", "kernel") for path in kernels} == kernels


def test_two_points_of_a_block_alternate():
    layers, _ = table(nn.Stack(Pair, 2), ROWS)
    assert layers == ("[0]/first", "[0]/second", "[1]/first", "[1]/second")


def test_nested_stacks():
    layers, _ = table(Outer(), ROWS)
    inner = [f"inner[{j}]/{layer}" for j in range(2) for layer in ("first", "second")]
    assert list(layers) == [f"outer[{i}]/{name}" for i in range(2) for name in ("before", *inner, "behind")]


@pytest.mark.parametrize("options", [{"scan": False}, {"remat": True}])
def test_names_do_not_depend_on_how_a_stack_runs(options):
    model = models.create("cifar_resnet", depth=8, width=4)
    assert table(model, IMAGES)[0] == table(model.clone(**options), IMAGES)[0]


def test_nested_names_do_not_depend_on_how_a_stack_runs():
    assert table(Outer(), ROWS)[0] == table(Outer(scan=False), ROWS)[0]


def test_slots_stack_as_the_layers_do():
    recorder = Recorder.of(Outer(), shapes(Outer(), ROWS), ROWS)
    slots = recorder.new_slots()["outer"]["block"]
    assert slots["before"]["act"]["gradient"].shape == (2, 3)
    assert slots["inner"]["block"]["first"]["act"]["output_gradient"].shape == (2, 2, 3)


def test_kernels_of_layers_that_others_wrote():
    class Foreign(linen.Module):
        """A kernel in front of its activation, one within a part, one behind, and an activation without any."""

        @linen.compact
        def __call__(self, x, *, train=False):
            x = nn.Activation("relu", name="act1")(linen.Dense(4, name="dense1")(x))
            x = nn.Activation("tanh", name="act2")(nn.SeparableConv(4, 1, name="separable")(x[:, None])[:, 0])
            x = nn.PreActivationLayer(dense, act=partial(nn.Activation, "elu"), name="pre")(x)
            return nn.Activation("selu", name="act3")(x)

    made = shapes(Foreign(), ROWS)
    points = probe_points(Foreign(), made, ROWS)
    assert [(point.activation, point.kernel) for point in points] == [
        ("relu", ("dense1", "kernel")),
        ("tanh", ("separable", "Conv_0", "kernel")),
        ("elu", ("pre", "linear", "kernel")),
        ("selu", None),
    ]


def test_an_activation_called_twice_is_one_point():
    class Shared(linen.Module):
        @linen.compact
        def __call__(self, x, *, train=False):
            act = nn.Activation("tanh", name="act")
            return act(act(x))

    assert table(Shared(), ROWS)[0] == ("act",)


def test_a_model_without_probe_points():
    class Bare(linen.Module):
        @linen.compact
        def __call__(self, x, *, train=False):
            return linen.Dense(3)(x)

    assert probe_points(Bare(), shapes(Bare(), ROWS), ROWS) == ()
    with pytest.raises(ValueError, match="Bare has no probe point: use cnnjax.nn.Activation in its layers"):
        Recorder.of(Bare(), shapes(Bare(), ROWS), ROWS)
