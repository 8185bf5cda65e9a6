"""Files of `torch.save`, read and written without torch.

Such a file is a pickle, and a pickle can run any code that its author likes. This reader knows the few names that tensors
need, makes nothing from them but tuples that describe a tensor, and refuses a file that holds any other name.
"""

import math
import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from cnnjax.files import replacing

ZIP = b"PK\x03\x04"
"""How a file of torch 1.6 or newer starts."""
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How an older one starts: the pickle of a number."""

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_STORAGE_OF = {dtype: storage for storage, dtype in _STORAGES.items()}


class _Storage(NamedTuple):
    dtype: str
    key: str
    length: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _State(dict):
    """In the place of an ordered dictionary. Attributes, such as the versions of torch's modules, are forgotten."""

    def __setstate__(self, state: object) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    """Makes dictionaries of descriptions of tensors.

    What it hands to a pickle cannot be changed from there: text, tuples, and methods of this one reader.
    """

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.cuda") and name in _STORAGES:
            return _STORAGES[name]
        known: dict[tuple[str, str], Callable] = {
            ("collections", "OrderedDict"): self._dictionary,
            ("torch._utils", "_rebuild_tensor"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
        }
        if (module, name) not in known:
            raise ValueError(
                f"it holds {module}.{name}, and a pickle that holds more than tensors may run any code: save the state dict "
                "alone, with torch.save(model.state_dict(), path)"
            )
        return known[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, length, *view = pid
        if kind != "storage" or dtype not in _STORAGE_OF or any(view):
            raise ValueError(f"it holds a storage of an unknown kind, {pid!r}")
        return _Storage(dtype, str(key), int(length))

    def _dictionary(self, *_: object) -> _State:
        return _State()

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: object) -> _Tensor:
        numbers = (offset, *size, *stride)
        fits = isinstance(storage, _Storage) and len(size) == len(stride)
        if not fits or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError("it describes a tensor by something else than a storage and sizes")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if math.prod(size) and last >= storage.length:
            raise ValueError(f"a tensor of shape {tuple(size)} reaches past the end of its storage")
        return _Tensor(storage, offset, tuple(size), tuple(stride))

    def _parameter(self, tensor: Any, *_: object) -> Any:
        return tensor


def read_pth(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict by their names, from either format of `torch.save`.

    Raises:
      ValueError: the file is no state dict, holds anything but tensors, or was cut off.
    """
    with path.open("rb") as file:
        legacy = file.read(len(LEGACY)) == LEGACY
        file.seek(0)
        try:
            state, data = (_read_legacy if legacy else _read_zip)(file)
            return {name: _array(tensor, data) for name, tensor in _checked(state).items()}
        except ValueError as error:
            raise ValueError(f"{path} is refused: {error}") from error
        # A broken pickle may raise anything.
        except Exception as error:
            raise ValueError(
                f"{path} is no whole file of torch.save: {error or type(error).__name__}"
            ) from error


def _read_zip(file: IO[bytes]) -> tuple[Any, Mapping[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError(
                "it is a zip archive that torch.save did not write: there is no data.pkl in its folder"
            )
        root = roots[0]
        if f"{root}byteorder" in names:
            _check_byteorder(archive.read(f"{root}byteorder") == b"little")
        with archive.open(f"{root}data.pkl") as pickled:
            state = _Unpickler(pickled, encoding="utf-8").load()
        keys = {t.storage.key for t in _checked(state).values()}
        return state, {key: archive.read(f"{root}data/{key}") for key in keys}


def _read_legacy(file: IO[bytes]) -> tuple[Any, Mapping[str, bytes]]:
    """Pickles of a number, a version, the system, the state and the storages' keys; then each storage and its length."""
    _, _, system, state, keys = (_Unpickler(file, encoding="utf-8").load() for _ in range(5))
    _check_byteorder(system["little_endian"])
    storages = {t.storage.key: t.storage for t in _checked(state).values()}
    data = {}
    for key in keys:
        length = int.from_bytes(file.read(8), "little")
        dtype = storages[key].dtype if key in storages else None
        if dtype is None or length != storages[key].length:
            raise ValueError(f"its storage {key} has another length than its tensors say, or none of them")
        data[key] = file.read(length * jnp.dtype(dtype).itemsize)
    return state, data


def _check_byteorder(little: bool) -> None:
    if not little:
        raise ValueError("it was written on a big-endian machine: save it again on another")


def _checked(state: Any) -> dict[str, _Tensor]:
    """The state, where it is a dictionary of tensors."""
    if not isinstance(state, dict):
        raise ValueError(
            f"it holds no state dict but something {_kind(state)}: save one with torch.save(model.state_dict(), path)"
        )
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise ValueError(
                f"its entry {name!r} is no tensor but {_kind(value)}: save the state dict alone, with "
                "torch.save(model.state_dict(), path)"
            )
    return state


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"of type {'OrderedDict' if name == '_State' else name.removeprefix('_')}"


def _array(tensor: _Tensor, data: Mapping[str, bytes]) -> np.ndarray:
    storage, dtype = tensor.storage, jnp.dtype(tensor.storage.dtype)
    if len(data[storage.key]) != storage.length * dtype.itemsize:
        raise ValueError(f"it was cut off: storage {storage.key} has less than {storage.length} numbers")
    flat = np.frombuffer(data[storage.key], dtype)[tensor.offset :]
    strides = [step * dtype.itemsize for step in tensor.stride]
    # The tensor lies in its storage: `_Unpickler` saw to it.
    return np.lib.stride_tricks.as_strided(flat, tensor.size, strides, writeable=False)


def write_pth(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict that `torch.load` reads, with `weights_only=True`, too."""
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:

        def add(name: str, content: bytes) -> None:
            # Without a date, so that equal tensors make equal files.
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)

        add("data.pkl", _pickled(arrays))
        add("byteorder", sys.byteorder.encode())
        for key, array in enumerate(arrays.values()):
            add(f"data/{key}", array.tobytes())
        add("version", b"3\n")


def _pickled(arrays: Mapping[str, np.ndarray]) -> bytes:
    """What torch's pickler writes for a dictionary of tensors, each with a storage of its own, operation by operation."""
    items = b"".join(_plain(name) + _rebuild(str(k), a) for k, (name, a) in enumerate(arrays.items()))
    return pickle.PROTO + b"\x02" + _EMPTY + pickle.MARK + items + pickle.SETITEMS + pickle.STOP


def _rebuild(key: str, array: np.ndarray) -> bytes:
    stride = tuple(step // array.itemsize for step in array.strides)
    storage = _named("torch", _STORAGE_OF[array.dtype.name])
    pid = _plain("storage") + storage + _plain(key) + _plain("cpu") + _plain(array.size)
    pid = pickle.MARK + pid + pickle.TUPLE + pickle.BINPERSID
    arguments = pid + _plain(0) + _plain(array.shape) + _plain(stride) + pickle.NEWFALSE + _EMPTY
    function = _named("torch._utils", "_rebuild_tensor_v2")
    return function + pickle.MARK + arguments + pickle.TUPLE + pickle.REDUCE


def _plain(value: Any) -> bytes:
    # Without the version in front and the stop behind.
    return pickle.dumps(value, 2)[2:-1]


def _named(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


_EMPTY = _named("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
