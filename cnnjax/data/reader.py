"""Examples by their position in the stream of images: which one it is, its cut, and what takes a damaged one's place."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cnnjax.data.examples import Examples
from cnnjax.data.pictures import Box, Cut, center_box, decode

# So many in a row are no single damaged files, but a disk that is gone.
_MOST_CORRUPT = 100
# The order of an epoch and the cut of an example have streams of their own.
_ORDER, _CUT = 0, 1


class Example(NamedTuple):
    """An image `(size, size, channels)` in uint8; `corrupt` names what could not be read on the way to it."""

    image: np.ndarray
    label: Any
    weight: float
    corrupt: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reader:
    """Makes an example of a position. `cut` draws a random part; without it the center is taken."""

    source: Examples
    size: int
    seed: int
    cut: Callable[..., Box] | None
    skip: bool

    def endless(self, position: int, _: int) -> Example:
        """That at a position in the row of all epochs."""
        count = len(self.source)
        epoch, place = divmod(position, count)
        index = int(_order(self.seed, epoch, count)[place])
        cut = self._center
        if self.cut is not None:
            cut = functools.partial(self.cut, rng=np.random.default_rng((self.seed, _CUT, epoch, index)))
        corrupt: list[str] = []
        for there in range(index, index + min(count, _MOST_CORRUPT)):
            try:
                return self._read(there % count, cut)._replace(corrupt=tuple(corrupt))
            except ValueError:
                if not self.skip:
                    raise
                corrupt.append(self.source.name(there % count))
        raise ValueError(f"{len(corrupt)} images in a row cannot be read, from {corrupt[0]} to {corrupt[-1]}")

    def once(self, position: int) -> Example:
        """That at a position in the source, or a black one of weight 0 behind its end."""
        if position >= len(self.source):
            return self._black()
        try:
            return self._read(position, self._center)
        except ValueError:
            if not self.skip:
                raise
            return self._black(self.source.name(position))

    def _read(self, index: int, cut: Cut) -> Example:
        try:
            data, label = self.source[index]
            return Example(decode(data, cut, size=self.size, channels=self.source.channels), label, 1.0)
        except Exception as error:  # The readers of files, of records and of images each raise their own.
            raise ValueError(
                f"{self.source.name(index)} cannot be read ({error}): replace it, or leave it out by on_corrupt='skip'"
            ) from error

    def _center(self, width: int, height: int) -> Box:
        return center_box(width, height, size=self.size)

    def _black(self, *corrupt: str) -> Example:
        return Example(
            np.zeros((self.size, self.size, self.source.channels), np.uint8), self.source.blank, 0.0, corrupt
        )


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    # grain's own shuffle, of four rounds, leaves epochs of tens of thousands of examples correlated, up to r = 0.2, and
    # makes the classes of a sorted source come a third more evenly than chance (grain 0.2.18).
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(count).astype(np.int32)
