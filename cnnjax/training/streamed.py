"""A set that is larger than memory, read and decoded while training goes on."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnnjax.data import StreamedDataset, batches, normalize, prefetch
from cnnjax.training import hosts
from cnnjax.training.feed import CALIBRATION_IMAGES, Weighed, check_fits, evaluation_batch
from cnnjax.training.placement import split
from cnnjax.training.plan import Plan
from cnnjax.training.step import Batch, Moments


@dataclasses.dataclass(frozen=True, kw_only=True)
class Streaming:
    """How a streamed set is read. How many workers and batches there are changes no number.

    Attributes:
      crop: of training images: "random_resized", a part of random size and shape (Szegedy et al. 2015), or "center".
      smallest: share of an image that a random part has at least.
      workers: processes that read and decode; 0 does it in this one.
      prefetched: batches on their way to the devices.
      on_corrupt: what follows an image that cannot be read: "error", or "skip", which counts it and takes the next one.
    """

    crop: Literal["random_resized", "center"] = "random_resized"
    smallest: float = 0.08
    workers: int = 0
    prefetched: int = 2
    on_corrupt: Literal["error", "skip"] = "error"

    def __post_init__(self):
        for name, least in (("workers", 0), ("prefetched", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, got {getattr(self, name)}")
        if not 0 < self.smallest <= 1:
            raise ValueError(f"smallest is a share of an image and must lie in (0, 1], got {self.smallest}")


class Streamed:
    """A `Feed` from the disk. Every process reads its share of each batch.

    Args:
      dataset: from `data.open_stream`.
      plan: its batch size and seed.
      mesh: of the run.
      streaming: how it is read.
    """

    def __init__(self, dataset: StreamedDataset, plan: Plan, mesh: Mesh, streaming: Streaming) -> None:
        self.dataset, self.mesh, self.streaming = dataset, mesh, streaming
        self.batch_size, self.seed = plan.batch_size, plan.seed
        self.sizes = {name: len(getattr(dataset, name)) for name in ("train", "validation", "test")}
        check_fits(plan.batch_size, self.sizes["train"])
        self.moments = Moments(jnp.asarray(dataset.mean), jnp.asarray(dataset.std))
        self.waited = 0.0
        self._open = functools.partial(
            batches,
            image_size=dataset.image_shape[0],
            processes=(jax.process_index(), jax.process_count()),
            workers=streaming.workers,
            on_corrupt=streaming.on_corrupt,
        )
        self._current: Any = None
        self._position = -1
        self._kept: dict[str, Any] = {}

    def first_images(self) -> jax.Array:
        """See `Feed`."""
        size = min(CALIBRATION_IMAGES, self.batch_size)
        source = self._open(self.dataset.train, batch_size=size, seed=self.seed, processes=(0, 1), workers=0)
        with contextlib.closing(source):
            return normalize(jnp.asarray(next(iter(source)).images), *self.moments)

    def batch(self, step: int) -> Batch:
        """See `Feed`. Reads it anew."""
        source = self._training(step, workers=0)
        with contextlib.closing(source):
            return self._placed(next(iter(source))).batch

    def following(self, step: int) -> Iterator[Batch]:
        """See `Feed`. Goes on where the last one was left if that was at this step."""
        if self._position != step:
            self.close()
            source = self._training(step)
            if self._kept.get("batches") == step:
                source.restore(self._kept)
            self._current = prefetch(source, self._placed, size=self.streaming.prefetched)
            self._position = step
        current, before = self._current, self._current.waited
        for weighed in current:
            self.waited += current.waited - before
            before = current.waited
            self._position += 1
            yield weighed.batch

    def evaluation(self, name: str) -> Iterator[Weighed]:
        """See `Feed`."""
        size = evaluation_batch(self.sizes[name], self.mesh)
        source = self._open(getattr(self.dataset, name), batch_size=size, seed=None)
        with contextlib.closing(prefetch(source, self._placed, size=self.streaming.prefetched)) as found:
            yield from found

    @property
    def corrupt(self) -> Mapping[str, int]:
        """See `Feed`."""
        return self.state().get("corrupt", {})

    def state(self) -> dict[str, Any]:
        """See `Feed`."""
        return self._kept if self._current is None else self._current.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Feed`."""
        self._kept = dict(state)

    def close(self) -> None:
        """See `Feed`."""
        if self._current is not None:
            self._kept = self._current.state()
            self._current.close()
            self._current = None

    def _training(self, step: int, **options: Any) -> Any:
        return self._open(
            self.dataset.train,
            batch_size=self.batch_size,
            seed=self.seed,
            first=step,
            crop=self.streaming.crop,
            area=(self.streaming.smallest, 1.0),
            **options,
        )

    def _placed(self, found: Any) -> Weighed:
        place = split(self.mesh)
        images, labels, weights = (
            hosts.share(np.asarray(array), place) for array in (found.images, found.labels, found.weights)
        )
        return Weighed(Batch(images, labels), weights)
