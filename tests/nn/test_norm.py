import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import functional as F
from cnnjax import nn

from ..drawn import images, shapes, variables

STATISTICS = "batch_stats"


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_every_norm_has_a_name():
    assert dict(nn.NORMS) == {
        "batch": nn.BatchNorm,
        "group": nn.GroupNorm,
        "layer": nn.LayerNorm,
        "channel": nn.ChannelNorm,
        "instance": nn.InstanceNorm,
    }


@pytest.mark.parametrize("name", nn.NORMS)
def test_parameters_start_at_one_and_zero(name):
    module, x = nn.NORMS[name](), jnp.zeros((2, 3, 3, 4), jnp.bfloat16)
    made = module.init(jax.random.key(0), x, train=True)
    np.testing.assert_array_equal(made["params"]["scale"], np.ones(4))
    np.testing.assert_array_equal(made["params"]["bias"], np.zeros(4))
    if name == "batch":
        np.testing.assert_array_equal(made[STATISTICS]["mean"], np.zeros(4))
        np.testing.assert_array_equal(made[STATISTICS]["variance"], np.ones(4))
    else:
        assert set(made) == {"params"}
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype(jnp.float32)}


def test_batch_norm_is_that_of_flax():
    x = 2 * images(4, 3, 3, 5) + 3
    ours = nn.BatchNorm(momentum=0.8, epsilon=1e-3)
    theirs = linen.BatchNorm(momentum=0.8, epsilon=1e-3, use_fast_variance=False)
    made = variables(ours, x)
    mean, variance = made[STATISTICS]["mean"], made[STATISTICS]["variance"]
    reference = {"params": made["params"], STATISTICS: {"mean": mean, "var": variance}}
    for train in (True, False):
        y, updated = ours.apply(made, x, train=train, mutable=[STATISTICS])
        expected, moved = theirs.apply(reference, x, use_running_average=not train, mutable=[STATISTICS])
        close(y, expected)
        close(updated[STATISTICS]["mean"], moved[STATISTICS]["mean"])
        close(updated[STATISTICS]["variance"], moved[STATISTICS]["var"])


def test_running_statistics_move_only_in_training_and_only_where_mutable():
    module, x = nn.BatchNorm(), images(4, 3, 5)
    made = variables(module, x)
    in_training, moved = module.apply(made, x, train=True, mutable=[STATISTICS])
    _, kept = module.apply(made, x, train=False, mutable=[STATISTICS])
    jax.tree.map(np.testing.assert_array_equal, kept[STATISTICS], made[STATISTICS])
    for name in ("mean", "variance"):
        assert np.all(moved[STATISTICS][name] != made[STATISTICS][name])
    np.testing.assert_array_equal(module.apply(made, x, train=True), in_training)


def test_initialization_does_not_move_the_statistics():
    made = nn.BatchNorm().init(jax.random.key(0), images(4, 5) + 7, train=True)
    np.testing.assert_array_equal(made[STATISTICS]["mean"], np.zeros(5))


@pytest.mark.parametrize("unbiased, variance", [(False, 1.25), (True, 5 / 3)])
def test_the_running_variance_of_0_to_3(unbiased, variance):
    # Squared deviations 2.25 + 0.25 + 0.25 + 2.25 = 5, over 4 entries or 3.
    module, x = nn.BatchNorm(momentum=0.0, unbiased=unbiased), jnp.arange(4.0).reshape(4, 1)
    made = module.init(jax.random.key(0), x)
    _, moved = module.apply(made, x, train=True, mutable=[STATISTICS])
    close(moved[STATISTICS]["variance"], [variance])
    close(moved[STATISTICS]["mean"], [1.5])


def test_batch_norm_is_synchronized_over_a_named_axis():
    x = images(8, 3, 5)
    made = variables(nn.BatchNorm(), x)
    expected = nn.BatchNorm().apply(made, x, train=True, mutable=[STATISTICS])

    def part(x):
        return nn.BatchNorm(axis_name="parts").apply(made, x, train=True, mutable=[STATISTICS])

    y, moved = jax.jit(jax.vmap(part, axis_name="parts"))(x.reshape(4, 2, 3, 5))
    close(y.reshape(x.shape), expected[0])
    for row in range(4):
        jax.tree.map(close, jax.tree.map(lambda a, row=row: a[row], moved), expected[1])


def test_a_synchronized_norm_initializes_outside_of_its_axis():
    assert shapes(nn.BatchNorm(axis_name="parts"), jnp.zeros((2, 5)), train=True)[STATISTICS][
        "mean"
    ].shape == (5,)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm_is_that_of_flax(groups):
    x = 2 * images(4, 3, 3, 6) + 3
    ours, theirs = nn.GroupNorm(groups, 1e-3), linen.GroupNorm(groups, epsilon=1e-3, use_fast_variance=False)
    made = variables(ours, x)
    close(ours.apply(made, x), theirs.apply(made, x))


@pytest.mark.parametrize("channels, groups", [(16, 8), (12, 4), (6, 2), (3, 1), (8, 8)])
def test_group_norm_shares_8_groups_with_the_channels(channels, groups):
    x = images(2, 3, channels)
    made = variables(nn.GroupNorm(), x)
    np.testing.assert_array_equal(nn.GroupNorm().apply(made, x), nn.GroupNorm(groups).apply(made, x))


@pytest.mark.parametrize(
    "module, function", [(nn.LayerNorm(), F.layer_norm), (nn.InstanceNorm(), F.instance_norm)]
)
def test_layer_and_instance_norm_are_their_functions(module, function):
    x = images(2, 3, 4)
    made = variables(module, x)
    expected = function(x, made["params"]["scale"], made["params"]["bias"])
    for train in (True, False):
        np.testing.assert_array_equal(module.apply(made, x, train=train), expected)


@pytest.mark.parametrize("name", nn.NORMS)
def test_bfloat16_keeps_its_type_and_wide_statistics(name):
    module = nn.NORMS[name]()
    x = (images(4, 3, 3, 8) + 100).astype(jnp.bfloat16)
    made = variables(module, x)
    y, updated = module.apply(made, x, train=True, mutable=[STATISTICS])
    assert y.dtype == jnp.bfloat16
    wide, expected = module.apply(made, x.astype(jnp.float32), train=True, mutable=[STATISTICS])
    np.testing.assert_array_equal(y, wide.astype(jnp.bfloat16))
    jax.tree.map(np.testing.assert_array_equal, updated, expected)


def test_errors():
    with pytest.raises(ValueError, match="6 channels do not divide into 4 groups"):
        shapes(nn.GroupNorm(4), jnp.zeros((2, 3, 6)))
    with pytest.raises(ValueError, match="instance_norm takes x .* rank 3 or more"):
        shapes(nn.InstanceNorm(), jnp.zeros((2, 6)))
