"""Files of pictures, as arrays that a model takes."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cnnjax.files import replacing

_MODES = {1: "L", 3: "RGB"}


def read_picture(path: Path, *, size: tuple[int, int], channels: int = 3) -> np.ndarray:
    """A picture as `(height, width, channels)` in uint8: scaled to cover the size, its center cut out.

    Args:
      path: of any file that Pillow reads.
      size: height and width.
      channels: 3 for colors, 1 for gray.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is no picture, or one that ends too early; or the channels are neither 1 nor 3.
    """
    if channels not in _MODES:
        raise ValueError(f"a picture has 1 or 3 channels; the model takes {channels}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: name a picture, as in cat.jpg")
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert(_MODES[channels])
    # What Pillow raises depends on the format and on where a file is broken.
    except Exception as error:
        raise ValueError(f"{path} is no picture that Pillow can read: {error}") from error
    height, width = size
    fitted = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(fitted).reshape(height, width, channels)


def check_ending(path: Path) -> str:
    """The format in which Pillow writes a file of this name: that of its ending, or PNG.

    Raises:
      ValueError: Pillow does not write files of this ending.
    """
    kind = Image.registered_extensions().get(path.suffix.lower(), None if path.suffix else "PNG")
    if kind not in Image.SAVE:
        raise ValueError(
            f"Pillow writes no files that end in {path.suffix!r}: use {path.with_suffix('.png')}"
        )
    return kind


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes `(height, width)` or `(height, width, 3)`, uint8; nobody sees the file half written.

    Raises:
      ValueError: Pillow does not write files of this ending.
    """
    kind = check_ending(path)
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, format=kind)
