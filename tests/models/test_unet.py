import math

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import initializers, models
from cnnjax.commands.layers import rows
from cnnjax.models.unet import center, per_position
from cnnjax.nn import Dropout

from ..drawn import images, shapes, variables
from .golden import GOLDEN, unet
from .traced import inputs, output_shapes, parameters

SMALL = {"depth": 2, "width": 3}


def test_sizes_are_those_of_figure_1():
    found = output_shapes(models.create("unet"), inputs("unet"))
    expected = {
        "down1": (568, 568, 64),
        "pool1": (284, 284, 64),
        "down2": (280, 280, 128),
        "down3": (136, 136, 256),
        "down4": (64, 64, 512),
        "bottom": (28, 28, 1024),
        "upsample4": (56, 56, 512),
        "up4": (52, 52, 512),
        "up3": (100, 100, 256),
        "up2": (196, 196, 128),
        "up1": (388, 388, 64),
        "head": (388, 388, 2),
    }
    assert {name: found[name] for name in expected} == expected


def test_the_formula_of_the_count_gives_the_papers_network():
    assert unet(4, 64, rank=2) == GOLDEN["unet"].parameters


def test_multiply_adds_of_up_convolutions_are_those_of_their_inputs():
    # Each 2x2 up-convolution multiplies every position of its input, of 28, 52, 100 and 196, with each entry of its kernel.
    found = {row.name: row for row in rows(models.create("unet"), (572, 572, 1))}
    for level, size in ((4, 28), (3, 52), (2, 100), (1, 196)):
        width = 64 * 2 ** (level - 1)
        assert found[f"upsample{level}"].flops == 2 * size**2 * 4 * 2 * width * width


def fits(size, depth, lost):
    """Layer by layer: whether the poolings meet even sizes, and every convolution finds its window."""
    for _ in range(depth):
        size -= lost
        if size < 2 or size % 2:
            return False
        size //= 2
    size -= lost
    for _ in range(depth):
        if size < 1:
            return False
        size = 2 * size - lost
    return size >= 1


@pytest.mark.parametrize("padding, lost", [("VALID", 4), ("SAME", 0)])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_sizes_that_fit(padding, lost, depth):
    model = models.create("unet", depth=depth, padding=padding)
    for size in range(1, 220):
        if fits(size, depth, lost):
            model._check_sizes((size,))
            continue
        with pytest.raises(ValueError, match=f"axis 0 has size {size}: .* fit are {2**depth} apart") as error:
            model._check_sizes((size,))
        nearest = [int(n) for n in str(error.value).split("nearest ")[1].split(";")[0].split(" and ")]
        assert all(fits(n, depth, lost) for n in nearest)
        assert nearest[-1] > size and not any(fits(n, depth, lost) for n in range(size, nearest[-1]))
        below = [n for n in range(1, size) if fits(n, depth, lost)]
        assert nearest[:-1] == below[-1:]


def test_a_size_that_does_not_fit_is_refused_before_anything_runs():
    text = "axis 1 has size 570: with depth=4 and padding='VALID' .* are 16 apart, the nearest 556 and 572; pad or crop"
    with pytest.raises(ValueError, match=text):
        shapes(models.create("unet"), jnp.zeros((1, 572, 570, 1)))


def test_the_head_sees_the_middle_of_the_first_level():
    # Only the concatenation of the first level and 1x1 parts of kernels are left: logits are the middle of the image.
    model = models.create("unet", **SMALL, activation="identity", num_classes=1)
    x = images(1, 44, 44, 1)
    params = jax.tree.map(jnp.zeros_like, variables(model, x)["params"])
    for part in ("down1", "up1"):
        for layer in ("layer1", "layer2"):
            linear = params[part][layer]["linear"]
            linear["kernel"] = linear["kernel"].at[1, 1, 0, 0].set(1)
    params["head"]["linear"]["kernel"] = params["head"]["linear"]["kernel"].at[0, 0].set(1)
    logits = jax.jit(model.apply)({"params": params}, x)
    assert logits.shape == (1, 4, 4, 1)
    np.testing.assert_allclose(logits, x[:, 20:24, 20:24], rtol=1e-6)
    np.testing.assert_array_equal(center(x, (4, 3)), x[:, 20:24, 20:23])


@pytest.mark.parametrize("size", [(8,), (8, 12), (4, 8, 4)])
def test_padded_it_keeps_the_size_in_any_dimensions(size):
    model = models.create("unet_padded", **SMALL, norm="batch")
    logits = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x)[0], jnp.zeros((2, *size, 1))
    )
    assert logits.shape == (2, *size, 2)


def test_without_skips_the_first_layers_on_the_way_up_have_half_of_the_inputs():
    found, twin = (parameters("unet", skip=skip) for skip in (True, False))
    assert set(found) == set(twin)
    different = {path for path in found if found[path] != twin[path]}
    assert different == {f"up{level}/layer1/linear/kernel" for level in (1, 2, 3, 4)}
    lost = sum(math.prod(found[path]) - math.prod(twin[path]) for path in different)
    assert lost == sum(9 * (64 * 2**level) ** 2 for level in range(4))


def test_an_up_convolution_starts_as_a_dense_layer_of_each_position():
    initialize = per_position(initializers.he_normal())
    kernel = np.asarray(initialize(jax.random.key(0), (2, 2, 128, 64)))
    # 2 / N with the inputs of one position: of 2^15 draws the deviation is known to 0.4 %.
    assert abs(kernel.std() / math.sqrt(2 / 128) - 1) < 0.016
    # An orthogonal map of a position to its block: the norm of what comes in stays.
    kernel = np.asarray(per_position(initializers.orthogonal())(jax.random.key(0), (2, 2, 6, 3)))
    dense = np.moveaxis(kernel, 2, 0).reshape(6, 12)
    np.testing.assert_allclose(dense @ dense.T, np.eye(6), atol=1e-5)


def test_dropout_lies_behind_the_two_coarsest_levels():
    model, x, found = models.create("unet_padded", **SMALL, dropout=0.25), images(1, 8, 8, 1), []

    def note(next_function, args, kwargs, context):
        if isinstance(context.module, Dropout):
            found.append((context.module.rate, args[0].shape[1:]))
        return next_function(*args, **kwargs)

    made = shapes(model, x)
    with linen.intercept_methods(note):
        jax.eval_shape(
            lambda made: model.apply(made, x, train=True, rngs={"dropout": jax.random.key(0)}), made
        )
    assert found == [(0.25, (4, 4, 6)), (0.25, (2, 2, 12))]


@pytest.mark.parametrize(
    "options, text",
    [
        ({"padding": "FULL"}, "unknown padding 'FULL'"),
        ({"dropout": 1.5}, "dropout .* must lie in \\[0, 1\\); got 1.5"),
        ({"depth": 0}, "depth must be a positive integer; got 0"),
    ],
)
def test_options_that_do_not_fit(options, text):
    with pytest.raises(ValueError, match=text):
        models.create("unet", **options)
