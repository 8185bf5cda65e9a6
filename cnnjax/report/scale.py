"""The scale of y that all panels of a figure share, with a strip below it for values that are exactly zero."""

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cnnjax.frame import Frame
from cnnjax.report import style

__all__ = ["RELATIVE", "Range", "View", "limits_of", "number", "set_ticks"]

RELATIVE = "relative depth: 0 is the first layer, 1 the last"


@dataclass(frozen=True)
class View:
    """How values are shown: axis labels, the scale of y, its limits, and lines for comparison.

    `decades` draws log10 values with ticks at powers of ten; `share` draws fractions in percent; `plain` draws numbers.
    """

    x_label: str
    y_label: str
    scale: str
    low: float | None = None
    high: float | None = None
    reference: float | None = None


@dataclass(frozen=True)
class Range:
    """The range of y. Below `floor`, where `low` is lower, lies a strip for values that are exactly zero."""

    low: float
    floor: float
    high: float

    def in_strip(self, rank: int, count: int) -> float:
        """Where the triangles of a color lie in the strip."""
        return self.floor - (self.floor - self.low) * (rank + 1) / (count + 1)


def limits_of(table: Frame, view: View) -> Range:
    """The range of y for all panels, from the finite values."""
    values = table[["median", "low", "high"]].to_numpy(float)
    finite = values[np.isfinite(values)]
    low = view.low if view.low is not None else (finite.min() if finite.size else 0.0)
    high = float(finite.max()) if finite.size else 1.0
    if view.high is not None:
        high = min(high, view.high) if view.scale == "decades" else view.high
    if view.reference is not None:
        low, high = min(low, view.reference), max(high, view.reference)
    pad = 0.06 * max(high - low, 0.5 if view.scale == "decades" else 1e-3)
    low, high = float(low - pad), float(high + pad)
    strip = 0.16 * (high - low) if np.isneginf(values).any() else 0.0
    return Range(low - strip, low, high)


def number(value: float) -> str:
    """The text of 10**value, as 0.02 or 2×10⁻⁴."""
    if -3 <= value < 4:
        return f"{10.0**value:.3g}"
    exponent = math.floor(value + 1e-9)
    factor = f"{10.0 ** (value - exponent):.2g}"
    return style.power(exponent) if factor == "1" else f"{factor}×{style.power(exponent)}"


def _decade_ticks(axes: Axes, limits: Range) -> None:
    """Powers of ten, or, within two decades, multiples of them; and a name for the strip of zeros."""
    low, high = limits.floor, limits.high
    wide = high - low > 2.2
    steps = (1, 2, 5) if high - low > 0.7 else (1, 1.5, 2, 3, 4, 5, 6, 8)
    fine = [k + math.log10(m) for k in range(math.floor(low), math.ceil(high) + 1) for m in steps]
    found = MaxNLocator(nbins=5, integer=True).tick_values(low, high) if wide else fine
    # The lowest tick keeps clear of the name of the strip.
    lowest = low + 0.5 * (low - limits.low)
    ticks = [float(tick) for tick in found if lowest <= tick <= high]
    texts = [style.power(tick) if wide else number(tick) for tick in ticks]
    if limits.low < low:
        axes.axhspan(limits.low, low, color="#f0f0f0", lw=0, zorder=0)
        ticks, texts = [limits.in_strip(0, 1), *ticks], ["zero", *texts]
    axes.set_yticks(ticks, texts)


def set_ticks(axes: Axes, view: View, limits: Range) -> None:
    """Sets the limits of the vertical axis, and ticks of both axes that can be read."""
    axes.set_ylim(limits.low, limits.high)
    if view.scale == "decades":
        _decade_ticks(axes, limits)
    elif view.scale == "share":
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    if view.x_label == RELATIVE:
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
