import math

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models

from ..drawn import images, variables
from .traced import inputs, output_shapes, parameters

TINY = {"stem": "cifar", "width": 2, "depths": (1, 4, 1), "norm": None, "aux": True, "num_classes": 3}


def count(found):
    return sum(map(math.prod, found.values()))


def called(model, method):
    """The paths of the layers that a call in training runs."""
    paths = set()

    def note(next_function, args, kwargs, context):
        paths.add(context.module.path)
        return next_function(*args, **kwargs)

    x = jax.ShapeDtypeStruct((1, 16, 16, 3), "float32")
    made = jax.eval_shape(model.init, jax.random.key(0), x)
    rngs = {"dropout": jax.random.key(0)}
    with linen.intercept_methods(note):
        jax.eval_shape(lambda v, x: model.apply(v, x, train=True, rngs=rngs, method=method), made, x)
    return {path[0] for path in paths if path}


def test_sizes_are_those_of_table_1():
    found = output_shapes(models.create("googlenet"), inputs("googlenet"))
    modules = [f"inception{name}" for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]
    assert [found[name] for name in ("conv1", "pool1", "conv3", "pool2", *modules, "head")] == [
        (112, 112, 64),
        (56, 56, 64),
        (56, 56, 192),
        (28, 28, 192),
        (28, 28, 256),
        (28, 28, 480),
        (14, 14, 512),
        (14, 14, 512),
        (14, 14, 512),
        (14, 14, 528),
        (14, 14, 832),
        (7, 7, 832),
        (7, 7, 1024),
        (1000,),
    ]


def test_parameters_with_auxiliary_heads():
    assert count(parameters("googlenet", aux=True)) == 13_004_888
    assert set(parameters("googlenet")) < set(parameters("googlenet", aux=True))
    # The form of the paper, with biases and windows of 5: NVIDIA/DIGITS, pull request 221.
    assert count(parameters("googlenet", aux=True, norm=None, window=5)) == 13_378_280


def test_the_twin_without_norms_has_biases():
    normed = parameters("googlenet", aux=True)
    plain = parameters("googlenet", aux=True, norm=None, window=5)
    kernels = {path for path in normed if path.endswith("kernel")}
    assert set(plain) == kernels | {path.replace("kernel", "bias") for path in kernels}
    # All but the head, and the dense layers of the auxiliary heads.
    assert sum(path.endswith("norm/scale") for path in normed) == len(kernels) - 5


def test_width_and_depths():
    full, part = parameters("googlenet"), parameters("googlenet", width=32, depths=(2, 4, 1))
    assert set(part) == {path for path in full if not path.startswith(("inception4e", "inception5b"))}
    for path, shape in part.items():
        assert shape[-1] == (1000 if path.startswith("head") else full[path][-1] // 2)


def test_the_cifar_stem_keeps_the_size():
    model = models.create("googlenet", stem="cifar")
    found = output_shapes(model, jax.ShapeDtypeStruct((1, 32, 32, 3), "float32"))
    assert found["conv1"] == (32, 32, 64) and found["inception3b"] == (32, 32, 480)
    assert found["pool3"] == (16, 16, 480) and found["inception5b"] == (8, 8, 1024)


def test_the_auxiliary_heads_run_where_they_are_asked_for():
    model = models.create("googlenet", **TINY)
    plain, auxiliary = called(model, None), called(model, "with_auxiliary")
    assert auxiliary - plain == {"aux1", "aux2"} and plain < auxiliary


@pytest.mark.slow
def test_a_step_with_auxiliary_heads():
    model, x = models.create("googlenet", **TINY), images(2, 8, 8, 3)
    made = variables(model, x, gain=1.5)

    @jax.jit
    def compute(made):
        def losses(made):
            rngs = {"dropout": jax.random.key(0)}
            logits, others = model.apply(made, x, train=True, rngs=rngs, method="with_auxiliary")
            return jnp.stack([jnp.sum(jnp.sin(z)) for z in (logits, *others)])

        logits, others = model.apply(made, x, method="with_auxiliary")
        return jax.jacrev(losses)(made), logits, others, model.apply(made, x)

    gradients, logits, others, plain = compute(made)
    np.testing.assert_array_equal(logits, plain)
    assert [z.shape for z in others] == [(2, 3), (2, 3)]
    reached = {
        part: tuple(any(np.any(leaf[i] != 0) for leaf in jax.tree.leaves(tree)) for i in range(3))
        for part, tree in gradients["params"].items()
    }
    assert reached["conv1"] == reached["inception4a"] == (True, True, True)
    assert reached["inception4b"] == reached["inception4d"] == (True, False, True)
    assert reached["aux1"] == (False, True, False) and reached["aux2"] == (False, False, True)
    assert reached["inception5a"] == reached["head"] == (True, False, False)


def test_images_that_are_too_small():
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), "float32")
    with pytest.raises(ValueError, match="in layer pool3: .*window larger than the padded input"):
        jax.eval_shape(models.create("googlenet").init, jax.random.key(0), x)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"stem": "cifar10"}, "unknown stem 'cifar10'; did you mean 'cifar'. Known: cifar, imagenet"),
        ({"depths": (2, 6, 2)}, r"at most 2, 5 and 2; got \(2, 6, 2\)"),
        ({"depths": (2, 5)}, r"depths are the modules of stages 3, 4 and 5, .*; got \(2, 5\)"),
        ({"depths": (1, 1, 1), "aux": True}, r"use aux=False or depths\[1\] >= 4; got \(1, 1, 1\)"),
        ({"aux_dropout": 1.5}, "aux_dropout is a probability of dropping"),
    ],
)
def test_options_that_do_not_fit(options, text):
    with pytest.raises(ValueError, match=text):
        models.create("googlenet", **options)


def test_there_must_be_heads_to_ask_for():
    model = models.create("googlenet")
    with pytest.raises(ValueError, match="no auxiliary heads: make it with aux=True"):
        jax.eval_shape(lambda: model.apply({}, jnp.zeros((1, 8, 8, 3)), method="with_auxiliary"))
