import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from cnnjax import models
from cnnjax.training import replace_head

from ..drawn import shapes, variables

# A uniform draw takes less time to compile than a normal one.
MODEL = models.create("mlp", depth=4, width=4, norm="batch", initializer=jax.nn.initializers.uniform())
IMAGE = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
MADE = variables(MODEL, jnp.zeros(IMAGE.shape))


@pytest.mark.parametrize("classes", [3, 10])
def test_the_head_is_fresh_and_the_rest_is_kept(classes):
    model = MODEL.clone(num_classes=classes)
    found = replace_head(MADE, model, jax.random.key(1), IMAGE)
    before, after = flatten_dict(MADE), flatten_dict(found)
    head = {path for path in after if path[1] == "head"}
    assert head == {("params", "head", "linear", name) for name in ("kernel", "bias")}
    assert after.keys() == before.keys()
    assert all(after[path] is before[path] for path in after if path not in head)
    fresh = jax.jit(model.init)(jax.random.key(1), jnp.zeros(IMAGE.shape))["params"]["head"]["linear"]
    np.testing.assert_allclose(after["params", "head", "linear", "kernel"], fresh["kernel"], rtol=1e-6)
    assert after["params", "head", "linear", "kernel"].shape == (4, classes)
    assert model.apply(found, jnp.zeros(IMAGE.shape)).shape == (1, classes)


def test_nothing_is_changed_in_place():
    before = jax.tree.map(np.array, MADE)
    replace_head(MADE, MODEL.clone(num_classes=3), jax.random.key(1), IMAGE)
    jax.tree.map(np.testing.assert_array_equal, MADE, before)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"width": 5}, r"batch_stats/stack/.* has shape \(2, 4\) in the variables and \(2, 5\) in the model"),
        (
            {"scan": False},
            r"batch_stats/stack/block/.* \(2, 4\) in the variables and none in the model.*unstack",
        ),
        ({"depth": 5}, r"shape \(2, 4\) in the variables and \(3, 4\) in the model"),
    ],
    ids=str,
)
def test_another_model(options, text):
    with pytest.raises(ValueError, match=text):
        replace_head(MADE, MODEL.clone(**options), jax.random.key(1), IMAGE)


def test_a_model_without_head():
    class Headless(models.Model):
        def __call__(self, x, *, train=False):
            return x

    with pytest.raises(ValueError, match="no parameter of Headless depends on num_classes"):
        replace_head({}, Headless(), jax.random.key(1), IMAGE)


def test_it_can_be_traced():
    model = MODEL.clone(num_classes=3)
    found = jax.eval_shape(lambda made: replace_head(made, model, jax.random.key(1), IMAGE), MADE)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, shapes(model, jnp.zeros(IMAGE.shape)))
