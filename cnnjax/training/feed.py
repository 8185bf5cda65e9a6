"""Where the batches of a run come from, and the set that lies on the devices."""

import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from cnnjax.compiling import jit
from cnnjax.data import Dataset, Split, batch_indices, normalize
from cnnjax.data.augment import alternating
from cnnjax.training import hosts
from cnnjax.training.parallel import DATA
from cnnjax.training.placement import split
from cnnjax.training.plan import Plan
from cnnjax.training.step import Batch, Moments

EVALUATION_BATCH = 500
CALIBRATION_IMAGES = 2000
"""Images by which a model may calibrate itself before the first step."""


class Keys(NamedTuple):
    """The random streams of a run: initial parameters, order of the examples, what a step draws, mirror images."""

    initial: jax.Array
    order: jax.Array
    step: jax.Array
    mirror: jax.Array

    @classmethod
    def of(cls, seed: int) -> "Keys":
        """Those of a seed."""
        return cls(*jax.random.split(jax.random.key(seed), 4))


class Weighed(NamedTuple):
    """A batch of an evaluation, with weights `(batch,)`: 1, or 0 for examples that fill it up."""

    batch: Batch
    weights: jax.Array


class Feed(Protocol):
    """What an `Engine` takes batches from.

    Attributes:
      batch_size: of all devices together.
      moments: of the training images.
      sizes: examples of "train", "validation" and "test".
      waited: seconds that training has waited for batches.
      corrupt: images that were left out because they cannot be read, with how often.
    """

    @property
    def batch_size(self) -> int: ...
    @property
    def moments(self) -> Moments: ...
    @property
    def sizes(self) -> Mapping[str, int]: ...
    @property
    def waited(self) -> float: ...
    @property
    def corrupt(self) -> Mapping[str, int]: ...

    def first_images(self) -> jax.Array:
        """Normalized training images, by which a model may calibrate itself; the same ones every time."""
        ...

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        ...

    def following(self, step: int) -> Iterator[Batch]:
        """The batches from a step on, without an end."""
        ...

    def evaluation(self, name: str) -> Iterator[Weighed]:
        """All examples of a split, once."""
        ...

    def state(self) -> dict[str, Any]:
        """What else a checkpoint needs to go on with the next batch, as JSON."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state` gave."""
        ...

    def close(self) -> None:
        """Lets go of processes and files."""
        ...


class Resident:
    """A data set that lies on every device of a mesh; its batches are drawn by (seed, step) in the compiled program.

    Args:
      dataset: from `data.load`.
      plan: its batch size.
      keys: of the run.
      mesh: of the run.
      mirrors: whether batches say which images an alternating flip turns.
    """

    waited = 0.0
    corrupt: Mapping[str, int] = {}

    def __init__(self, dataset: Dataset, plan: Plan, keys: Keys, mesh: Mesh, *, mirrors: bool) -> None:
        self.batch_size, self.keys, self.mesh, self.mirrors = plan.batch_size, keys, mesh, mirrors
        splits = {name: getattr(dataset, name) for name in ("train", "validation", "test")}
        self.sizes = {name: len(part) for name, part in splits.items()}
        check_fits(plan.batch_size, self.sizes["train"])
        self.moments = Moments(jnp.asarray(dataset.mean), jnp.asarray(dataset.std))
        self.splits: dict[str, Split] = hosts.everywhere(splits, mesh)
        self._calibration = dataset.train.images[:CALIBRATION_IMAGES]
        self._draw = jit(self._drawn, out_shardings=split(mesh))

    def first_images(self) -> jax.Array:
        """See `Feed`."""
        return normalize(jnp.asarray(self._calibration), *self.moments)

    def rows(self, step: jax.Array, steps: int) -> jax.Array:
        """Indices `(steps, batch)` of the examples from a step on; may be traced."""
        size, batch_size = self.sizes["train"], self.batch_size
        return batch_indices(self.keys.order, step, steps=steps, size=size, batch_size=batch_size)

    def taken(self, train: Split, row: jax.Array, step: jax.Array) -> Batch:
        """The batch of a step, from its indices; may be traced."""
        batch = Batch(jnp.asarray(train.images)[row], jnp.asarray(train.labels)[row])
        if self.mirrors:
            epoch = step // (self.sizes["train"] // self.batch_size)
            batch = batch._replace(mirrored=alternating(self.keys.mirror, row, epoch))
        return jax.lax.with_sharding_constraint(batch, split(self.mesh))

    def batch(self, step: int) -> Batch:
        """See `Feed`."""
        return self._draw(self.splits["train"], jnp.int32(step))

    def following(self, step: int) -> Iterator[Batch]:
        """See `Feed`."""
        return map(self.batch, itertools.count(step))

    def evaluation(self, name: str) -> Iterator[Weighed]:
        """See `Feed`."""
        part, size = self.splits[name], evaluation_batch(self.sizes[name], self.mesh)
        cut = jit(functools.partial(_piece, size=size), out_shardings=split(self.mesh))
        for start in range(0, self.sizes[name], size):
            yield cut(part, jnp.int32(start))

    def state(self) -> dict[str, Any]:
        """See `Feed`. The batches follow from the step."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Feed`."""

    def close(self) -> None:
        """See `Feed`."""

    def _drawn(self, train: Split, step: jax.Array) -> Batch:
        return self.taken(train, self.rows(step, 1)[0], step)


def check_fits(batch_size: int, size: int) -> None:
    """Raises ValueError where there are fewer training images than a batch has."""
    if batch_size > size:
        raise ValueError(
            f"a batch of {batch_size} needs as many examples, got {size}: make batch_size smaller"
        )


def evaluation_batch(size: int, mesh: Mesh) -> int:
    """Examples of a batch of an evaluation: near `EVALUATION_BATCH`, as many on each device, filled as well as can be."""
    parts = mesh.shape[DATA]
    pieces = max(-(-size // EVALUATION_BATCH), 1)
    return -(-size // (pieces * parts)) * parts


def _piece(part: Split, start: jax.Array, *, size: int) -> Weighed:
    """Some examples of a split; what lies behind its end is filled up by its last one."""
    rows = start + jnp.arange(size)
    inside = jnp.minimum(rows, len(part) - 1)
    batch = Batch(jnp.asarray(part.images)[inside], jnp.asarray(part.labels)[inside])
    return Weighed(batch, (rows < len(part)).astype(jnp.float32))
