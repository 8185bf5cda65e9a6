"""Runs an exported network on JAX and NumPy alone: this file works by itself, without the rest of the package.

Three lines do it without this file, too (JAX reads such programs by the package flatbuffers):

    program = jax.export.deserialize(bytearray(pathlib.Path("model.stablehlo").read_bytes()))
    images = numpy.zeros((7, 32, 32, 3), numpy.uint8)  # any number of them, of the "image_shape" in model.json
    logits = program.call(images)
"""

import dataclasses
import functools
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

FORMAT = 1
"""Of the description; a later one may hold what this file cannot read."""
PROGRAM, WEIGHTS, DESCRIPTION = "model.stablehlo", "weights.safetensors", "model.json"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ExportedModel:
    """A network that was exported. Called with images, it gives their logits.

    Attributes:
      image_shape: height, width and channels of an image.
      mean, std: of each channel on the scale 0..1, by which the program normalizes.
      class_names: in the order of the logits.
      platforms: that it runs on, as in ("cpu", "cuda", "tpu").
      about: what else the exporter said of it.
      program: as JAX holds it.
    """

    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    platforms: tuple[str, ...]
    about: Mapping[str, Any]
    program: jax.export.Exported

    def __call__(self, images: np.ndarray | jax.Array) -> jax.Array:
        """The logits `(batch, classes)`, float32. Each batch size is compiled once.

        Args:
          images: `(batch, height, width, channels)`, uint8, at least one.

        Raises:
          TypeError: the images are not uint8.
          ValueError: they have another shape.
        """
        if images.dtype != np.uint8:
            raise TypeError(
                f"expected uint8 images on the scale 0..255, which the program normalizes itself; got {images.dtype}"
            )
        if images.ndim != 4 or images.shape[1:] != self.image_shape or not images.shape[0]:
            sizes = ", ".join(map(str, self.image_shape))
            raise ValueError(f"expected one or more images (batch, {sizes}); got {tuple(images.shape)}")
        return self._compiled(images)

    @functools.cached_property
    def _compiled(self) -> Callable[[Any], jax.Array]:
        return jax.jit(self.program.call)


def load(folder: str | Path) -> ExportedModel:
    """Reads a network that `cnnjax export` wrote; its weights lie in the program.

    Args:
      folder: that holds `model.json` and `model.stablehlo`.

    Raises:
      FileNotFoundError: one of them is missing.
      ValueError: they have a newer format, are damaged, or do not belong to each other.
    """
    path = Path(folder) / DESCRIPTION
    told, program = _described(path), _bytes(Path(folder) / PROGRAM)
    if zlib.crc32(program) != told["crc32"]:
        raise ValueError(
            f"{path.with_name(PROGRAM)} is not the program that {DESCRIPTION} describes: it was cut off or changed, or "
            "belongs to another export; export the network again"
        )
    return ExportedModel(
        image_shape=tuple(told["image_shape"]),
        mean=tuple(told["mean"]),
        std=tuple(told["std"]),
        class_names=tuple(told["class_names"]),
        platforms=tuple(told["platforms"]),
        about=told["about"],
        program=jax.export.deserialize(bytearray(program)),
    )


def _described(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(_bytes(path))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it is no JSON ({error}); export the network again") from error
    if told["format"] > FORMAT:
        raise ValueError(
            f"{path} has format {told['format']}, and this code reads up to {FORMAT}: use the cnnjax that wrote it "
            f"({told['versions']['cnnjax']}), or a later one"
        )
    return told


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {path}: name a folder that `cnnjax export` wrote, or export the network again"
        )
    return path.read_bytes()
