"""What the pages of studies and of runs have in common: how figures get onto them, and how a device is named."""

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from cnnjax.files import replacing
from cnnjax.frame import Frame
from cnnjax.report import style
from cnnjax.report.plates import Plate

__all__ = ["device", "duration", "environment", "put", "put_figure", "put_table"]

# A larger SVG is shown as PNG on the page; its file is written all the same.
LARGEST = 300_000


def put(path: Path, content: bytes) -> None:
    """Writes a file, atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def put_table(folder: Path, name: str, table: Frame) -> None:
    """Writes a table as tables/NAME.csv."""
    put(folder / "tables" / f"{name}.csv", table.to_csv(index=False).encode())


def put_figure(plate: Plate, number: int, folder: Path) -> dict[str, Any]:
    """Writes a figure's files and gives what the template shows of it."""
    files = style.render(plate.figure)
    for ending, content in files.items():
        put(folder / "figures" / f"{plate.name}.{ending}", content)
    put_table(folder, plate.name, plate.table)
    width, height = plate.figure.get_size_inches()
    return {
        "number": number,
        "name": plate.name,
        "section": plate.section,
        "title": plate.title,
        "caption": plate.caption,
        "alternative": plate.alternative,
        "folded": plate.folded,
        "image": _embedded(files),
        "width": round(96 * width),
        "height": round(96 * height),
    }


def environment() -> jinja2.Environment:
    """Of the templates."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("cnnjax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def duration(seconds: float | None) -> str:
    """As `1 h 2 min 3 s`; empty where it is not known."""
    if seconds is None or math.isnan(seconds):
        return ""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    parts = [f"{hours} h" if hours else "", f"{minutes} min" if whole >= 60 else "", f"{whole % 60} s"]
    return " ".join(part for part in parts if part) if whole else f"{seconds:.2f} s"


def device(found: Mapping[str, Any]) -> str:
    """As `2 × TPU v4 (tpu)`."""
    return f"{found['count']} × {found['kind']} ({found['platform']})"


def _embedded(files: Mapping[str, bytes]) -> str:
    """A figure as the address of an image that carries its own content."""
    kind, name = ("svg+xml", "svg") if len(files["svg"]) <= LARGEST else ("png", "png")
    return f"data:image/{kind};base64,{base64.b64encode(files[name]).decode()}"
