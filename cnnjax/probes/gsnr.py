"""The gradient's signal-to-noise ratio over examples, layer by layer (Liu et al. 2020)."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from cnnjax import functional as F
from cnnjax.probes.flow import Recorder
from cnnjax.probes.points import Path
from cnnjax.probes.trees import at_path

GSNR_COLUMNS = ("mean", "pooled", "silent")
"""The columns of `GradientNoise`."""


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["table"], meta_fields=["layers", "examples"]
)
@dataclasses.dataclass(frozen=True)
class GradientNoise:
    """The gradient signal-to-noise ratio of each layer's kernel, in execution order; a pytree.

    Attributes:
      layers: names of the layers, as in `Flow.layers`.
      examples: how many the statistics are over.
      table: `(layers, columns)`, its columns in the order of `GSNR_COLUMNS`:
        mean: of mean^2 / variance over the weights (Liu et al. 2020, equation 2, averaged as in their figures);
        pooled: sum of mean^2 over sum of variance, which large gradients dominate;
        silent: the fraction of weights whose gradient is the same for every example, as in a dead unit; left out above.
        NaN where a layer has no kernel, and a ratio where all of its weights are silent.
    """

    layers: tuple[str, ...]
    examples: int
    table: jax.Array

    @property
    def floor(self) -> float:
        """What `mean` is where there is no signal but normal noise: (n - 1) / (n (n - 3)); infinite for n = 3 and less."""
        n = self.examples
        return (n - 1) / (n * (n - 3)) if n > 3 else float("inf")

    def frame(self) -> pd.DataFrame:
        """A row for each layer: `path` and the columns.

        Raises:
          ValueError: the table carries further axes (of a vmap): take one entry of it first.
        """
        if self.table.ndim != 2:
            raise ValueError(
                f"a frame has one row for each of {len(self.layers)} layers, but this table has shape "
                f"{self.table.shape}: select one entry first, as in jax.tree.map(lambda a: a[0], noise)"
            )
        columns = zip(GSNR_COLUMNS, np.asarray(self.table).T, strict=True)
        return pd.DataFrame({"path": self.layers, **dict(columns)})


def signal_to_noise(gradients: jax.Array) -> jax.Array:
    """(mean, pooled, silent) as in `GradientNoise`, `(3,)`, of the gradients of some weights.

    Args:
      gradients: `(examples, ...)`.
    """
    largest = jnp.max(jnp.abs(gradients))
    rows = (gradients / jnp.where(largest == 0, 1, largest)).reshape(len(gradients), -1)
    signal, noise = jnp.square(jnp.mean(rows, axis=0)), jnp.var(rows, axis=0, ddof=1)
    # The mean of equal numbers is not exactly that number.
    silent = jnp.max(rows, axis=0) == jnp.min(rows, axis=0)
    count = jnp.sum((~silent).astype(rows.dtype))
    ratios = jnp.where(silent, 0, signal / jnp.where(silent, 1, noise))
    pooled = jnp.sum(jnp.where(silent, 0, signal)) / jnp.sum(jnp.where(silent, 0, noise))
    return jnp.stack([jnp.sum(ratios) / count, pooled, 1 - count / rows.shape[1]]).astype(jnp.float32)


def gradient_noise(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    labels: jax.Array,
    *,
    loss: Callable[[jax.Array, jax.Array], jax.Array] = F.cross_entropy,
    train: bool = False,
    examples_at_once: int = 1,
    precision: str | None = "highest",
) -> GradientNoise:
    """The gradient signal-to-noise ratio of every layer's kernel, from the gradients of single examples.

    May be called inside jit. Memory: the kernels times the number of examples. Each gradient is that of one example alone,
    so batch norm uses its running statistics unless `train`, and then those of that one example.

    Args:
      model, variables, labels, loss, precision: as in `gradient_flow`.
      images: `(examples, height, width, channels)`, 2 examples or more.
      train: whether norms use the statistics of each single example.
      examples_at_once: how many gradients are computed side by side. On CPU one after the other is fastest.

    Raises:
      ValueError: fewer than 2 examples, as many labels as there are not, `variables` lack "params", or the model has no
        probe point.
    """
    _check(variables, images, labels)
    recorder = Recorder.of(model, variables, images[:1], train=train)
    rest = {name: tree for name, tree in variables.items() if name != "params"}

    def gradients(example: tuple[jax.Array, jax.Array]) -> Any:
        image, label = example

        def objective(params: Any) -> jax.Array:
            collections = {"params": params, **rest}
            logits, _ = model.apply(collections, image[None], train=train, mutable=["batch_stats"])
            return jnp.sum(loss(logits, label[None]))

        return jax.grad(objective)(variables["params"])

    with jax.default_matmul_precision(precision):
        stacked = jax.lax.map(gradients, (images, labels), batch_size=examples_at_once)
    rows = [_rows(recorder, stacked, point.path, point.kernel) for point in recorder.points]
    return GradientNoise(recorder.layers, len(images), jnp.concatenate(rows)[recorder.order])


def _rows(recorder: Recorder, gradients: Any, path: Path, kernel: Path | None) -> jax.Array:
    """`signal_to_noise` of a probe point's kernels, `(layers, 3)`; NaN without any."""
    slot = at_path(recorder.slots, path)
    lengths = slot["gradient"].shape[:-1]
    count = int(np.prod(lengths))
    if kernel is None:
        return jnp.full((count, len(GSNR_COLUMNS)), jnp.nan, jnp.float32)
    values = at_path(gradients, kernel)
    layered = values.reshape(len(values), count, *values.shape[1 + len(lengths) :])
    return jax.lax.map(signal_to_noise, jnp.moveaxis(layered, 1, 0))


def _check(variables: Mapping[str, Any], images: jax.Array, labels: jax.Array) -> None:
    if "params" not in variables:
        raise ValueError(
            f"variables must hold the collection 'params', as model.init makes them; got {sorted(variables)}"
        )
    if images.ndim < 2 or images.shape[0] < 2:
        raise ValueError(
            "a signal-to-noise ratio over examples takes 2 examples or more, images (examples, height, width, "
            f"channels); got shape {images.shape}"
        )
    if labels.shape[:1] != images.shape[:1]:
        raise ValueError(f"{images.shape[0]} images need as many labels; got shape {labels.shape}")
