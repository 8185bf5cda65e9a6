"""The phases of random networks over the variances of their kernels and biases (Schoenholz et al. 2017, figure 1)."""

import math

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from cnnjax.frame import Frame
from cnnjax.probes import critical_line, mean_field
from cnnjax.probes.quadrature import Elementwise, response
from cnnjax.report import style

__all__ = ["critical_points", "draw_phases", "phases"]

# Nodes across and up: contours are straight between them.
NODES = (33, 19)
POINTS = 64
# Depth scales whose contours are drawn.
LENGTHS = (1, 2, 5, 10, 20, 50)


def phases(activation: Elementwise, *, sigma_w2: tuple[float, float], sigma_b2: tuple[float, float]) -> Frame:
    """The phase and the depth scale xi_c on a grid over both variances.

    Args:
      activation: as in `probes.mean_field`.
      sigma_w2, sigma_b2: lowest and highest value.

    Returns:
      A row per node: sigma_w2, sigma_b2, phase, chi_c, xi_c; `phase` is "" and the numbers are NaN where the second moment
      has no fixed point.

    Raises:
      ValueError: a range is empty or out of bounds, or the activation is unknown.
    """
    phi = response(activation)
    _check_range("sigma_w2", sigma_w2)
    _check_range("sigma_b2", sigma_b2)
    across, up = np.linspace(*sigma_w2, NODES[0]), _heights(sigma_b2, NODES[1])
    return pd.DataFrame([_node(phi, float(w), float(b)) for b in up for w in across])


def _heights(sigma_b2: tuple[float, float], count: int) -> np.ndarray:
    # Near zero biases the lines bend most.
    low, high = sigma_b2
    return low + (high - low) * np.linspace(0, 1, count) ** 3


def _check_range(name: str, ends: tuple[float, float]) -> None:
    low, high = ends
    if not 0 <= low < high < math.inf or (name == "sigma_w2" and low == 0):
        least = "above 0" if name == "sigma_w2" else "0 or more"
        raise ValueError(
            f"{name} must be a lowest value, {least}, and a highest one above it; got {(low, high)}"
        )


def _node(activation: Elementwise, sigma_w2: float, sigma_b2: float) -> dict[str, float | str]:
    place = {"sigma_w2": sigma_w2, "sigma_b2": sigma_b2}
    try:
        found = mean_field(activation, **place)
    except ValueError:
        return {**place, "phase": "", "chi_c": math.nan, "xi_c": math.nan}
    return {**place, "phase": found.phase, "chi_c": found.chi_c, "xi_c": found.xi_c}


def critical_points(activation: Elementwise, sigma_b2: tuple[float, float]) -> Frame:
    """The edge of chaos: sigma_w2 over sigma_b2, NaN where it has none.

    Raises:
      ValueError: there is none at any sigma_b2 of the range, which may be empty or out of bounds; the activation is unknown.
    """
    _check_range("sigma_b2", sigma_b2)
    heights = _heights(sigma_b2, POINTS)
    found, reason = [], ""
    for value in heights.tolist():
        try:
            found.append(critical_line(activation, value))
        except ValueError as error:
            found.append(math.nan)
            reason = str(error)
    if np.isfinite(found).sum() < 2:
        raise ValueError(f"no critical line for sigma_b2 from {heights[0]:g} to {heights[-1]:g}: {reason}")
    return pd.DataFrame({"sigma_b2": heights, "sigma_w2": found})


def _levels() -> tuple[list[float], list[str]]:
    """The signed distances 1 - chi_c at the depth scales in `LENGTHS`, ordered below zero, and their names."""
    distances = [1 - math.exp(-1 / length) for length in LENGTHS]
    names = [f"{length}" for length in LENGTHS]
    return [-1.0, *(-d for d in distances), 0.0, *distances[::-1], 1.0], ["0", *names, "∞", *names[::-1], "0"]


def _colors(count: int) -> list[tuple[float, ...]]:
    """`count` reds, the darkest first, and as many blues, the darkest last."""
    ramp = matplotlib.colormaps["RdBu"]
    return [ramp(x) for x in (*np.linspace(0.14, 0.46, count), *np.linspace(0.54, 0.86, count))]


def _name_phases(axes: Axes, nodes: Frame) -> None:
    """The name of each phase in the middle of its nodes."""
    for phase, name in (("ordered", "ordered"), ("chaotic", "chaotic"), ("", "no fixed point")):
        own = nodes[nodes["phase"] == phase]
        if len(own):
            place = own["sigma_w2"].mean(), own["sigma_b2"].mean()
            halo = [withStroke(linewidth=2.4, foreground="white")]
            axes.text(*place, name, ha="center", va="center", fontsize=8.5, weight="bold", path_effects=halo)


@style.styled
def draw_phases(nodes: Frame, line: Frame, activation: Elementwise) -> Figure:
    """The figure of tables that `phases` and `critical_points` returned.

    Red: ordered; blue: chaotic; the paler, the longer the depth scale xi_c. The critical line is solid. Hatched: the second
    moment has no fixed point.
    """
    across, up = (np.unique(nodes[name]) for name in ("sigma_w2", "sigma_b2"))
    sign = np.where(nodes["phase"] == "ordered", -1.0, 1.0)
    # Contours of chi_c, not of xi_c, which is infinite on the line.
    distance = (sign * (1 - nodes["chi_c"])).to_numpy(float).reshape(len(up), len(across))
    figure = Figure(figsize=(style.WIDTH * 0.72, 3.1), layout="constrained")
    axes = figure.subplots()
    axes.grid(False)
    axes.set_facecolor("#f0f0f0")
    levels, names = _levels()
    colors = _colors(len(LENGTHS) + 1)
    shades = axes.contourf(across, up, distance, levels=levels, colors=colors)
    scales = [level for level in levels[1:-1] if level]
    axes.contour(across, up, distance, levels=scales, colors="white", linewidths=0.5, linestyles="solid")
    axes.plot(line["sigma_w2"], line["sigma_b2"], color=style.INK, lw=1.8, gid="critical", zorder=4)
    axes.set(xlim=across[[0, -1]], ylim=up[[0, -1]])
    axes.set(xlabel=r"$\sigma_w^2$", ylabel=r"$\sigma_b^2$")
    axes.set_title(f"{response(activation).name}: phases of a random network", loc="left", weight="bold")
    _name_phases(axes, nodes)
    bar = figure.colorbar(shades, ax=axes, spacing="uniform", pad=0.02, aspect=24)
    bar.set_ticks(levels, labels=names)
    bar.outline.set_visible(False)
    bar.set_label(r"depth scale $\xi_c$, layers", fontsize=7)
    return figure
