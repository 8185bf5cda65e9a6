"""The architectures, one paper a file, made by name: `models.create("plain", depth=50, activation="tanh")`."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cnnjax.functional.names import lookup
from cnnjax.models.base import Model
from cnnjax.models.keras_cnn import KerasCifarCNN
from cnnjax.models.lenet import LeNet5
from cnnjax.models.mlp import MLP
from cnnjax.models.plain import Plain
from cnnjax.models.resnet import PreActResNet, ResNet

__all__ = ["MODELS", "Model", "create", "names", "options"]

MODELS: Mapping[str, type[Model]] = MappingProxyType(
    {
        "keras_cifar_cnn": KerasCifarCNN,
        "lenet5": LeNet5,
        "mlp": MLP,
        "plain": Plain,
        "preact_resnet": PreActResNet,
        "resnet": ResNet,
    }
)
"""Every model by its name."""


def names() -> list[str]:
    """The names that `create` knows."""
    return sorted(MODELS)


def options(name: str) -> dict[str, Any]:
    """The options of a model with their defaults. An option has the same name in every model that has it."""
    fields = dataclasses.fields(lookup(MODELS, name, "model"))
    return {field.name: field.default for field in fields if field.name not in ("name", "parent")}


def create(name: str, /, **chosen: Any) -> Model:
    """A model by name: a Flax module that maps images to logits.

    Args:
      name: one of `names()`.
      **chosen: any of `options(name)`.

    Raises:
      ValueError: an unknown name or option (with the nearest one), or a value that does not fit.
      TypeError: a value of a wrong type.
    """
    known = options(name)
    for option in chosen:
        lookup(known, option, f"option of {name}")
    model = MODELS[name](**chosen)
    model.check()
    return model
