import jax
import numpy as np

from cnnjax import functional as F
from cnnjax import initializers, models, nn
from cnnjax.models.mobilenet_v3 import LARGE
from cnnjax.probes import probe_points

from ..drawn import images, shapes, variables
from .traced import inputs, output_shapes, parameters

SMALL = {
    "blocks": ((3, 24, 8, False, "relu", 2), *[(3, 24, 8, True, "hard_swish", 1)] * 2),
    "dense_width": 16,
    "num_classes": 5,
}


def activations(model):
    x = images(1, 16, 16, 3)
    return {"/".join(p.path): p.activation for p in probe_points(model, shapes(model, x), x)}


def test_sizes_are_those_of_table_1():
    found, size = output_shapes(models.create("mobilenet_v3_large"), inputs("mobilenet_v3_large")), 112
    assert found["stem"] == (112, 112, 16)
    for index, block in enumerate(LARGE, 1):
        size //= block.stride
        # The second of two identical blocks is in the stack of the first.
        part = f"block{index - 1 if index in (6, 10, 15) else index}"
        assert found[part] == (size, size, block.channels)
    assert {"block6", "block10", "block15"}.isdisjoint(found)
    assert (found["last"], found["dense"]) == ((7, 7, 960), (1280,))


def test_activations_are_those_of_the_table():
    # Rows 6, 7 and 12: ReLU and a gate, hard-swish without, hard-swish and a gate.
    found = activations(models.create("mobilenet_v3_large", blocks=(LARGE[5], LARGE[6], LARGE[11])))
    inside = {"block1": "relu", "block2": "hard_swish", "block3": "hard_swish"}
    expected = {"stem": "hard_swish", "last": "hard_swish", "dense": "hard_swish", "head": "identity"}
    for block, activation in inside.items():
        expected |= {
            f"{block}/expand": activation,
            f"{block}/depthwise": activation,
            f"{block}/project": "identity",
        }
    for block in ("block1", "block3"):
        expected |= {f"{block}/squeeze/reduce": "relu", f"{block}/squeeze/expand": "hard_sigmoid"}
    assert found == {f"{layer}/act": activation for layer, activation in expected.items()}


def test_a_given_activation_is_everywhere_but_in_gates_and_at_ends():
    found = activations(models.create("mobilenet_v3_large", **SMALL, activation="tanh"))
    others = {path for path, name in found.items() if name != "tanh"}
    assert all(path.endswith(("squeeze/expand/act", "project/act", "head/act")) for path in others)
    assert {found[path] for path in others} == {"hard_sigmoid", "identity"}


def test_kernels_take_the_gain_of_the_activation_behind_them():
    def of_gain(*, activation):
        return initializers.constant(F.get_activation(activation).gain)

    model = models.create("mobilenet_v3_large", **SMALL, initializer=of_gain)
    made = jax.jit(model.init)(jax.random.key(0), images(1, 4, 4, 3))["params"]
    kernels = {
        "/".join(key.key for key in path[:-2]): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(made)
        if path[-1].key == "kernel"
    }
    gains = {"stem": "hard_swish", "block1/expand": "relu", "block2/block/depthwise": "hard_swish"}
    gains |= {"block2/block/squeeze/reduce": "relu", "block2/block/project": "identity"}
    gains |= {"last": "hard_swish", "dense": "hard_swish", "head": "identity"}
    for layer, activation in gains.items():
        np.testing.assert_allclose(kernels[layer], F.ACTIVATIONS[activation].gain, rtol=1e-6)


def test_the_norm_has_the_epsilon_and_momentum_of_the_authors():
    made = models.create("mobilenet_v3_large")._norm()()
    assert (made.epsilon, made.momentum) == (1e-3, 0.99)


def test_the_twin_without_shortcuts_has_the_same_parameters():
    assert parameters("mobilenet_v3_large", **SMALL, skip=False) == parameters("mobilenet_v3_large", **SMALL)


def test_gates_and_the_dense_layer_have_biases_in_the_place_of_a_norm():
    found, twin = (parameters("mobilenet_v3_large", **SMALL, norm=norm) for norm in ("batch", None))
    biases = {path for path in found if path.endswith("linear/bias")}
    assert all("/squeeze/" in path or path.startswith(("dense/", "head/")) for path in biases)
    added = {path.replace("norm/scale", "linear/bias") for path in found if path.endswith("norm/scale")}
    assert twin.keys() - found.keys() == added
    assert not any("norm" in path for path in twin)


def test_scanned_and_written_out_agree():
    x = images(2, 8, 8, 3)
    model = models.create("mobilenet_v3_large", **SMALL)
    made = variables(model, x)
    assert made["params"]["block2"]["block"]["squeeze"]["reduce"]["linear"]["kernel"].shape == (
        2,
        1,
        1,
        24,
        8,
    )
    scanned, unrolled = jax.jit(
        lambda made: (model.apply(made, x), model.clone(scan=False).apply(nn.unstack(made), x))
    )(made)
    np.testing.assert_allclose(unrolled, scanned, rtol=1e-4, atol=1e-5)


def test_equal_rows_that_change_the_shape_are_no_stack():
    model = models.create("mobilenet_v3_small", blocks=[(3, 16, 24, False, "relu", 2)] * 2)
    found = output_shapes(model, jax.ShapeDtypeStruct((1, 32, 32, 3), "float32"))
    assert (found["block1"], found["block2"]) == ((8, 8, 24), (4, 4, 24))
