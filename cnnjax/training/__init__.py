"""Training: what stays fixed, how fast each layer learns, and what a trained network is good for elsewhere."""

from cnnjax.training.freeze import Freeze, freeze
from cnnjax.training.head import replace_head
from cnnjax.training.layerwise import layer_depths, layerwise_decay
from cnnjax.training.linear_probe import LinearProbe, embed, fit_linear, linear_probe

__all__ = [
    "Freeze",
    "LinearProbe",
    "embed",
    "fit_linear",
    "freeze",
    "layer_depths",
    "layerwise_decay",
    "linear_probe",
    "replace_head",
]
