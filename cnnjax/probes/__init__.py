"""What happened in every layer: statistics of activations and gradients, recorded in the pass that trains."""

from cnnjax.functional.tap import new_slot, tap
from cnnjax.probes.flow import COLUMNS, Flow, Recorder, gradient_flow
from cnnjax.probes.points import Point, probe_points
from cnnjax.probes.summary import (
    EXPLODING,
    VANISHING,
    classify,
    gradient_ratio,
    gradient_slope,
    underflow_depth,
)

__all__ = [
    "COLUMNS",
    "EXPLODING",
    "VANISHING",
    "Flow",
    "Point",
    "Recorder",
    "classify",
    "gradient_flow",
    "gradient_ratio",
    "gradient_slope",
    "new_slot",
    "probe_points",
    "tap",
    "underflow_depth",
]
