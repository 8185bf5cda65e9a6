"""What happened in every layer, recorded in the pass that trains, and what mean-field theory says should have happened."""

from cnnjax.functional.tap import new_slot, tap
from cnnjax.probes.attribution import attribute_gradient
from cnnjax.probes.density import (
    matrix_cumulative,
    matrix_density,
    product_cumulative,
    product_density,
    product_edge,
    spectrum_histogram,
)
from cnnjax.probes.features import features
from cnnjax.probes.flow import COLUMNS, Flow, Recorder, gradient_flow
from cnnjax.probes.gsnr import GradientNoise, gradient_noise
from cnnjax.probes.jacobian import LayerJacobians, jacobian_spectrum, layer_jacobians
from cnnjax.probes.paths import effective_depth
from cnnjax.probes.points import Point, probe_points
from cnnjax.probes.shattering import autocorrelation, gradient_autocorrelation
from cnnjax.probes.spectrum import Spectrum, full_spectrum, spectrum_of, top_spectrum
from cnnjax.probes.summary import (
    EXPLODING,
    VANISHING,
    classify,
    gradient_ratio,
    gradient_slope,
    underflow_depth,
)
from cnnjax.probes.theory import (
    MeanField,
    Phase,
    Prediction,
    Trajectory,
    batch_norm_rate,
    critical_line,
    mean_field,
    normalizer_free_gain,
    predict,
    residual_trajectory,
    trajectory,
    zero_padding_factor,
)

__all__ = [
    "COLUMNS",
    "EXPLODING",
    "VANISHING",
    "Flow",
    "GradientNoise",
    "LayerJacobians",
    "MeanField",
    "Phase",
    "Point",
    "Prediction",
    "Recorder",
    "Spectrum",
    "Trajectory",
    "attribute_gradient",
    "autocorrelation",
    "batch_norm_rate",
    "classify",
    "critical_line",
    "effective_depth",
    "features",
    "full_spectrum",
    "gradient_autocorrelation",
    "gradient_flow",
    "gradient_noise",
    "gradient_ratio",
    "gradient_slope",
    "jacobian_spectrum",
    "layer_jacobians",
    "matrix_cumulative",
    "matrix_density",
    "mean_field",
    "new_slot",
    "normalizer_free_gain",
    "predict",
    "probe_points",
    "product_cumulative",
    "product_density",
    "product_edge",
    "residual_trajectory",
    "spectrum_histogram",
    "spectrum_of",
    "tap",
    "top_spectrum",
    "trajectory",
    "underflow_depth",
    "zero_padding_factor",
]
