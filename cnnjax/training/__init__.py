"""Training: recipes and runs, the step and what goes into it, what stays fixed, what a trained network is good for.

`begin` trains by a `Recipe` in a folder and `go_on` goes on there; `train` does so with a `Trainer` of your own, whose
`step` is a pure function for a loop of your own. `cnnjax.training.parallel` lays a step over devices, `checkpoints` keeps
a run on disk, `hosts` joins several processes.
"""

from cnnjax.optim import OPTIMIZERS, SCHEDULES, Freeze, Optimizer, Schedule, freeze
from cnnjax.training.augmentation import Augmentation
from cnnjax.training.head import replace_head
from cnnjax.training.layerwise import layer_depths, layerwise_decay
from cnnjax.training.linear_probe import LinearProbe, embed, fit_linear, linear_probe
from cnnjax.training.loop import Broken, train
from cnnjax.training.metrics import Tally
from cnnjax.training.network import Trained, evaluate, logits_of, trained
from cnnjax.training.placement import Placement
from cnnjax.training.plan import Plan
from cnnjax.training.presets import PRESETS
from cnnjax.training.recipe import Recipe
from cnnjax.training.run import InitFrom, begin, go_on
from cnnjax.training.step import LOSSES, Batch, Moments, StepMetrics, Trainer, TrainState
from cnnjax.training.streamed import Streaming
from cnnjax.training.views import VIEWS
from cnnjax.training.watcher import Watcher

__all__ = [
    "LOSSES",
    "OPTIMIZERS",
    "PRESETS",
    "SCHEDULES",
    "VIEWS",
    "Augmentation",
    "Batch",
    "Broken",
    "Freeze",
    "InitFrom",
    "LinearProbe",
    "Moments",
    "Optimizer",
    "Placement",
    "Plan",
    "Recipe",
    "Schedule",
    "StepMetrics",
    "Streaming",
    "Tally",
    "TrainState",
    "Trained",
    "Trainer",
    "Watcher",
    "begin",
    "embed",
    "evaluate",
    "fit_linear",
    "freeze",
    "go_on",
    "layer_depths",
    "layerwise_decay",
    "linear_probe",
    "logits_of",
    "replace_head",
    "train",
    "trained",
]
