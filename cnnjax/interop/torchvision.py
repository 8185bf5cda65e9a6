"""Weights of torchvision's models, both ways.

    model = models.create("resnet50")
    variables = interop.torchvision.load(Path("resnet50-0676ba61.pth"), model)
    logits = model.apply(variables, images)

Images for published weights are NHWC, numbers from 0 to 1 less the means (0.485, 0.456, 0.406), over the deviations
(0.229, 0.224, 0.225). googlenet and inception_v3 were trained elsewhere: theirs are less 0.5 and over 0.5, which torchvision
does inside the model where it loads these weights (`transform_input`).

Neither torch nor torchvision is needed.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cnnjax import training
from cnnjax.interop.differences import differences
from cnnjax.interop.state_dict import read_state_dict, write_state_dict
from cnnjax.interop.torchvision_names import FAMILIES, Family, module_names
from cnnjax.models import PARAMETERS, VARIANTS, Model, create
from cnnjax.nn import restack, unstack

__all__ = ["load", "save"]

_LEAVES = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "factor": "layer_scale",
    "mean": "running_mean",
    "variance": "running_var",
}
_COUNTER = "num_batches_tracked"


class _Tensor(NamedTuple):
    """One array of a model.

    Attributes:
      path: of ours, written out (without scanned stacks), from its collection to its leaf.
      name: torchvision's.
      shape: of ours.
      channels: of the maps whose flattened values a dense kernel reads; None for all others.
    """

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]
    channels: int | None

    @property
    def label(self) -> str:
        return f"{self.name} ({'/'.join(self.path)})"

    @property
    def theirs(self) -> jax.ShapeDtypeStruct:
        """The shape of torchvision's."""
        kind, shape = self.path[-1], self.shape
        if kind == "kernel":
            shape = (shape[-1], shape[-2], *shape[:-2])
        return jax.ShapeDtypeStruct((*shape, 1, 1) if kind == "factor" else shape, jnp.float32)

    def to_torch(self, ours: np.ndarray) -> np.ndarray:
        if self.path[-1] != "kernel":
            return ours.reshape(self.theirs.shape)
        channels = self.channels
        kernel = ours if channels is None else ours.reshape(*self._window(channels), channels, -1)
        weight = kernel.transpose(kernel.ndim - 1, kernel.ndim - 2, *range(kernel.ndim - 2))
        return weight.reshape(self.theirs.shape)

    def from_torch(self, theirs: np.ndarray) -> np.ndarray:
        if self.path[-1] != "kernel":
            return theirs.reshape(self.shape)
        channels = self.channels
        weight = theirs if channels is None else theirs.reshape(-1, channels, *self._window(channels))
        return weight.transpose(*range(2, weight.ndim), 1, 0).reshape(self.shape)

    def _window(self, channels: int) -> tuple[int, int]:
        """A dense kernel on flattened maps is the kernel of a convolution whose window is a whole map."""
        side = math.isqrt(self.shape[0] // channels)
        if side * side * channels != self.shape[0]:
            raise ValueError(
                f"{self.label} reads flattened maps that are not square: {self.shape[0]} inputs, {channels} channels"
            )
        return side, side


def load(
    path: str | Path,
    model: str | Model,
    *,
    replace_head: bool = False,
    key: jax.Array | None = None,
    image: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The variables of a model, from a file of torchvision's weights.

    Args:
      path: a safetensors file, or a state dict as `torch.save` writes it. It may hold tensors only; a pickle that holds
        anything else is refused. Auxiliary heads that the model does not have are passed over.
      model: a name in `models.names()`, or a model of a family that torchvision has.
      replace_head: keep everything but the head (auxiliary heads, too), which starts as in `model.init(key, image)`; the
        file's may have any size.
      key: of the new head.
      image: shape of one input, `(*spatial, channels)`; None for the paper's. Needed only where parameters depend on it.

    Raises:
      FileNotFoundError: there is no such file.
      TypeError, ValueError: torchvision has no such model; the file is cut off, of another kind, or refused; or it does not
        hold this model: tensors that are missing, extra or misshapen are named, with their paths on both sides.
    """
    if replace_head and key is None:
        raise ValueError("replace_head=True draws a new head: pass key=jax.random.key(0), or any other")
    model, family, image = _resolved(model, image)
    tensors = _tensors(model, family, image)
    kept = [t for t in tensors if not (replace_head and _in_head(t))]
    found = {_renamed(name, family): array for name, array in read_state_dict(path).items()}
    _check(path, model, family, found, kept, [t for t in tensors if t not in kept])
    flat = {t.path: jnp.asarray(t.from_torch(found[t.name]), jnp.float32) for t in kept}
    variables = unflatten_dict(flat)
    variables = restack(variables) if getattr(model, "scan", False) else variables
    if key is None or not replace_head:
        return variables
    return training.replace_head(variables, model, key, jax.ShapeDtypeStruct((1, *image), jnp.float32))


def save(
    path: str | Path, variables: Mapping[str, Any], model: str | Model, *, image: Sequence[int] | None = None
) -> None:
    """Writes variables as torchvision's model of the same architecture would hold them.

    Args:
      path: of a file that ends with .safetensors, or with .pth or .pt, which `torch.load` reads.
      variables: of the model, "params" and, where it has them, "batch_stats".
      model, image: as in `load`.

    Raises:
      TypeError, ValueError: torchvision has no such model, or the variables are those of another one.
    """
    model, family, image = _resolved(model, image)
    arrays = jax.tree.map(np.asarray, dict(variables))
    flat = flatten_dict(unstack(arrays))
    tensors = _tensors(model, family, image)
    ours = {"/".join(p): a for p, a in flat.items()}
    expected = {"/".join(t.path): jax.ShapeDtypeStruct(t.shape, jnp.float32) for t in tensors}
    if found := list(differences(ours, expected)):
        raise ValueError(f"these are not the variables of this {type(model).__name__}: {'; '.join(found)}")
    theirs = {t.name: t.to_torch(flat[t.path]) for t in tensors}
    means = [name for name in theirs if name.endswith("running_mean")]
    counters = {name.replace("running_mean", _COUNTER): np.zeros((), np.int64) for name in means}
    write_state_dict(path, {**theirs, **counters})


def _resolved(model: str | Model, image: Sequence[int] | None) -> tuple[Model, Family, Sequence[int]]:
    made = create(model) if isinstance(model, str) else model
    if type(made) not in FAMILIES:
        known = ", ".join(sorted(family.__name__ for family in FAMILIES))
        raise TypeError(f"torchvision has no {type(made).__name__}. It has: {known}")
    images = (variant.image for variant in VARIANTS.values() if variant.family is type(made))
    return made, FAMILIES[type(made)], next(images) if image is None else image


def _tensors(model: Model, family: Family, image: Sequence[int]) -> list[_Tensor]:
    """Every array of the model. Nothing is computed."""
    written = model.clone(scan=False) if hasattr(model, "scan") else model
    modules: list[str] = []

    def note(next_function: Any, args: tuple, kwargs: dict, context: Any) -> Any:
        if context.method_name == "__call__":
            modules.append("/".join(context.module.path))
        return next_function(*args, **kwargs)

    with nn.intercept_methods(note):
        inputs = jax.ShapeDtypeStruct((1, *image), jnp.float32)
        shapes = flatten_dict(dict(jax.eval_shape(written.init, jax.random.key(0), inputs)))
    names = module_names(family.rows, modules)
    channels = _flattened(family, modules, shapes)
    return [_tensor(path, leaf.shape, names, channels) for path, leaf in shapes.items()]


def _tensor(
    path: tuple[str, ...], shape: tuple[int, ...], names: Mapping[str, str], channels: Mapping[str, int]
) -> _Tensor:
    module, leaf = "/".join(path[1:-1]), path[-1]
    if module not in names or leaf not in _LEAVES:
        raise ValueError(f"torchvision's model has no {'/'.join(path)}, and no name for it")
    return _Tensor(
        path, f"{names[module]}.{_LEAVES[leaf]}", shape, channels.get(module) if leaf == "kernel" else None
    )


def _flattened(
    family: Family, modules: Sequence[str], shapes: Mapping[tuple[str, ...], Any]
) -> dict[str, int]:
    """The channels of the maps that dense layers read, by their modules: those of the kernel before, a convolution's."""
    kernels = {m: shapes.get(("params", *m.split("/"), "kernel")) for m in modules}
    order = [(module, kernel.shape) for module, kernel in kernels.items() if kernel is not None]
    return {
        module: before[-1]
        for (_, before), (module, _) in zip(order, order[1:], strict=False)
        if module in family.flattened and len(before) > 2
    }


def _in_head(tensor: _Tensor) -> bool:
    return "head" in tensor.path


def _renamed(name: str, family: Family) -> str:
    for older, newer in family.older.items():
        name = re.sub(f"^{older}$", newer, name)
    return name


def _check(
    path: str | Path,
    model: Model,
    family: Family,
    found: Mapping[str, np.ndarray],
    kept: Sequence[_Tensor],
    passed: Sequence[_Tensor],
) -> None:
    """Raises ValueError unless `found` holds what is kept, and beside it only what may be passed over."""
    labels = {t.name: t.label for t in kept}
    ignored = {t.name for t in passed}
    known = {
        labels.get(name, name): array
        for name, array in found.items()
        if name in labels
        or not (name in ignored or name.endswith(_COUNTER) or name.startswith(family.optional))
    }
    if texts := list(differences(known, {t.label: t.theirs for t in kept})):
        raise ValueError(
            f"{path} does not hold torchvision's weights of this {type(model).__name__}: {'; '.join(texts)}"
            f"{_hint(found, kept)}"
        )


def _hint(found: Mapping[str, np.ndarray], kept: Sequence[_Tensor]) -> str:
    """What the file fits instead."""
    if all(t.name in found and (_in_head(t) or found[t.name].shape == t.theirs.shape) for t in kept):
        return ". Only the head differs: pass replace_head=True and a key, or make the model with as many classes"
    for name, variant in VARIANTS.items():
        if variant.family in FAMILIES and PARAMETERS[name] == _count(found, FAMILIES[variant.family]):
            return f". As many parameters has {name}: try that model"
    return ""


def _count(found: Mapping[str, np.ndarray], family: Family) -> int:
    """Parameters, without optional heads."""
    others = ("running_mean", "running_var", _COUNTER)
    return sum(
        array.size
        for name, array in found.items()
        if not name.endswith(others) and not name.startswith(family.optional)
    )
