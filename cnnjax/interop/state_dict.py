"""Files of tensors by their names, as PyTorch's world shares them: safetensors, and `torch.save`'s."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from cnnjax.files import replacing
from cnnjax.interop.pth import LEGACY, ZIP, read_pth, write_pth


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a file, whatever it is called: its first bytes say what it is.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is of neither kind, was cut off, or holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: name one that holds weights")
    with path.open("rb") as file:
        start = file.read(len(LEGACY))
    if start.startswith(ZIP) or start == LEGACY:
        return read_pth(path)
    if start[8:9] != b"{":
        raise ValueError(
            f"{path} is neither a safetensors file nor one of torch.save: it starts with {start!r}"
        )
    try:
        return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}): it was cut off") from error


def write_state_dict(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors as .safetensors, .pth or .pt; nobody sees the file half written.

    Raises ValueError for a path that ends with none of them.
    """
    path = Path(path)
    if path.suffix in (".pth", ".pt"):
        return write_pth(path, tensors)
    if path.suffix != ".safetensors":
        raise ValueError(f"weights are written to .safetensors, .pth or .pt; got {path.name!r}")
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with replacing(path) as temporary:
        # The metadata are what torch's readers of such files ask for. `save_file` makes files that nobody else may read.
        temporary.write_bytes(safetensors.numpy.save(arrays, metadata={"format": "pt"}))
