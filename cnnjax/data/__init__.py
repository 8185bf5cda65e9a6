"""Image classification sets as uint8 arrays, their normalization and their batches.

`load` reads a set onto the host and `Dataset.on_device` puts it on the device. `batch_indices` and
`normalize` run inside the compiled step.
"""

from cnnjax.data.batches import batch_indices
from cnnjax.data.dataset import Dataset, Split, normalize
from cnnjax.data.prepare import prepare
from cnnjax.data.sources import load

__all__ = [
    "Dataset",
    "Split",
    "batch_indices",
    "load",
    "normalize",
    "prepare",
]
