"""Every figure of a study, each a function of its tables."""

import pandas as pd
from matplotlib.figure import Figure

from cnnjax.frame import Info
from cnnjax.report.curves import CURVES, by_step, draw_by_step
from cnnjax.report.heatmap import accuracy_map, gradient_map
from cnnjax.report.layers import QUANTITIES, by_layer, draw_by_layer
from cnnjax.report.layout import Layout, choose
from cnnjax.report.scatter import draw_ratio_against_accuracy, ratio_and_accuracy

__all__ = [
    "accuracy_by_step",
    "accuracy_map",
    "activation_by_layer",
    "correlation_by_layer",
    "dead_by_layer",
    "gradient_by_layer",
    "gradient_map",
    "loss_by_step",
    "ratio_against_accuracy",
    "saturation_by_layer",
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
