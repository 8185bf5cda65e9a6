"""Singular values of a model's Jacobians: from image to logits, between any two layers, and of every single layer."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from cnnjax.functional.names import lookup
from cnnjax.probes.passage import Site, find, image_sites, passage
from cnnjax.probes.spectrum import Spectrum, full_spectrum, top_spectrum

JACOBIAN_COLUMNS = ("mean", "median", "maximum", "minimum", "condition", "log10_mean_square")
"""The columns of `LayerJacobians`, each a property of `Spectrum`."""


@functools.partial(jax.tree_util.register_dataclass, data_fields=["table"], meta_fields=["layers"])
@dataclasses.dataclass(frozen=True)
class LayerJacobians:
    """A row of numbers for the Jacobian of each layer, in execution order; a pytree.

    Attributes:
      layers: names of the layers, as in `Flow.layers`.
      table: `(layers, columns)`, its columns in the order of `JACOBIAN_COLUMNS`.
    """

    layers: tuple[str, ...]
    table: jax.Array

    def frame(self) -> pd.DataFrame:
        """A row for each layer: `path` and the columns.

        Raises:
          ValueError: the table carries further axes (of a vmap): take one entry of it first.
        """
        if self.table.ndim != 2:
            raise ValueError(
                f"a frame has one row for each of {len(self.layers)} layers, but this table has shape "
                f"{self.table.shape}: select one entry first, as in jax.tree.map(lambda a: a[0], jacobians)"
            )
        columns = zip(JACOBIAN_COLUMNS, np.asarray(self.table).T, strict=True)
        return pd.DataFrame({"path": self.layers, **dict(columns)})


def jacobian_spectrum(
    model: nn.Module,
    variables: Mapping[str, Any],
    image: jax.Array,
    *,
    start: str | None = None,
    end: str | None = None,
    k: int | None = None,
    steps: int = 30,
    samples: int = 8,
    key: jax.Array | None = None,
    train: bool = False,
    precision: str | None = "highest",
) -> Spectrum:
    """Singular values of the Jacobian of a model, or of a part of it, at one image.

    May be called inside jit and vmap. What underflows in the Jacobian itself is 0 here: below 1e-38 in float32; in a
    `jax.enable_x64` context float64 images are taken, too.

    Args:
      model: a Flax module whose activations are `cnnjax.nn.Activation`; called as `model(images, train=...)`.
      variables: of the model, with "params".
      image: one example, `(height, width, channels)` or what else the model takes, without a batch axis.
      start: the layer whose pre-activations are varied, a name as in `Flow.layers`; None varies the image.
      end: the layer whose pre-activations are looked at; None looks at the logits.
      k: how many of the largest values, by `top_spectrum`; None computes all of them, by `full_spectrum`.
      steps, samples, key: as in `top_spectrum`.
      train: whether norms use the statistics of this one image.
      precision: of all products (`jax.default_matmul_precision`); None leaves the platform's default.

    Returns:
      A `Spectrum`.

    Raises:
      ValueError: the model has no probe point or does not take the image, a layer is unknown (with the nearest), `end`
        does not come after `start`, or `k`, `steps` or `samples` is out of its range.
      TypeError: the image is not floating point.
    """
    known = image_sites(model, variables, image, train=train)
    first, last = find(known, start), find(known, end)
    names = list(known)
    if start is not None and end is not None and names.index(end) <= names.index(start):
        raise ValueError(
            f"end must come after start; got start={start!r} and end={end!r} of {', '.join(names)}"
        )
    function, shift = passage(model, variables, image, start=first, end=last, train=train)
    if k is None:
        return full_spectrum(function, shift, precision=precision)
    options: dict[str, Any] = dict(k=k, steps=steps, samples=samples, key=key)
    return top_spectrum(function, shift, precision=precision, **options)


def layer_jacobians(
    model: nn.Module,
    variables: Mapping[str, Any],
    image: jax.Array,
    *,
    layers: Sequence[str] | None = None,
    train: bool = False,
    precision: str | None = "highest",
) -> LayerJacobians:
    """The spectrum of every single layer: from the pre-activations of the layer before it (or the image) to its own.

    Layers beside each other, such as a branch and the projection of its shortcut, are taken in the order of execution: the
    layer before is then not the one whose output a layer reads.

    All singular values are computed. Compiles once for each kind of layer, whatever the depth; every Jacobian passes
    through the whole network, so the time grows with the square of the depth: name some `layers` of a deep one.
    May be called inside jit and vmap.

    Args:
      model, variables, image, train, precision: as in `jacobian_spectrum`.
      layers: names as in `Flow.layers`; None is all.

    Raises:
      ValueError: the model has no probe point or does not take the image, `layers` is empty, or one is unknown (with the
        nearest).
      TypeError: the image is not floating point.
    """
    known = image_sites(model, variables, image, train=train)
    before: dict[str, Site | None] = dict(zip(known, [None, *known.values()], strict=False))
    chosen = tuple(known if layers is None else layers)
    if not chosen:
        raise ValueError(f"name one layer or more, or leave out layers for all of: {', '.join(known)}")
    pairs = [(before.get(name), lookup(known, name, "layer")) for name in chosen]
    table = jnp.zeros((len(pairs), len(JACOBIAN_COLUMNS)), image.dtype)
    for rows, start, end in _alike(pairs):
        function, shift = passage(model, variables, image, start=start, end=end, train=train)

        def row(indices: jax.Array, function: Any = function, shift: jax.Array = shift) -> jax.Array:
            one = full_spectrum(lambda s: function(s, indices[0], indices[1]), shift, precision=precision)
            return jnp.stack([getattr(one, name) for name in JACOBIAN_COLUMNS])

        indices = [
            (0 if first is None else first.index, last.index) for first, last in map(pairs.__getitem__, rows)
        ]
        table = table.at[np.asarray(rows)].set(jax.lax.map(row, jnp.asarray(indices)))
    return LayerJacobians(chosen, table)


def _alike(
    pairs: Sequence[tuple[Site | None, Site]],
) -> Iterable[tuple[list[int], Site | None, Site]]:
    """The rows whose layers are the same part of the model, with one of their pairs of sites."""

    def parts(row: int) -> tuple:
        start, end = pairs[row]
        return (() if start is None else start.point.path, end.point.path)

    for _, group in itertools.groupby(sorted(range(len(pairs)), key=parts), parts):
        rows = list(group)
        yield rows, *pairs[rows[0]]
