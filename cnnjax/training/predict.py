"""What a trained network sees in pictures: files as images of its size, probabilities with the names of classes."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image, ImageOps

from cnnjax.data.pictures import MODES, center_box, decode


def read_images(
    paths: Sequence[Path],
    *,
    image_shape: Sequence[int],
    note: Callable[[str], object] = lambda text: None,
) -> np.ndarray:
    """Pictures as a network takes them, `(n, height, width, channels)` in uint8.

    Square ones as streamed sets are evaluated: the short side is made 256 / 224 of the size and the center is cut out, but
    a picture of just the size is left whole. Others are scaled to cover the size.

    Args:
      paths: of files that Pillow reads.
      image_shape: height, width and channels.
      note: is told of pictures that are enlarged.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a file is no picture, none is named, or pictures do not have so many channels.
    """
    height, width, channels = image_shape
    if channels not in MODES:
        raise ValueError(
            f"expected pictures of {', '.join(map(str, MODES))} channels; the network takes {channels}"
        )
    if not paths:
        raise ValueError("name one or more pictures, as in cat.jpg")
    return np.stack([_read(path, (height, width, channels), note) for path in paths])


def _read(path: Path, shape: tuple[int, int, int], note: Callable[[str], object]) -> np.ndarray:
    height, width, _ = shape
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: name a picture, as in cat.jpg")
    try:
        with Image.open(path) as picture:
            across, down = picture.size
            image = _fitted(path, picture, shape)
    # What Pillow raises depends on the format and on where a file is broken.
    except Exception as error:
        raise ValueError(f"{path} is no picture that Pillow can read: {error}") from error
    if across < width or down < height:
        note(f"{path} has {across} x {down} pixels and is enlarged to {width} x {height}")
    return image


def _fitted(path: Path, picture: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    height, width, channels = shape
    if height == width:
        cut = functools.partial(center_box, size=height)
        return decode(path.read_bytes(), cut, size=height, channels=channels)
    covering = ImageOps.fit(picture.convert(MODES[channels]), (width, height), Image.Resampling.BILINEAR)
    return np.asarray(covering).reshape(shape)


def top(
    probabilities: np.ndarray | jax.Array, *, class_names: Sequence[str], count: int = 5
) -> list[list[tuple[str, float]]]:
    """The likeliest classes of each row, from the likeliest on, with their probabilities.

    Args:
      probabilities: `(n, classes)`.
      class_names: in the order of the classes.
      count: how many; all classes where there are fewer. Of equal ones the one in front comes first.

    Raises:
      ValueError: the names do not fit the probabilities, or `count` is below 1.
    """
    rows = np.asarray(probabilities, np.float64)
    if rows.ndim != 2 or rows.shape[1] != len(class_names):
        raise ValueError(
            f"expected probabilities (n, {len(class_names)}), a column for each name; got {rows.shape}"
        )
    if count < 1:
        raise ValueError(f"count says how many classes to name, at least 1; got {count}")
    order = np.argsort(-rows, axis=1, kind="stable")[:, :count]
    return [
        [(class_names[int(index)], float(row[index])) for index in likeliest]
        for row, likeliest in zip(rows, order, strict=True)
    ]
