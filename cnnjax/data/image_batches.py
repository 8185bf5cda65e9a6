"""Batches of streamed images: read, decoded and cut by threads or worker processes (grain), the same however many.

Mirror images and changes of color are left to `cnnjax.training.Augmentation`, inside of the compiled step.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from cnnjax.data.examples import Examples
from cnnjax.data.pictures import random_box
from cnnjax.data.reader import Example, Reader
from cnnjax.data.workers import obey_parent

if TYPE_CHECKING:
    import grain

_MOST_THREADS = 8


class ImageBatch(NamedTuple):
    """A process's share of a batch.

    Images `(batch, size, size, channels)` in uint8, labels as the source has them, and weights `(batch,)` in float32: 0
    where there is no image, 1 elsewhere.
    """

    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


class ImageBatches(Iterator[ImageBatch]):
    """An iterator over batches that can be resumed; made by `batches`.

    `corrupt` counts, by name, how often this process has met an image that cannot be read. After `close` the next batch
    starts threads and processes anew.
    """

    def __init__(
        self,
        shares: grain.MapDataset[_Share],
        *,
        of: Mapping[str, int | None],
        first: int,
        workers: int,
        buffer: int,
    ) -> None:
        self.corrupt: Counter[str] = Counter()
        self._shares, self._of, self._workers, self._buffer = shares, dict(of), workers, buffer
        self._position = first
        self._open: Any = None

    def __next__(self) -> ImageBatch:
        if self._open is None:
            self._open = _opened(self._shares[self._position :], workers=self._workers, buffer=self._buffer)
        try:
            share = next(self._open)
        except BaseException as error:
            # grain's iterators do not say with what they would go on.
            self.close()
            if isinstance(error, RuntimeError) and self._workers:
                raise RuntimeError(self._ended(error)) from error
            raise
        self._position += 1
        self.corrupt.update(share.corrupt)
        # What lies in memory that is shared with a worker leaves it: there may be little of it.
        return ImageBatch(*(array if type(array) is np.ndarray else np.array(array) for array in share.batch))

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on behind the last batch, as JSON; it holds for any number of processes and workers."""
        return {"batches": self._position, **self._of, "corrupt": dict(self.corrupt)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises:
            ValueError: it is of other batches, which would be other images.
        """
        for key, value in self._of.items():
            if state[key] != value:
                raise ValueError(f"this state is of batches with {key} {state[key]}, these have {value}")
        self.close()
        self._position = state["batches"]
        self.corrupt = Counter(state["corrupt"])

    def close(self) -> None:
        """End threads and worker processes."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _ended(self, error: RuntimeError) -> str:
        return (
            f"a worker process that reads images came to an end ({error}). Memory may have run out, or shared memory, "
            f"where each of {self._workers} workers keeps up to {self._buffer + 1} batches: take fewer workers or a "
            "smaller buffer"
        )


def batches(
    source: Examples,
    *,
    batch_size: int,
    image_size: int,
    seed: int | None,
    first: int = 0,
    processes: tuple[int, int] = (0, 1),
    workers: int = 0,
    buffer: int = 2,
    on_corrupt: Literal["error", "skip"] = "error",
    crop: Literal["random_resized", "center"] | None = None,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> ImageBatches:
    """Batches of a source, as they are trained on (with a seed) or evaluated (without).

    With a seed they never end. Epoch `e` has every example once, in the order
    `numpy.random.default_rng((seed, 0, e)).permutation(len(source))`; a batch may reach from one epoch into the next.
    What is random in a crop is drawn from `numpy.random.default_rng((seed, 1, e, example))`. Nothing depends on
    `processes`, `workers`, `buffer` or on where reading started.

    Without a seed every example comes once, in order, and the last batch is filled up with black images of weight 0.

    Args:
        source: a part of a `StreamedDataset`.
        batch_size: of all processes together.
        image_size: height and width that images are brought to, in pixels.
        seed: of order and crops, or None.
        first: batches to leave out at the start, as `ImageBatches.restore` would.
        processes: which process this is, of how many; each reads an equal part of every batch, and those of all
            processes, one after the other, are the batch of a single one.
        workers: processes that decode, each whole batches; with 0, threads of this one do. A script that starts
            workers needs `if __name__ == "__main__":`.
        buffer: batches that are kept ready, by each worker.
        on_corrupt: what an image that cannot be read leads to. "error": a ValueError with its name. "skip": it is
            counted; in training, the next one of the source that can be read takes its place, and in evaluation it
            has weight 0.
        crop: "random_resized" (the default with a seed) takes a part of random size and shape (`pictures.random_box`);
            "center" (the default without) resizes the short side to 256 / 224 of `image_size` and keeps the center, but
            leaves an image that has this size whole (`pictures.center_box`).
        area, ratio: limits of a random part, its share of the image's area and its width / height.

    Raises:
        TypeError, ValueError: an option is out of range, or a batch cannot be divided among the processes.
    """
    chosen = crop or ("center" if seed is None else "random_resized")
    _check_counts(
        seed=seed, batch_size=batch_size, image_size=image_size, first=first, workers=workers, buffer=buffer
    )
    _check_processes(processes, batch_size)
    _check_choices(on_corrupt, chosen, seed, area, ratio)
    if seed is not None and not len(source):
        raise ValueError("there are no images to train on: the source is empty")
    reader = Reader(
        source=source,
        size=image_size,
        seed=seed or 0,
        cut=functools.partial(random_box, area=area, ratio=ratio) if chosen == "random_resized" else None,
        skip=on_corrupt == "skip",
    )
    shares = _shares(reader, batch_size, processes, endless=seed is not None)
    of = {"seed": seed, "batch_size": batch_size, "examples": len(source)}
    return ImageBatches(shares, of=of, first=first, workers=workers, buffer=buffer)


class _Share(NamedTuple):
    batch: ImageBatch
    corrupt: tuple[str, ...]


def _shares(
    reader: Reader, batch_size: int, processes: tuple[int, int], *, endless: bool
) -> grain.MapDataset[_Share]:
    """The share of this process in every batch."""
    import grain

    index, count = processes
    size = len(reader.source)
    if endless:
        examples = grain.MapDataset.range(size).repeat().map_with_index(reader.endless)
    else:
        examples = grain.MapDataset.range(-(-size // batch_size) * batch_size).map(reader.once)
    return examples.batch(batch_size // count, drop_remainder=True, batch_fn=_share)[index::count]


def _share(examples: Sequence[Example]) -> _Share:
    images, labels, weights, corrupt = zip(*examples, strict=True)
    batch = ImageBatch(np.stack(images), np.stack(labels), np.array(weights, np.float32))
    return _Share(batch, sum(corrupt, ()))


def _opened(shares: grain.MapDataset[_Share], *, workers: int, buffer: int) -> Iterator[_Share]:
    """Begins to read."""
    import grain
    from absl import flags

    workers = min(workers, len(shares))
    if not workers:
        threads = min(os.cpu_count() or 1, _MOST_THREADS)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, buffer))
        return iter(shares.to_iter_dataset(options))
    if not flags.FLAGS.is_parsed():
        # Otherwise grain 0.2.18 refuses to start workers (its issue 1355).
        flags.FLAGS.mark_as_parsed()
    alone = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    parallel = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=buffer)
    return iter(shares.to_iter_dataset(alone).mp_prefetch(parallel, worker_init_fn=obey_parent))


def _check_counts(**given: int | None) -> None:
    least = {"seed": 0, "first": 0, "workers": 0}
    for name, value in given.items():
        if value is None and name == "seed":
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < least.get(name, 1):
            raise ValueError(f"{name} must be {least.get(name, 1)} or more, got {value}")


def _check_processes(processes: tuple[int, int], batch_size: int) -> None:
    index, count = processes
    if not 0 <= index < count:
        raise ValueError(f"processes must be (index, count) with 0 <= index < count, got {processes}")
    if batch_size % count:
        raise ValueError(
            f"a batch of {batch_size} cannot be divided among {count} processes: take a multiple"
        )


def _check_choices(
    on_corrupt: str, crop: str, seed: int | None, area: tuple[float, float], ratio: tuple[float, float]
) -> None:
    if on_corrupt not in ("error", "skip"):
        raise ValueError(f"on_corrupt must be 'error' or 'skip', got {on_corrupt!r}")
    if crop not in ("random_resized", "center"):
        raise ValueError(f"crop must be 'random_resized' or 'center', got {crop!r}")
    if crop == "random_resized" and seed is None:
        raise ValueError("a random crop needs a seed: give one, or take crop='center'")
    if not 0 < area[0] <= area[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
        raise ValueError(
            f"expected 0 < area[0] <= area[1] <= 1 and 0 < ratio[0] <= ratio[1], got area {area}, ratio {ratio}"
        )
