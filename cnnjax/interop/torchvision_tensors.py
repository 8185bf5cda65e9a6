"""Which tensor of torchvision's is which array of ours, and how one is made from the other."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from cnnjax.interop.torchvision_names import Family, module_names
from cnnjax.models import Model

Path = tuple[str, ...]

_LEAVES = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "factor": "layer_scale",
    "mean": "running_mean",
    "variance": "running_var",
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One array of a model.

    Attributes:
      path: of ours, written out (without scanned stacks), from its collection to its leaf.
      name: torchvision's.
      shape: of ours.
      channels: of the maps whose flattened values a dense kernel reads; None for all others.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    channels: int | None = None

    @property
    def label(self) -> str:
        """Its name and path."""
        return f"{self.name} ({'/'.join(self.path)})"

    @property
    def theirs(self) -> jax.ShapeDtypeStruct:
        """torchvision's shape: kernels are (out, in, *window), and factors of channels have two axes more."""
        shape = self.shape
        if self.path[-1] == "kernel":
            shape = (shape[-1], shape[-2], *shape[:-2])
        return jax.ShapeDtypeStruct((*shape, 1, 1) if self.path[-1] == "factor" else shape, jnp.float32)

    def to_torch(self, ours: np.ndarray) -> np.ndarray:
        """Of shape `shape` -> `theirs`."""
        if self.path[-1] == "kernel":
            kernel = ours.reshape(self._as_convolution())
            ours = kernel.transpose(kernel.ndim - 1, kernel.ndim - 2, *range(kernel.ndim - 2))
        return ours.reshape(self.theirs.shape)

    def from_torch(self, theirs: np.ndarray) -> np.ndarray:
        """Of shape `theirs` -> `shape`."""
        if self.path[-1] == "kernel":
            *window, inputs, outputs = self._as_convolution()
            weight = theirs.reshape(outputs, inputs, *window)
            theirs = weight.transpose(*range(2, weight.ndim), 1, 0)
        return theirs.reshape(self.shape)

    def _as_convolution(self) -> tuple[int, ...]:
        """A dense kernel on flattened maps is that of a convolution whose window is a whole map."""
        if self.channels is None:
            return self.shape
        inputs, outputs = self.shape
        side = math.isqrt(inputs // self.channels)
        if side * side * self.channels != inputs:
            raise ValueError(
                f"{self.label} reads maps that are not square: {inputs} of {self.channels} channels"
            )
        return side, side, self.channels, outputs


def tensors(model: Model, family: Family, image: Sequence[int]) -> list[Tensor]:
    """Every array of a model. Nothing is computed.

    Raises ValueError for an array that torchvision's model does not have.
    """
    # Zeros are the fastest to trace.
    written = model.clone(initializer=nn.initializers.zeros)
    written = written.clone(scan=False) if hasattr(model, "scan") else written
    modules: list[str] = []

    def note(next_function: Any, args: tuple, kwargs: dict, context: Any) -> Any:
        if context.method_name == "__call__":
            modules.append("/".join(context.module.path))
        return next_function(*args, **kwargs)

    with nn.intercept_methods(note):
        inputs = jax.ShapeDtypeStruct((1, *image), jnp.float32)
        made: dict[Path, Any] = flatten_dict(dict(jax.eval_shape(written.init, jax.random.key(0), inputs)))
    names = module_names(family.rows, modules)
    channels = _flattened(family, modules, made)
    return [_tensor(path, leaf.shape, names, channels) for path, leaf in made.items()]


def _tensor(
    path: Path, shape: tuple[int, ...], names: Mapping[str, str], channels: Mapping[str, int]
) -> Tensor:
    module, leaf = "/".join(path[1:-1]), path[-1]
    if module not in names or leaf not in _LEAVES:
        raise ValueError(
            f"torchvision has no name for {'/'.join(path)}: use cnnjax.interop.save_variables and load_variables"
        )
    maps = channels.get(module) if leaf == "kernel" else None
    return Tensor(path, f"{names[module]}.{_LEAVES[leaf]}", shape, maps)


def _flattened(family: Family, modules: Sequence[str], made: Mapping[Path, Any]) -> dict[str, int]:
    """The channels of the maps that dense layers read, by their modules: those of the convolution in front."""
    kernels = {module: made.get(("params", *module.split("/"), "kernel")) for module in modules}
    order = [(module, kernel.shape) for module, kernel in kernels.items() if kernel is not None]
    return {
        module: before[-1]
        for (_, before), (module, _) in zip(order, order[1:], strict=False)
        if module in family.flattened and len(before) > 2
    }
