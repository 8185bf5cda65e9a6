"""A trained network as a program that runs without this code, with its weights and a description beside it.

The folder holds

- `model.stablehlo`: uint8 images `(batch, height, width, channels)` to float32 logits `(batch, classes)`, with the
  normalization and the weights inside, for any batch size and several platforms, written by `jax.export`;
- `weights.safetensors`: the variables by their names in the model, which `interop.load_variables` reads;
- `model.json`: image shape, mean and deviation of the channels, names of the classes, versions, and what the exporter tells.

`exported.load` runs it. JAX promises that its versions of the next six months read such a program.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from cnnjax import interop, machine
from cnnjax.data import normalize
from cnnjax.files import replacing
from cnnjax.training.exported import DESCRIPTION, FORMAT, PROGRAM, WEIGHTS, ExportedModel, load

__all__ = ["PLATFORMS", "ExportedModel", "export", "load"]

PLATFORMS = ("cpu", "cuda", "tpu")
"""Those that a program is made for, whatever it is made on."""


def export(
    model: nn.Module,
    variables: Mapping[str, Any],
    *,
    image_shape: Sequence[int],
    mean: Sequence[float] | np.ndarray,
    std: Sequence[float] | np.ndarray,
    class_names: Sequence[str],
    folder: Path,
    about: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Writes a network into a folder; an older export there is replaced, file by file.

    Args:
      model: called as `model(images, train=False)`.
      variables: of it.
      image_shape: height, width and channels.
      mean, std: `(channels,)` on the scale 0..1, by which images are normalized.
      class_names: in the order of the logits.
      folder: made where it is missing.
      about: what to tell besides, as JSON: the model's name and options, the step.

    Raises:
      ValueError: the moments do not fit the channels, or the names the logits; nothing is written then.
      OSError: a file cannot be written.
    """
    height, width, channels = image_shape
    moments = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    if any(values.shape != (channels,) for values in moments):
        raise ValueError(
            f"expected mean and std with a number for each of {channels} channels; got shapes {moments[0].shape} and "
            f"{moments[1].shape}"
        )
    program = _exported(model, variables, (height, width, channels), moments)
    if program.out_avals[0].shape[1:] != (len(class_names),):
        raise ValueError(
            f"expected a name for each logit of {type(model).__name__}, which gives {program.out_avals[0].shape}; got "
            f"{len(class_names)} names"
        )
    written = program.serialize()
    told = {
        "format": FORMAT,
        "image_shape": [height, width, channels],
        "mean": moments[0].tolist(),
        "std": moments[1].tolist(),
        "class_names": list(class_names),
        "platforms": list(program.platforms),
        "crc32": zlib.crc32(written),
        "versions": machine.versions(),
        "about": dict(about),
    }
    interop.save_variables(folder / WEIGHTS, variables)
    _write(folder / PROGRAM, written)
    # Last: it tells whether the program is whole.
    _write(folder / DESCRIPTION, json.dumps(told, indent=1).encode())


def _exported(
    model: nn.Module,
    variables: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    moments: tuple[np.ndarray, np.ndarray],
) -> jax.export.Exported:
    # However they lay over devices, in the program they are constants.
    constants = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), dict(variables))

    @jax.jit
    def logits(images: jax.Array) -> jax.Array:
        mean, std = map(jnp.asarray, moments)
        found: Any = model.apply(constants, normalize(images, mean, std), train=False)
        return found.astype(jnp.float32)

    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *image_shape), jnp.uint8)
    return jax.export.export(logits, platforms=PLATFORMS)(images)


def _write(path: Path, data: bytes | bytearray) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)
