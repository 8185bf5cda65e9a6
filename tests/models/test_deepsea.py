from functools import partial

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models
from cnnjax.nn import Dropout

from ..drawn import images, shapes, variables
from .traced import inputs, output_shapes

SMALL = {"widths": (3, 4, 5), "window": 3, "hidden": 6, "num_classes": 2}


def test_sizes_are_those_of_the_supplement():
    found = output_shapes(models.create("deepsea"), inputs("deepsea"))
    assert [found[name] for name in ("conv1", "pool1", "conv2", "pool2", "conv3", "hidden")] == [
        (993, 320),
        (248, 320),
        (241, 480),
        (60, 480),
        (53, 960),
        (925,),
    ]


def test_rates_of_dropout():
    model, found = models.create("deepsea", **SMALL), []
    x = images(1, 64, 4)

    def note(next_function, args, kwargs, context):
        if isinstance(context.module, Dropout):
            found.append((context.module.rate, args[0].shape[1:]))
        return next_function(*args, **kwargs)

    made = shapes(model, x)
    with linen.intercept_methods(note):
        jax.eval_shape(
            lambda made: model.apply(made, x, train=True, rngs={"dropout": jax.random.key(0)}), made
        )
    assert found == [(0.2, (15, 3)), (0.2, (3, 4)), (0.5, (1, 5))]


def test_logits_are_those_of_numpy():
    model, x = models.create("deepsea", **SMALL), images(2, 64, 4)
    made = variables(model, x)
    p = jax.tree.map(partial(np.asarray, dtype=np.float64), made["params"])
    h = np.asarray(x, np.float64)
    for name in ("conv1", "conv2", "conv3"):
        linear = p[name]["linear"]
        length = h.shape[1] - 2
        h = sum(h[:, i : i + length] @ linear["kernel"][i] for i in range(3)) + linear["bias"]
        h = np.maximum(h, 0)
        if name != "conv3":
            h = h[:, : length // 4 * 4].reshape(2, length // 4, 4, -1).max(2)
    h = np.maximum(h.reshape(2, -1) @ p["hidden"]["linear"]["kernel"] + p["hidden"]["linear"]["bias"], 0)
    expected = h @ p["head"]["linear"]["kernel"] + p["head"]["linear"]["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)(made, x), expected, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="in layer conv3/linear: kernel larger than the padded input"):
        shapes(models.create("deepsea"), jnp.zeros((1, 150, 4)))
    with pytest.raises(ValueError, match="early_dropout .* must lie in .*; got 1"):
        models.create("deepsea", early_dropout=1)
