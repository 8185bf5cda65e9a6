"""Occlusion: how much a score falls when a part of the image is hidden."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.explain.cut import cut
from cnnjax.explain.inputs import spread
from cnnjax.explain.target import Target, chosen_scores, resolve_target
from cnnjax.functional.padding import per_axis


def occlusion(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    *,
    target: Target = None,
    layer: str | None = None,
    window: int | Sequence[int] | None = None,
    stride: int | Sequence[int] | None = None,
    fill: jax.Array | float = 0.0,
) -> jax.Array:
    """Occlusion sensitivity (Zeiler & Fergus 2014, section 4.2): the fall of the score when a window hides a part.

    Each position of the window takes one forward pass of the batch, one after the other. The last window of an axis ends
    at the border. May be called inside jit.

    Args:
      model: called as `model(images, train=False)`.
      variables: of the model.
      images: `(batch, *spatial, channels)`; or words `(batch, length)`, integers.
      target: the class, one for all images or `(batch,)`; None takes the predicted one.
      layer: hide parts of what this layer puts out, by its name (see `cut`); None hides parts of the images.
      window: size of the hidden part; None takes a fifth of each axis.
      stride: from window to window, at most the window's size; None takes half of that.
      fill: what the hidden part is replaced by; broadcasts to the images. 0 is the mean color of normalized images.

    Returns:
      `(batch, *spatial)`: at each pixel the mean fall over the windows that cover it. Of the size of the images, or of what
      the layer puts out.

    Raises:
      ValueError: no such layer or class, a layer without spatial axes, windows that do not fit or leave gaps, or a fill that
        does not broadcast.
      TypeError: the class or a size is no integer.
    """
    function, maps = cut(model, variables, images, layer)
    spatial = maps.shape[1:-1] if jnp.issubdtype(maps.dtype, jnp.floating) else maps.shape[1:]
    if not spatial:
        raise ValueError(
            f"occlusion takes a layer with spatial maps; {layer!r} puts out shape {maps.shape[1:]}"
        )
    corners, sizes = _windows(spatial, window, stride)
    replaced = spread(fill, maps, "fill")
    whole = function(maps)
    classes = resolve_target(whole, target)
    before = chosen_scores(whole, classes)
    per_pixel = (len(before), *[1] * len(spatial))

    def hide(
        sums: tuple[jax.Array, jax.Array], corner: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        fall, count = sums
        hidden = _inside(spatial, corner, sizes)
        full = jnp.broadcast_to(
            hidden.reshape(1, *spatial, *[1] * (maps.ndim - 1 - len(spatial))), maps.shape
        )
        after = chosen_scores(function(jnp.where(full, replaced, maps)), classes)
        return (
            fall + jnp.where(hidden[None], (before - after).reshape(per_pixel), 0),
            count + hidden.astype(count.dtype),
        ), None

    empty = jnp.zeros((len(before), *spatial), before.dtype), jnp.zeros(spatial, before.dtype)
    (fall, count), _ = jax.lax.scan(hide, empty, corners)
    return fall / count[None]


def _windows(
    spatial: tuple[int, ...], window: int | Sequence[int] | None, stride: int | Sequence[int] | None
) -> tuple[jax.Array, tuple[int, ...]]:
    """The first pixel of each window, `(windows, axes)`, and the size of a window."""
    rank = len(spatial)
    sizes = per_axis([max(1, side // 5) for side in spatial] if window is None else window, rank, "window")
    steps = per_axis([max(1, size // 2) for size in sizes] if stride is None else stride, rank, "stride")
    if any(size > side for size, side in zip(sizes, spatial, strict=True)):
        raise ValueError(f"the window must fit into {spatial}; got window={tuple(sizes)}")
    if any(step > size for step, size in zip(steps, sizes, strict=True)):
        raise ValueError(
            f"a stride beyond the window leaves gaps: got stride={tuple(steps)} and window={tuple(sizes)}"
        )
    starts = [
        [*range(0, side - size, step), side - size]
        for side, size, step in zip(spatial, sizes, steps, strict=True)
    ]
    return jnp.asarray(list(itertools.product(*starts)), jnp.int32), tuple(sizes)


def _inside(spatial: tuple[int, ...], corner: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """Which pixels lie in a window, bools of the shape `spatial`."""
    hidden = jnp.ones(spatial, bool)
    for axis, (side, size) in enumerate(zip(spatial, sizes, strict=True)):
        offsets = jnp.arange(side) - corner[axis]
        inside = (offsets >= 0) & (offsets < size)
        hidden &= jnp.expand_dims(inside, [other for other in range(len(spatial)) if other != axis])
    return hidden
