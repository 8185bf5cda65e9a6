"""What a streamed set is read from: encoded images by their position."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from cnnjax.data.draws import Divisible


class Encoded(NamedTuple):
    """An image as it lies on the disk, and its label: an int32, or bool `(classes,)`."""

    data: bytes
    label: Any


class Examples(Divisible, Protocol):
    """Labeled images that can be read in any order; they may differ in size."""

    @property
    def channels(self) -> int:
        """Those that they are decoded to: 1, 3 or 4."""
        ...

    @property
    def labels(self) -> np.ndarray:
        """Class numbers `(n,)`, int32, or, where an image may show several, whether it shows each, `(n, classes)`, bool."""
        ...

    @property
    def blank(self) -> Any:
        """The label of what fills up a batch: as those of the examples are."""
        ...

    def __getitem__(self, index: int) -> Encoded:
        """The image at a position, read from the disk.

        Raises:
            Exception: it cannot be read.
        """
        ...

    def name(self, index: int) -> str:
        """What to call that image in a message."""
        ...
