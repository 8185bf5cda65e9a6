"""Every figure of a study, each a function of its tables, and those of theory and of single networks."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from cnnjax.frame import Info
from cnnjax.probes.quadrature import Elementwise
from cnnjax.report.attribution import draw_attribution
from cnnjax.report.correlation import correlation_maps, draw_correlation_maps, fixed_points
from cnnjax.report.curves import CURVES, by_step, draw_by_step
from cnnjax.report.heatmap import accuracy_map, gradient_map
from cnnjax.report.layers import QUANTITIES, by_layer, draw_by_layer
from cnnjax.report.layout import Layout, choose
from cnnjax.report.phases import critical_points, draw_phases, phases
from cnnjax.report.rivals import by_initializer, draw_by_initializer, pair
from cnnjax.report.scatter import draw_ratio_against_accuracy, ratio_and_accuracy
from cnnjax.report.spectra import draw_spectra, spectra
from cnnjax.report.trainability import by_depth, draw_by_depth

__all__ = [
    "accuracy_by_step",
    "accuracy_map",
    "activation_by_layer",
    "attribution",
    "correlation_by_layer",
    "correlation_map",
    "dead_by_layer",
    "gradient_by_layer",
    "gradient_map",
    "initializer_curves",
    "loss_by_step",
    "phase_diagram",
    "ratio_against_accuracy",
    "saturation_by_layer",
    "singular_values",
    "trainability_map",
]


def _layers(
    info: Info, runs: pd.DataFrame, layers: pd.DataFrame, name: str, step: str, layout: Layout | None
) -> Figure:
    layout = layout or choose(info, runs)
    quantity = QUANTITIES[name]
    table = by_layer(info, runs, layers, column=quantity.column, step=step, layout=layout)
    return draw_by_layer(table, layout, quantity)


def gradient_by_layer(
    info: Info, runs: pd.DataFrame, layers: pd.DataFrame, *, step: str = "first", layout: Layout | None = None
) -> Figure:
    """Mean squared gradient with respect to the pre-activations of every layer, at the `first` or `last` recorded step."""
    return _layers(info, runs, layers, "gradient", step, layout)


def activation_by_layer(
    info: Info, runs: pd.DataFrame, layers: pd.DataFrame, *, step: str = "first", layout: Layout | None = None
) -> Figure:
    """Mean squared output of every layer, at the `first` or `last` recorded step."""
    return _layers(info, runs, layers, "activation", step, layout)


def saturation_by_layer(
    info: Info, runs: pd.DataFrame, layers: pd.DataFrame, *, step: str = "first", layout: Layout | None = None
) -> Figure:
    """Share of saturated units of every layer, at the `first` or `last` recorded step."""
    return _layers(info, runs, layers, "saturated", step, layout)


def dead_by_layer(
    info: Info, runs: pd.DataFrame, layers: pd.DataFrame, *, step: str = "first", layout: Layout | None = None
) -> Figure:
    """Share of dead units of every layer, at the `first` or `last` recorded step."""
    return _layers(info, runs, layers, "dead", step, layout)


def correlation_by_layer(
    info: Info, runs: pd.DataFrame, layers: pd.DataFrame, *, step: str = "first", layout: Layout | None = None
) -> Figure:
    """Correlation between the pre-activations of two inputs, at the `first` or `last` recorded step."""
    return _layers(info, runs, layers, "correlation", step, layout)


def loss_by_step(
    info: Info, runs: pd.DataFrame, curves: pd.DataFrame, *, layout: Layout | None = None
) -> Figure:
    """Training loss at the selected learning rates."""
    layout = layout or choose(info, runs)
    table = by_step(info, runs, curves, column=CURVES["loss"].column, layout=layout)
    return draw_by_step(info, table, layout, CURVES["loss"])


def accuracy_by_step(
    info: Info, runs: pd.DataFrame, curves: pd.DataFrame, *, layout: Layout | None = None
) -> Figure:
    """Validation accuracy at the selected learning rates."""
    layout = layout or choose(info, runs)
    table = by_step(info, runs, curves, column=CURVES["accuracy"].column, layout=layout)
    return draw_by_step(info, table, layout, CURVES["accuracy"])


def ratio_against_accuracy(info: Info, runs: pd.DataFrame) -> Figure:
    """Gradient ratio at initialization against final test accuracy, a point per run at the selected learning rate."""
    return draw_ratio_against_accuracy(info, ratio_and_accuracy(info, runs), choose(info, runs))


def trainability_map(info: Info, runs: pd.DataFrame) -> Figure:
    """Training accuracy over sigma_w2 and depth, with the line of 6 xi_c (Schoenholz et al. 2017, figure 5).

    Raises:
      ValueError: the study is not over depth and the gain of Gaussian kernels alone (the text says what it is), trains
        nothing, or theory has no fixed point there.
    """
    return draw_by_depth(info, by_depth(info, runs))


def phase_diagram(
    activation: Elementwise,
    *,
    sigma_w2: tuple[float, float] = (0.25, 4.0),
    sigma_b2: tuple[float, float] = (0.0, 0.5),
) -> Figure:
    """Ordered and chaotic phase of random networks, the critical line between them, and the depth scale xi_c.

    Schoenholz et al. 2017, figure 1.

    Args:
      activation: as in `probes.mean_field`.
      sigma_w2: lowest and highest variance of the kernels, times fan_in.
      sigma_b2: lowest and highest variance of the biases.

    Raises:
      ValueError: a range is empty or out of bounds, there is no critical line in it, or the activation is unknown.
    """
    nodes = phases(activation, sigma_w2=sigma_w2, sigma_b2=sigma_b2)
    return draw_phases(nodes, critical_points(activation, sigma_b2), activation)


def correlation_map(
    activation: Elementwise,
    *,
    sigma_w2: Sequence[float],
    sigma_b2: float,
    measured: pd.DataFrame | None = None,
) -> Figure:
    """The correlation of two inputs in a layer over that in the layer before, with its fixed points.

    Poole et al. 2016, figure 2.

    Args:
      activation: as in `probes.mean_field`.
      sigma_w2: variances of the kernels, times fan_in, a line for each.
      sigma_b2: variance of the biases.
      measured: what `report.correlation.measured_pairs` returns for a study, drawn over the lines of the same sigma_w2.
        The lines are for the fixed point of the second moment; in the first layers it moves, and points lie off them.

    Raises:
      ValueError: the second moment diverges or falls to 0, or the activation is unknown.
    """
    points = fixed_points(activation, sigma_w2=sigma_w2, sigma_b2=sigma_b2)
    curves = correlation_maps(activation, points, sigma_b2=sigma_b2, measured=measured)
    return draw_correlation_maps(activation, points, curves, measured)


def singular_values(info: Info, runs: pd.DataFrame, measures: pd.DataFrame) -> Figure:
    """Histograms of the vector `singular_values` among a study's measures, and the prediction for linear networks.

    Raises:
      ValueError: the measures hold no such vector.
    """
    return draw_spectra(info, spectra(info, runs, measures))


def initializer_curves(
    info: Info, runs: pd.DataFrame, curves: pd.DataFrame, *, depths: Sequence[int] | None = None
) -> Figure:
    """Training error at two depths (None: the two deepest), a line for each initializer (He et al. 2015, figures 2 and 3).

    Raises:
      ValueError: the study is not over initializer and depth alone, or lacks a depth.
    """
    layout = pair(info, depths)
    return draw_by_initializer(info, by_initializer(info, runs, curves, layout), layout)


def attribution(table: pd.DataFrame) -> Figure:
    """How the first layer's gradient changes when a part's backward pass is replaced: `probes.attribute_gradient`'s table.

    Raises:
      ValueError: another table, or one without any part.
    """
    return draw_attribution(table)
