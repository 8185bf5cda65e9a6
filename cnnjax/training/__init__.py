"""Training: steps over devices and what goes into them, what stays fixed, and what a trained network is good for elsewhere.

`cnnjax.training.parallel` lays a step over devices, `cnnjax.training.checkpoints` keeps a run on disk.
"""

from cnnjax.training.augmentation import Augmentation
from cnnjax.training.freeze import Freeze, freeze
from cnnjax.training.head import replace_head
from cnnjax.training.layerwise import layer_depths, layerwise_decay
from cnnjax.training.linear_probe import LinearProbe, embed, fit_linear, linear_probe
from cnnjax.training.metrics import Tally
from cnnjax.training.optimizers import OPTIMIZERS, Optimizer
from cnnjax.training.schedules import SCHEDULES, Schedule
from cnnjax.training.step import LOSSES, Batch, Moments, StepMetrics, Trainer, TrainState

__all__ = [
    "LOSSES",
    "OPTIMIZERS",
    "SCHEDULES",
    "Augmentation",
    "Batch",
    "Freeze",
    "LinearProbe",
    "Moments",
    "Optimizer",
    "Schedule",
    "StepMetrics",
    "Tally",
    "TrainState",
    "Trainer",
    "embed",
    "fit_linear",
    "freeze",
    "layer_depths",
    "layerwise_decay",
    "linear_probe",
    "replace_head",
]
