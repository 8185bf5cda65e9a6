"""Checksums of arrays that do not depend on the devices, nor the hosts, over which the arrays are laid."""

import functools
import operator
import zlib
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

__all__ = ["checksums", "leaves", "path_of"]


def leaves(tree: Any) -> list[tuple[str, Any]]:
    """The arrays of a tree by their paths, "params/conv/kernel"."""
    return [(path_of(keys), leaf) for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def path_of(keys: Any) -> str:
    """The keys of JAX to an array as a path."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def checksums(tree: Any) -> dict[str, list[Any]]:
    """Shape, type and CRC-32 of the bytes of each array, by path.

    For an array that is split over hosts, each host takes the CRC of its parts in an array of zeros. As the CRC of a sum
    modulo 2 follows from those of its terms, crc(a ^ b) = crc(a) ^ crc(b) ^ crc(0), these together give that of the whole
    array, which no host holds. All processes call this; a copy that every host has is checked by each for itself.

    Args:
      tree: of arrays.
    """
    found = {path: _crc(_own_part(leaf)) for path, leaf in leaves(tree)}
    split = [path for path, leaf in leaves(tree) if _is_split(leaf)]
    if split:
        own = np.asarray([found[path] for path in split], np.uint32)
        parts = multihost_utils.process_allgather(own)
        found |= {path: _joined(parts[:, i], dict(leaves(tree))[path]) for i, path in enumerate(split)}
    return {path: [list(leaf.shape), str(leaf.dtype), found[path]] for path, leaf in leaves(tree)}


def _is_split(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated)


def _own_part(leaf: Any) -> np.ndarray:
    if not _is_split(leaf):
        return np.asarray(leaf)
    part = np.zeros(leaf.shape, leaf.dtype)
    for shard in leaf.addressable_shards:
        if shard.replica_id == 0:
            part[shard.index] = np.asarray(shard.data)
    return part


def _crc(array: np.ndarray) -> int:
    content: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return zlib.crc32(content)


def _joined(parts: np.ndarray, leaf: Any) -> int:
    nothing = _crc(np.zeros(leaf.shape, leaf.dtype)) if len(parts) % 2 == 0 else 0
    return functools.reduce(operator.xor, parts.tolist(), nothing)
