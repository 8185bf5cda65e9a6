"""Variables in a safetensors file under their own paths: "params/stem/linear/kernel", "batch_stats/stem/norm/mean"."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import safetensors
import safetensors.flax
from flax.traverse_util import flatten_dict, unflatten_dict

from cnnjax.files import replacing
from cnnjax.interop.differences import differences


def save_variables(path: Path, variables: Mapping[str, Any]) -> None:
    """Writes all collections of a model's variables; nobody sees the file half written.

    Args:
      path: of the file.
      variables: nested dictionaries of arrays, as `model.init` makes them.
    """
    flat = flatten_dict(dict(variables), sep="/")
    with replacing(path) as temporary:
        # Its own `save_file` makes files that nobody else may read.
        temporary.write_bytes(safetensors.flax.save({name: jnp.asarray(leaf) for name, leaf in flat.items()}))


def load_variables(
    path: Path, model: nn.Module, image: Sequence[int], *, dtype: str = "float32"
) -> dict[str, Any]:
    """The variables that `save_variables` wrote, in the types that the model makes them in.

    Args:
      path: of the file.
      model: that they belong to.
      image: shape of one input, `(*spatial, channels)`.
      dtype: of the input.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is no whole safetensors file, or holds other variables than the model: tensors that are missing,
        extra or of another shape are named.
    """
    found = _read(path)
    inputs = jax.ShapeDtypeStruct((1, *image), jnp.dtype(dtype))
    expected: dict[str, Any] = flatten_dict(
        dict(jax.eval_shape(model.init, jax.random.key(0), inputs)), sep="/"
    )
    if texts := list(differences(found, expected)):
        raise ValueError(
            f"{path} does not hold the variables of this {type(model).__name__}: {'; '.join(texts)}"
        )
    return unflatten_dict({name: found[name].astype(leaf.dtype) for name, leaf in expected.items()}, sep="/")


def _read(path: Path) -> dict[str, jax.Array]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: name one that save_variables wrote")
    try:
        return safetensors.flax.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is no whole safetensors file ({error}): it is of another kind, or was cut off"
        ) from error
