import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models

from ..drawn import images, shapes, variables

TINY = {"depth": 16, "width": 2, "width_factor": 2}


def convolutions(name, **options):
    made = shapes(models.create(name, **options), jnp.zeros((1, 8, 8, 3)))["params"]
    found = jax.tree_util.tree_leaves_with_path(made)
    stacked = [
        (any(key.key == "block" for key in path), leaf) for path, leaf in found if path[-1].key == "kernel"
    ]
    return sum(leaf.shape[0] if inside else 1 for inside, leaf in stacked if leaf.ndim > 2)


def test_depth_counts_the_convolutions():
    for depth in (10, 16, 28, 40):
        assert convolutions("wide_resnet28_10", **{**TINY, "depth": depth}) == depth
    # With a factor of 1 the first stage keeps the channels of the stem: its shortcuts are identities.
    assert convolutions("wide_resnet40_1") == 39
    assert "stage1_down" not in shapes(models.create("wide_resnet40_1"), jnp.zeros((1, 8, 8, 3)))["params"]


def test_dropout_is_between_the_convolutions_and_in_training_only():
    model = models.create("wide_resnet28_10", **TINY, activation="identity", dropout=0.3)
    x = images(4, 16, 16, 3)
    programs = [
        str(jax.make_jaxpr(net.apply)(shapes(net, x), x)) for net in (model, model.clone(dropout=0.0))
    ]
    assert programs[0] == programs[1]
    made = variables(model, x)

    @jax.jit
    def compute(made, x):
        rngs = {"dropout": jax.random.key(1)}
        options = dict(train=True, rngs=rngs, mutable=["batch_stats", "intermediates"])
        return model.apply(made, x, capture_intermediates=True, **options)[1]["intermediates"]

    # Once in each of the six blocks, of which three are in a stack.
    dropped = {
        jax.tree_util.keystr(path): np.ravel(leaf == 0)
        for path, leaf in jax.tree_util.tree_leaves_with_path(compute(made, x))
        if "'dropout'" in jax.tree_util.keystr(path)
    }
    assert len(dropped) == 6 and all("layer2" in path for path in dropped)
    zeros = np.concatenate(list(dropped.values()))
    assert zeros.mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / zeros.size))


@pytest.mark.parametrize(
    "options, error, text",
    [
        ({"depth": 27}, ValueError, r"depth 6n \+ 4 with n >= 1 \(10, 16, 22, 28, 40, ...\); got 27"),
        ({"depth": 4}, ValueError, "got 4"),
        ({"width_factor": 0}, ValueError, "width_factor must be a positive integer; got 0"),
        ({"dropout": 1.0}, ValueError, r"dropout is a probability .* must lie in \[0, 1\); got 1.0"),
        ({"dropout": "0.3"}, TypeError, r"dropout must be a number in \[0, 1\); got '0.3'"),
    ],
)
def test_errors(options, error, text):
    with pytest.raises(error, match=text):
        models.create("wide_resnet28_10", **options)
