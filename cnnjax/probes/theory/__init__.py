"""Mean-field theory: what wide networks do at initialization, layer by layer, without drawing one."""

from cnnjax.probes.theory.fixed_point import MeanField, Phase, critical_line, mean_field
from cnnjax.probes.theory.normalization import batch_norm_rate, normalizer_free_gain
from cnnjax.probes.theory.padding import zero_padding_factor
from cnnjax.probes.theory.prediction import Prediction, predict
from cnnjax.probes.theory.trajectory import Trajectory, residual_trajectory, trajectory

__all__ = [
    "MeanField",
    "Phase",
    "Prediction",
    "Trajectory",
    "batch_norm_rate",
    "critical_line",
    "mean_field",
    "normalizer_free_gain",
    "predict",
    "residual_trajectory",
    "trajectory",
    "zero_padding_factor",
]
