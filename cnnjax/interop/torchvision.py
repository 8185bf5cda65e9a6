"""Weights of torchvision's models, both ways.

    model = models.create("resnet50")
    variables = interop.torchvision.load("resnet50-0676ba61.pth", model)
    logits = model.apply(variables, images)

Images for published weights are (batch, height, width, channels), numbers from 0 to 1 less the means (0.485, 0.456, 0.406),
over the deviations (0.229, 0.224, 0.225). googlenet and inception_v3 were trained elsewhere: theirs are less 0.5 and over
0.5, which torchvision does inside the model where it loads these weights (`transform_input`).

Neither torch nor torchvision is needed.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cnnjax import training
from cnnjax.interop.differences import differences
from cnnjax.interop.state_dict import read_state_dict, write_state_dict
from cnnjax.interop.torchvision_names import FAMILIES, Family, families_of
from cnnjax.interop.torchvision_tensors import Tensor, tensors
from cnnjax.models import PARAMETERS, VARIANTS, Model, create
from cnnjax.nn import restack, unstack

__all__ = ["load", "save"]

_MEAN, _VARIANCE, _COUNTER = "running_mean", "running_var", "num_batches_tracked"
_HEAD = ". Only the head differs: use replace_head=True and a key, or a model with that num_classes"


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
      path: of a safetensors file, or of a state dict as `torch.save` writes it, whatever it is called. A pickle that holds
        anything but tensors is refused. Auxiliary heads that the model does not have are passed over.
      model: a name in `models.names()`, or a model of a family that torchvision has.
      replace_head: keep everything but the head (auxiliary ones, too), which starts as in `model.init(key, image)`; the
        file's may have any size.
      key: of the new head.
      image: shape of one input, `(*spatial, channels)`; None for the paper's. Only where parameters depend on it.

    Raises:
      FileNotFoundError: there is no such file.
      TypeError: torchvision has no such model.
      ValueError: the file is cut off, of another kind, or refused; or it does not hold this model: tensors that are missing,
        extra or misshapen are named, with their paths on both sides.
    """
    if replace_head and key is None:
        raise ValueError("replace_head=True draws a new head: pass key=jax.random.key(0), or any other")
    model, family, image = _resolved(model, image)
    expected = tensors(model, family, image)
    kept = [tensor for tensor in expected if not (replace_head and _in_head(tensor))]
    found = {_renamed(name, family): array for name, array in read_state_dict(path).items()}
    _check(f"{path} does not hold torchvision's weights", model, found, kept, expected)
    written = unflatten_dict({t.path: t.from_torch(found[t.name]).astype(np.float32) for t in kept})
    variables = jax.device_put(restack(written) if getattr(model, "scan", False) else written)
    if key is None or not replace_head:
        return variables
    return training.replace_head(variables, model, key, jax.ShapeDtypeStruct((1, *image), jnp.float32))


def save(
    path: str | Path,
    variables: Mapping[str, Any],
    model: str | Model,
    *,
    image: Sequence[int] | None = None,
) -> None:
    """Writes variables as torchvision's model of the same architecture would hold them; batches are not counted.

    Args:
      path: of a file that ends with .safetensors, or with .pth or .pt, which `torch.load` reads.
      variables: of the model, "params" and, where it has them, "batch_stats".
      model, image: as in `load`.

    Raises:
      TypeError: torchvision has no such model.
      ValueError: the variables are those of another model.
    """
    model, family, image = _resolved(model, image)
    ours: dict[tuple[str, ...], Any] = flatten_dict(unstack(jax.tree.map(np.asarray, dict(variables))))
    expected = {tensor.path: tensor for tensor in tensors(model, family, image)}
    found = differences(_joined(ours), _joined(expected))
    if texts := list(found):
        raise ValueError(f"these are not the variables of this {type(model).__name__}: {'; '.join(texts)}")
    theirs = {tensor.name: tensor.to_torch(ours[path]) for path, tensor in expected.items()}
    counted = [name.replace(_MEAN, _COUNTER) for name in theirs if name.endswith(_MEAN)]
    write_state_dict(path, {**theirs, **{name: np.zeros((), np.int64) for name in counted}})


def _resolved(model: str | Model, image: Sequence[int] | None) -> tuple[Model, Family, Sequence[int]]:
    made = create(model) if isinstance(model, str) else model
    if type(made) not in FAMILIES:
        known = ", ".join(sorted(family.__name__ for family in FAMILIES))
        raise TypeError(f"torchvision has no {type(made).__name__}. It has: {known}")
    images = (variant.image for variant in VARIANTS.values() if variant.family is type(made))
    return made, FAMILIES[type(made)], next(images) if image is None else image


def _joined(arrays: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    return {"/".join(path): array for path, array in arrays.items()}


def _in_head(tensor: Tensor) -> bool:
    return "head" in tensor.path


def _renamed(name: str, family: Family) -> str:
    for older, newer in family.older.items():
        name = re.sub(f"^{older}$", newer, name)
    return name


def _check(
    problem: str,
    model: Model,
    found: Mapping[str, np.ndarray],
    kept: Sequence[Tensor],
    expected: Sequence[Tensor],
) -> None:
    """Raises ValueError unless `found` holds what is kept, and beside it only what is expected or may be passed over."""
    labels, optional = {t.name: t.label for t in kept}, FAMILIES[type(model)].optional
    passed = {t.name for t in expected}
    compared = {
        labels.get(name, name): array
        for name, array in found.items()
        if name in labels or not (name in passed or name.endswith(_COUNTER) or name.startswith(optional))
    }
    wanted = {t.label: t.theirs for t in kept}
    if texts := list(differences(compared, wanted)):
        shared = [t for t in kept if not _in_head(t)]
        whole = compared.keys() == wanted.keys() and all(
            found[t.name].shape == t.theirs.shape for t in shared
        )
        hint = _HEAD if whole else _hint(model, found)
        raise ValueError(f"{problem} of this {type(model).__name__}: {'; '.join(texts)}{hint}")


def _hint(model: Model, found: Mapping[str, np.ndarray]) -> str:
    """What the file fits instead."""
    for name, variant in VARIANTS.items():
        if variant.family in FAMILIES and PARAMETERS[name] == _count(found, FAMILIES[variant.family]):
            return f". It has as many parameters as {name}: load it as that"
    others = families_of(name.rsplit(".", 1)[0] for name in found)
    names = " or ".join(sorted(family.__name__ for family in others))
    return f". Its names are those of a {names}" if others and type(model) not in others else ""


def _count(found: Mapping[str, np.ndarray], family: Family) -> int:
    """Parameters, without optional heads."""
    parameters = [
        array
        for name, array in found.items()
        if not name.endswith((_MEAN, _VARIANCE, _COUNTER)) and not name.startswith(family.optional)
    ]
    return sum(array.size for array in parameters)
