"""Checksums: of the bytes, whatever the layout, also of arrays that no host holds (test_hosts.py has real hosts)."""

import types
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from cnnjax.training import checksums as module
from cnnjax.training.checksums import checksums
from cnnjax.training.parallel import make_mesh


def test_they_are_those_of_the_bytes(rng):
    tree = {
        "a": {"kernel": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)},
        "b": [jnp.arange(5, dtype=jnp.bfloat16), np.float64(1.5), jnp.zeros((0, 2)), jnp.asarray(True)],
    }
    found = checksums(tree)
    assert list(found) == ["a/kernel", "b/0", "b/1", "b/2", "b/3"]
    assert found["a/kernel"] == [[4, 3], "float32", zlib.crc32(np.asarray(tree["a"]["kernel"]).tobytes())]
    assert found["b/0"] == [[5], "bfloat16", zlib.crc32(np.asarray(tree["b"][0]).tobytes())]
    assert found["b/1"] == [[], "float64", zlib.crc32(np.float64(1.5).tobytes())]
    assert found["b/2"][:2] == [[0, 2], "float32"] and found["b/3"] == [[], "bool", zlib.crc32(b"\1")]


@pytest.mark.parametrize("spec", [("data",), (None, "data"), ("model", "data"), ()])
def test_the_layout_does_not_matter(rng, spec):
    whole = rng.normal(size=(8, 12)).astype(np.float32)
    placed = jax.device_put(whole, NamedSharding(make_mesh(model=2), PartitionSpec(*spec)))
    assert checksums({"x": placed}) == checksums({"x": whole})


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_the_parts_of_several_hosts_give_that_of_the_whole(rng, monkeypatch, count):
    whole = rng.normal(size=(24, 3)).astype(np.float32)
    # Each host has two copies of its rows, of which one counts.
    pieces = np.split(np.arange(24), count)
    hosts = [
        types.SimpleNamespace(
            shape=whole.shape,
            dtype=whole.dtype,
            addressable_shards=[
                types.SimpleNamespace(index=(piece,), replica_id=copy, data=whole[piece] + copy)
                for copy in (0, 1)
            ],
        )
        for piece in pieces
    ]
    monkeypatch.setattr(module, "_is_split", lambda leaf: True)
    owns = np.asarray([[module._crc(module._own_part(host))] for host in hosts], np.uint32)
    monkeypatch.setattr(module.multihost_utils, "process_allgather", lambda own: owns)
    for host in hosts:
        assert checksums([host])["0"][-1] == zlib.crc32(whole.tobytes())
