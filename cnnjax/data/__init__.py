"""Image classification sets, in memory or on the disk, their normalization and their batches.

`load` reads a set onto the host and `Dataset.on_device` puts it on the device. `batch_indices` and
`normalize` run inside the compiled step. `open_stream` opens a set that is too large for that; `batches` decodes it
batch by batch and `prefetch` brings them to the device ahead of their use.
"""

from cnnjax.data.batches import batch_indices
from cnnjax.data.dataset import Dataset, Split, normalize
from cnnjax.data.image_batches import ImageBatch, ImageBatches, batches
from cnnjax.data.prefetch import Prefetched, prefetch
from cnnjax.data.prepare import prepare
from cnnjax.data.sources import load
from cnnjax.data.stream import StreamedDataset, open_stream

__all__ = [
    "Dataset",
    "ImageBatch",
    "ImageBatches",
    "Prefetched",
    "Split",
    "StreamedDataset",
    "batch_indices",
    "batches",
    "load",
    "normalize",
    "open_stream",
    "prefetch",
    "prepare",
]
