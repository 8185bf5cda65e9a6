"""Figures of what a network sees, in the style of the report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnjax.explain.grids import channel_pictures, first_layer_filters, image_grid
from cnnjax.explain.overlay import overlay
from cnnjax.functional.names import lookup
from cnnjax.probes import features
from cnnjax.report.style import WIDTH, styled

_COLUMNS = 4


@styled
def filters(model: nn.Module, variables: Mapping[str, Any], images: jax.Array) -> Figure:
    """The filters of the first layer; gray is a weight of zero.

    Args and raises: as `first_layer_filters`.
    """
    figure, (axes,) = _panels(1)
    grid = image_grid(first_layer_filters(model, variables, images))
    _show(axes, grid, "filters of the first layer")
    return figure


@styled
def feature_maps(
    model: nn.Module,
    variables: Mapping[str, Any],
    image: jax.Array,
    *,
    layers: Sequence[str] | None = None,
    channels: int = 16,
) -> Figure:
    """The maps of layers for one image, a panel a layer; each channel is scaled by itself.

    Args:
      model: called as `model(images, train=False)`.
      variables: of the model.
      image: `(height, width, channels)`.
      layers: names of layers, as in `probes.features`; None takes all that put out maps of more than one position.
      channels: how many of a layer to show, the first ones.

    Raises:
      ValueError: no such layer, a layer whose output is no map, or there is none to show.
    """
    found = {name: maps[0] for name, maps in features(model, variables, image[None]).items()}
    chosen = [name for name, maps in found.items() if maps.ndim == 3 and maps[..., 0].size > 1]
    if layers is not None:
        chosen = [name for name in layers if lookup(found, name, "layer") is not None]
    if not chosen:
        raise ValueError(f"no layer of {type(model).__name__} puts out a map that could be shown")
    figure, panels = _panels(len(chosen))
    for axes, name in zip(panels, chosen, strict=True):
        _show(axes, image_grid(channel_pictures(found[name])[:channels]), name)
    return figure


@styled
def overlays(pictures: np.ndarray, maps: Mapping[str, np.ndarray | jax.Array]) -> Figure:
    """Pictures, and under each the maps of several methods over it.

    Args:
      pictures: `(n, height, width, channels)`, uint8.
      maps: `(n, height, width)` by the title of the row.

    Raises:
      ValueError: maps and pictures do not belong together.
    """
    rows = 1 + len(maps)
    figure = Figure(figsize=(WIDTH, WIDTH * rows / (max(len(pictures), _COLUMNS) + 1)), layout="constrained")
    grid = figure.subplots(rows, len(pictures), squeeze=False)
    for i, picture in enumerate(pictures):
        levels = picture if picture.shape[-1] == 3 else picture[..., 0]
        _show(grid[0, i], levels, "")
        for row, heats in zip(grid[1:], maps.values(), strict=True):
            _show(row[i], overlay(picture, np.asarray(heats[i])), "")
    for axes, title in zip(grid[:, 0], ("picture", *maps), strict=True):
        axes.set_ylabel(title, rotation=0, ha="right", va="center")
    return figure


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(count, _COLUMNS)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(WIDTH * columns / _COLUMNS, WIDTH * rows / _COLUMNS * 1.1), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axes in grid[count:]:
        axes.remove()
    return figure, list(grid[:count])


def _show(axes: Axes, picture: np.ndarray, title: str) -> None:
    limits: Any = {"vmin": 0, "vmax": 255 if picture.dtype == np.uint8 else 1}
    axes.imshow(picture, cmap="gray", interpolation="nearest", **limits)
    axes.set(title=title, xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
