import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import functional as F
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


def test_one_after_the_other_is_a_loop_and_all_at_once_is_none(many):
    programs = {
        axis: str(jax.make_jaxpr(over_runs(affine, run_axis=axis))(many, jnp.float32(2)))
        for axis in ("map", "vmap")
    }
    assert "scan" in programs["map"] and "scan" not in programs["vmap"]


@pytest.mark.parametrize("groups", [1, 2, 8], ids=["dense", "grouped", "depthwise"])
def test_gradients_of_convolutions_do_not_depend_on_how_runs_are_mapped(rng, groups):
    kernels = rng.normal(size=(3, 3, 3, 8 // groups, 8)).astype(np.float32)
    images = rng.normal(size=(4, 5, 5, 8)).astype(np.float32)

    def gradients(kernel, images):
        def loss(kernel, images):
            return jnp.sum(jnp.square(F.conv(images, kernel, groups=groups)))

        return jax.grad(loss, (0, 1))(kernel, images)

    mapped, at_once = (
        jax.jit(over_runs(gradients, run_axis=axis))(kernels, images) for axis in ("map", "vmap")
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-3), at_once, mapped)


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


def test_the_same_program_is_compiled_once_for_all_functions(many, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        jax.stages.Lowered,
        "compile",
        lambda self, compile=jax.stages.Lowered.compile: compiled.append(0) or compile(self),
    )
    programs = RunDevices().programs
    doubled, again, tripled, renamed = (
        programs.call(function, many["a"])
        for function in (
            lambda a: {"y": 2 * a},
            lambda b: {"y": 2 * b},
            lambda a: {"y": 3 * a},
            lambda a: {"z": 2 * a},
        )
    )
    np.testing.assert_array_equal(doubled["y"], 2 * many["a"])
    np.testing.assert_array_equal(again["y"], 2 * many["a"])
    np.testing.assert_array_equal(tripled["y"], 3 * many["a"])
    np.testing.assert_array_equal(renamed["z"], 2 * many["a"])
    assert len(compiled) == 3


def test_arguments_that_nothing_uses_count():
    programs = RunDevices().programs
    for size in (3, 4):
        assert programs.call(lambda x, unused: x + 1, jnp.ones(2), jnp.ones(size)).tolist() == [2, 2]
