"""The architectures, one paper a file, made by name: `models.create("plain", depth=50, activation="tanh")`."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cnnjax.functional.names import lookup
from cnnjax.models import (
    airbench,
    alexnet,
    c3d,
    cifar_bottleneck,
    cifar_resnet,
    convnext,
    deepsea,
    densenet,
    efficientnet,
    fixup_resnet,
    googlenet,
    inception_v3,
    keras_cnn,
    lenet,
    m5,
    mlp,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    nf_resnet,
    plain,
    preact_resnet,
    resnet,
    resnet3d,
    shufflenet_v1,
    shufflenet_v2,
    squeezenet,
    text_cnn,
    unet,
    vgg,
    wide_resnet,
)
from cnnjax.models.base import Model, Variant
from cnnjax.models.counts import PARAMETERS
from cnnjax.models.twins import Difference, difference, twins

__all__ = [
    "PARAMETERS",
    "VARIANTS",
    "Difference",
    "Model",
    "Variant",
    "create",
    "difference",
    "names",
    "options",
    "twins",
]

_FILES = (
    airbench,
    alexnet,
    c3d,
    cifar_bottleneck,
    cifar_resnet,
    convnext,
    deepsea,
    densenet,
    efficientnet,
    fixup_resnet,
    googlenet,
    inception_v3,
    keras_cnn,
    lenet,
    m5,
    mlp,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    nf_resnet,
    plain,
    preact_resnet,
    resnet,
    resnet3d,
    shufflenet_v1,
    shufflenet_v2,
    squeezenet,
    text_cnn,
    unet,
    vgg,
    wide_resnet,
)

VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {name: variant for file in _FILES for name, variant in file.VARIANTS.items()}
)
"""Every model by its name."""


def names() -> list[str]:
    """The names that `create` knows."""
    return sorted(VARIANTS)


def options(name: str) -> dict[str, Any]:
    """The options of a model with their defaults. An option has the same name in every model that has it."""
    variant = lookup(VARIANTS, name, "model")
    fields = dataclasses.fields(variant.family)
    defaults = {field.name: field.default for field in fields if field.name not in ("name", "parent")}
    return {**defaults, **variant.options}


def create(name: str, /, **chosen: Any) -> Model:
    """A model by name: a Flax module that maps images to logits.

    Args:
      name: one of `names()`.
      **chosen: any of `options(name)`, in the place of its defaults.

    Raises:
      ValueError: an unknown name or option (with the nearest one), or a value that does not fit.
      TypeError: a value of a wrong type.
    """
    known = options(name)
    for option in chosen:
        lookup(known, option, f"option of {name}")
    variant = VARIANTS[name]
    model = variant.family(**{**variant.options, **chosen})
    model.check()
    return model
