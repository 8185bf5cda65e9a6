import math

import jax
import jax.numpy as jnp
import pytest

from cnnjax import functional as F
from cnnjax import models
from cnnjax.commands.layers import rows

IMAGE = (32, 32, 3)
OPTIONS = {
    "plain": {"depth": 6, "width": 4},
    "mlp": {"depth": 6, "width": 8},
    "cifar_resnet": {"depth": 14},
    "cifar_preact_resnet": {},
    "lenet5": {},
    "keras_cifar_cnn": {},
}


def sizes(found):
    return [[field[0].size if field else None for field in row.fields] for row in found]


@pytest.mark.parametrize("norm", [None, "batch", "group"])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_parameter_belongs_to_one_row(name, norm):
    model = models.create(name, norm=norm, activation="prelu", **OPTIONS[name])
    images = jax.ShapeDtypeStruct((1, *IMAGE), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    found = rows(model, IMAGE)
    assert sum(row.parameters for row in found) == F.parameter_count(variables["params"])
    assert found[-1].name == "head"
    assert found[-1].output == (10,)


@pytest.mark.parametrize(
    ("name", "options", "image", "parameters"),
    [
        # He et al. 2016, table 6, gives 0.27 M; with option A and the batch norms it is this.
        ("cifar_resnet", {"depth": 20}, (32, 32, 3), 269_722),
        # The Keras and TensorFlow tutorial's own summary.
        ("keras_cifar_cnn", {}, (32, 32, 3), 122_570),
        # LeCun et al. 1998 with C3 fully connected.
        ("lenet5", {}, (32, 32, 1), 61_706),
    ],
)
def test_golden_totals(name, options, image, parameters):
    assert sum(row.parameters for row in rows(models.create(name, **options), image)) == parameters


def test_lenet_row_by_row():
    found = rows(models.create("lenet5"), (32, 32, 1))
    assert [(row.name, row.repeats, row.output, row.kernel) for row in found] == [
        ("c1", 1, (28, 28, 6), (5, 5, 1, 6)),
        ("c3", 1, (10, 10, 16), (5, 5, 6, 16)),
        ("c5", 1, (120,), (400, 120)),
        ("f6", 1, (84,), (120, 84)),
        ("head", 1, (10,), (84, 10)),
    ]
    # conv5, pool2, conv5: 5, 6, 14.
    assert sizes(found) == [[5, 5], [14, 14], [None] * 2, [None] * 2, [None] * 2]
    # A product and an addition for each entry of the kernel at each position.
    assert [row.flops for row in found[:3]] == [2 * 28**2 * 150, 2 * 10**2 * 2400, 2 * 48_000]
    # The convolution's output and the activation's.
    assert found[0].output_bytes == 4 * 2 * 28**2 * 6


def test_a_stack_is_one_row_however_deep():
    found = rows(models.create("plain", depth=1000, width=4), (8, 8, 1))
    assert [row.name for row in found] == ["stem", "stack[0..997]/layer", "head"]
    stack = found[1]
    assert (stack.repeats, stack.kernel) == (998, (3, 3, 4, 4))
    assert stack.parameters == 998 * (9 * 16 + 4)
    assert stack.flops == 998 * 2 * 64 * 9 * 16
    assert stack.output_bytes == 998 * 2 * 4 * 64 * 4
    # Each layer adds 2 to the field, 3 after the first.
    assert sizes(found)[1] == [5, 2 * 999 + 1]


@pytest.mark.parametrize("name", ["plain", "cifar_resnet", "cifar_preact_resnet"])
@pytest.mark.parametrize("remat", [False, True])
def test_scanned_and_written_out_agree(name, remat):
    options = OPTIONS.get(name, {"depth": 14})
    scanned = rows(models.create(name, remat=remat, **options), IMAGE)
    unrolled = rows(models.create(name, scan=False, remat=remat, **options), IMAGE)
    for total in ("parameters", "flops", "output_bytes"):
        assert sum(getattr(r, total) for r in scanned) == sum(getattr(r, total) for r in unrolled)
    assert scanned[-2].fields[1] == unrolled[-2].fields[1]
    assert max(r.repeats for r in unrolled) == 1


def test_blocks_of_two_layers_and_names_outside_of_blocks():
    found = rows(models.create("cifar_preact_resnet", depth=14, norm="group"), IMAGE)
    names = [row.name for row in found]
    assert names[:4] == ["stem", "stage1[0..1]/layer1", "stage1[0..1]/layer2", "stage2_down/layer1"]
    assert "stage2[0]/layer1" in names
    assert names[-3:] == ["final_norm", "final_act", "head"]
    assert found[-3].kernel is None
    # A group norm's statistics see all of the image, by convention that is not counted.
    assert sizes(found)[1] == [5, 9]


def test_the_number_of_operations_is_that_of_the_compiler():
    model = models.create("keras_cifar_cnn")
    images = jax.ShapeDtypeStruct((1, *IMAGE), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    cost = jax.jit(model.apply).lower(variables, images).compile().cost_analysis()
    found = rows(model, IMAGE)
    # The compiler also counts biases, activations and pooling: a few operations for each output.
    outputs = sum(math.prod(row.output) for row in found)
    extra = cost["flops"] - sum(row.flops for row in found)
    assert 0 < extra < 10 * outputs
