import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.study import RunDevices, over_runs


def affine(one, shared):
    return {"y": one["a"] * shared + one["b"]}


@pytest.fixture
def many(rng):
    return {"a": rng.normal(size=(8, 3)).astype(np.float32), "b": rng.normal(size=(8, 3)).astype(np.float32)}


@pytest.mark.parametrize("run_axis", ["map", "vmap", "auto"])
def test_every_way_of_mapping_gives_each_run_its_own(many, run_axis):
    y = jax.jit(over_runs(affine, run_axis=run_axis))(many, jnp.float32(2))["y"]
    np.testing.assert_allclose(y, many["a"] * 2 + many["b"], rtol=1e-6)


def test_runs_are_split_over_all_devices(many):
    devices = RunDevices()
    assert devices.count == 8
    split = devices.split(many)
    compiled = devices.compile(affine, split, jnp.float32(2))
    y = compiled(split, jnp.float32(2))["y"]
    assert len({shard.device for shard in y.addressable_shards}) == 8
    np.testing.assert_allclose(y, many["a"] * 2 + many["b"], rtol=1e-6)


def test_padding_fills_every_device():
    devices = RunDevices(jax.devices()[:3])
    assert [devices.padded(n) for n in (1, 3, 4, 7)] == [3, 3, 6, 9]
