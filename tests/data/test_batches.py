"""Batches by (key, step): the definition written out, and independence of how the steps are cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.data import batch_indices

draw = jax.jit(batch_indices, static_argnames=("steps", "size", "batch_size"))


def by_definition(key, first_step, *, steps, size, batch_size):
    rows = []
    for step in range(first_step, first_step + steps):
        epoch, position = divmod(step, size // batch_size)
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), size))
        rows.append(order[position * batch_size : (position + 1) * batch_size])
    return np.stack(rows)


@pytest.mark.parametrize("steps, size, batch_size", [(1, 20, 6), (9, 20, 5), (4, 7, 7), (3, 5, 1)])
def test_equals_the_definition(steps, size, batch_size):
    key, options = jax.random.key(3), dict(steps=steps, size=size, batch_size=batch_size)
    for first_step in (0, 1, 3, 8, 1000):
        rows = draw(key, first_step, **options)
        assert rows.dtype == jnp.int32
        np.testing.assert_array_equal(rows, by_definition(key, first_step, **options))


@pytest.mark.parametrize("cuts", [[1] * 12, [5, 7], [2, 3, 7]])
def test_any_cut_of_the_steps_gives_the_same_rows(cuts):
    key, starts = jax.random.key(0), np.cumsum([4, *cuts[:-1]]).tolist()
    pieces = [
        draw(key, start, steps=steps, size=17, batch_size=4)
        for start, steps in zip(starts, cuts, strict=True)
    ]
    np.testing.assert_array_equal(np.concatenate(pieces), draw(key, 4, steps=12, size=17, batch_size=4))


def test_an_epoch_repeats_no_example_and_epochs_differ():
    epochs = np.asarray(draw(jax.random.key(0), 0, steps=9, size=20, batch_size=6)).reshape(3, 18)
    for epoch in epochs:
        assert len(set(epoch.tolist())) == 18 and epoch.min() >= 0 and epoch.max() < 20
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3


def test_a_full_batch_is_a_permutation_of_all_examples():
    rows = draw(jax.random.key(0), 2, steps=3, size=11, batch_size=11)
    np.testing.assert_array_equal(np.sort(rows), np.tile(np.arange(11), (3, 1)))


@pytest.mark.parametrize("over_keys", [jax.vmap, lambda f: lambda keys: jax.lax.map(f, keys)])
def test_over_keys(over_keys):
    options = dict(steps=4, size=10, batch_size=4)
    keys = jax.random.split(jax.random.key(0), 3)
    rows = jax.jit(over_keys(lambda key: batch_indices(key, 3, **options)))(keys)
    np.testing.assert_array_equal(rows, np.stack([draw(key, 3, **options) for key in keys]))
    assert len({row.tobytes() for row in np.asarray(rows)}) == 3


def test_over_steps():
    key, options = jax.random.key(0), dict(size=10, batch_size=3)
    rows = jax.jit(jax.vmap(lambda step: batch_indices(key, step, steps=1, **options)[0]))(jnp.arange(7))
    np.testing.assert_array_equal(rows, draw(key, 0, steps=7, **options))


def test_over_devices():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("run",))
    run, everywhere = jax.sharding.PartitionSpec("run"), jax.sharding.PartitionSpec()
    keys = jax.random.split(jax.random.key(0), len(jax.devices()))

    def runs(keys, step):
        return jax.lax.map(lambda key: batch_indices(key, step, steps=4, size=10, batch_size=4), keys)

    sharded = jax.jit(jax.shard_map(runs, mesh=mesh, in_specs=(run, everywhere), out_specs=run))
    np.testing.assert_array_equal(sharded(keys, jnp.int32(3)), jax.jit(runs)(keys, jnp.int32(3)))


@pytest.mark.parametrize(
    "steps, batch_size, message",
    [
        (1, 11, "a batch of 11 needs as many examples, got 10"),
        (0, 2, "at least 1, got 0 and 2"),
        (1, 0, "got 1 and 0"),
    ],
)
def test_impossible_batches(steps, batch_size, message):
    with pytest.raises(ValueError, match=message):
        batch_indices(jax.random.key(0), 0, steps=steps, size=10, batch_size=batch_size)
