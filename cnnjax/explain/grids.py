"""Filters and feature maps as one picture each."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnnjax.probes.points import probe_points
from cnnjax.probes.trees import at_path


def image_grid(
    pictures: np.ndarray | jax.Array, *, columns: int | None = None, margin: int = 1, background: float = 1.0
) -> np.ndarray:
    """Pictures side by side, row by row.

    Args:
      pictures: `(n, height, width)`, or with channels, `(n, height, width, channels)`.
      columns: pictures of a row; None makes the grid about square.
      margin: pixels between two pictures.
      background: what margins and places without a picture hold.

    Returns:
      `(rows * (height + margin) - margin, columns * (width + margin) - margin)`, with channels where there are any.

    Raises:
      ValueError: there is no picture, or they are not 2-D.
    """
    tiles = np.asarray(pictures)
    if tiles.ndim not in (3, 4) or not len(tiles):
        raise ValueError(
            f"pictures must be (n, height, width) or (n, height, width, channels), n >= 1; got shape {tiles.shape}"
        )
    columns = min(columns or math.ceil(math.sqrt(len(tiles))), len(tiles))
    rows = -(-len(tiles) // columns)
    (height, width), channels = tiles.shape[1:3], tiles.shape[3:]
    grid = np.full((rows, columns, height + margin, width + margin, *channels), background, tiles.dtype)
    grid.reshape(-1, *grid.shape[2:])[: len(tiles), :height, :width] = tiles
    whole = np.moveaxis(grid, 2, 1).reshape(rows * (height + margin), columns * (width + margin), *channels)
    return whole[: whole.shape[0] - margin, : whole.shape[1] - margin]


def first_layer_filters(model: nn.Module, variables: Mapping[str, Any], images: jax.Array) -> np.ndarray:
    """The kernel of the first layer as pictures with values 0..1: 0.5 is a weight of zero, the largest magnitude is 0 or 1.

    Args:
      model: called as `model(images, train=False)`.
      variables: of the model.
      images: `(batch, height, width, channels)`; only their shape counts.

    Returns:
      `(features, height, width, 3)` where the images have three channels, which are then the colors; otherwise a picture for
      each pair, `(features * channels, height, width)`.

    Raises:
      ValueError: the first kernel is not that of a 2-D convolution.
    """
    points = probe_points(model, variables, images, train=False)
    path = next((point.kernel for point in points if point.kernel is not None), None)
    kernel = np.zeros(()) if path is None else np.asarray(at_path(variables["params"], path))
    if kernel.ndim != 4:
        raise ValueError(
            f"the first layer of {type(model).__name__} has no filters to look at: its kernel has shape {kernel.shape}, and "
            "that of a 2-D convolution is (height, width, channels, features)"
        )
    scaled = 0.5 + 0.5 * kernel / max(float(np.abs(kernel).max()), np.finfo(np.float32).tiny)
    filters = np.moveaxis(scaled, -1, 0)
    return filters if filters.shape[-1] == 3 else np.moveaxis(filters, -1, 1).reshape(-1, *kernel.shape[:2])


def channel_pictures(maps: np.ndarray | jax.Array) -> np.ndarray:
    """The maps of one image, `(height, width, channels)`, as pictures `(channels, height, width)` with values 0..1.

    Each channel is scaled by itself, from its least to its greatest value; a constant one is 0.

    Raises:
      ValueError: the maps are of another rank.
    """
    values = np.asarray(maps, np.float32)
    if values.ndim != 3:
        raise ValueError(f"maps of one image must be (height, width, channels); got shape {values.shape}")
    low, high = values.min(axis=(0, 1)), values.max(axis=(0, 1))
    return np.moveaxis((values - low) / np.where(high > low, high - low, 1), -1, 0)
