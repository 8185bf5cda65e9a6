"""One look for all figures: sizes of print, colors that the color-blind tell apart, and their files."""

import io
import re
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib
import seaborn
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from cnnjax.report.tables import Axis

__all__ = [
    "CATEGORIES",
    "GRAY",
    "INK",
    "MARKERS",
    "SINGLE",
    "WIDTH",
    "colors",
    "contrast",
    "power",
    "render",
    "styled",
]

# Inches: the text width of a two-column paper.
WIDTH = 7.2
GRAY = "#6b6b6b"
INK = "#1a1a1a"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">")
SINGLE = "#1f4e79"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

# seaborn's color-blind palette without its yellow and light pink, which are too light for lines on white, then two darker.
_PALETTE = seaborn.color_palette("colorblind", 10).as_hex()
CATEGORIES = (*(_PALETTE[i] for i in (0, 1, 2, 3, 4, 9, 5, 7)), "#222222", "#7a0177")

RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.titlepad": 4,
    "axes.labelsize": 7.5,
    "axes.labelpad": 3,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#444444",
    "axes.labelcolor": "#222222",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.5,
    "text.color": "#222222",
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.pad": 2,
    "ytick.major.pad": 2,
    "lines.linewidth": 1.1,
    "hatch.linewidth": 0.8,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "cnnjax",
}

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def styled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Run a drawing function under the house style; matplotlib's own settings stay as they are."""

    @wraps(function)
    def inside(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with matplotlib.rc_context(RC):
            return function(*args, **kwargs)

    return inside


def colors(axis: Axis | None) -> list[str]:
    """A color for each value: distinct ones for categories, dark to light for an ordered axis."""
    if axis is None:
        return [SINGLE]
    if not axis.numeric:
        return list(CATEGORIES[: len(axis.labels)])
    ramp = matplotlib.colormaps["viridis"]
    steps = max(len(axis.labels) - 1, 1)
    # The last tenths of viridis are a yellow that vanishes on white.
    return [to_hex(ramp(0.88 * i / steps)) for i in range(len(axis.labels))]


def contrast(color: tuple[float, ...]) -> str:
    """Black or white, whichever reads better on a color (relative luminance, WCAG 2)."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#111111" if luminance > 0.179 else "white"


def power(exponent: float) -> str:
    """The text of a power of ten, as 10⁻¹²."""
    return "10" + str(round(exponent)).translate(SUPERSCRIPTS)


def _compact(svg: bytes) -> bytes:
    """The same picture in fewer bytes: coordinates to hundredths of a point, no line breaks."""
    # Glyphs are scaled by a small factor whose digits all count.
    shorter = re.sub(rb"(?<!scale\(0)(\.\d\d)\d{2,}", rb"\1", svg)
    return re.sub(rb"\s+", b" ", shorter).replace(b" L ", b"L")


@styled
def render(figure: Figure) -> dict[str, bytes]:
    """The bytes of a figure's files: `svg`, and `png` at 200 dots per inch. Equal figures give equal bytes."""
    files = {}
    for ending, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=ending, dpi=200, metadata=metadata)
        files[ending] = buffer.getvalue()
    return files | {"svg": _compact(files["svg"])}
