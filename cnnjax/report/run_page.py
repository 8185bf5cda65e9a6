"""The page of a training run: what it reached, its figures and its settings, in one file that needs no network."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cnnjax.frame import Frame, Info
from cnnjax.report import run_answer, sheet, tables
from cnnjax.report.listing import Head, Listing
from cnnjax.report.plates import Plate
from cnnjax.report.run_classes import class_figures, confused_pairs, names_of, wilson
from cnnjax.report.run_figures import curves
from cnnjax.report.run_labels import label_figures
from cnnjax.report.run_layers import gradient_ratios, layer_maps
from cnnjax.report.run_metrics import shares
from cnnjax.training.journal import RunRecord, read_run
from cnnjax.training.recipe import Recipe

__all__ = ["write"]

SECTIONS = {
    "training": "Training",
    "layers": "Layer by layer",
    "classes": "What it gets right and wrong",
}
PAIRS = 20
SPLITS = {"train": "training", "validation": "validation", "test": "the test"}


def write(folder: Path) -> Path:
    """Writes `report/index.html`, `report/figures/` and `report/tables/` into a run's folder; gives the path of the page.

    The run may be at work, stopped or failed. Every file is written to a temporary name and renamed, the page last.

    Raises:
      ValueError: the folder holds no run, or a damaged file.
    """
    run = read_run(folder)
    out = run.folder / "report"
    shown = [sheet.put_figure(plate, i, out) for i, plate in enumerate(_plates(run), 1)]
    files = _tables(run)
    for name, table in files.items():
        sheet.put_table(out, name, table)
    page = (
        sheet.environment()
        .get_template("run.html.j2")
        .render(
            info=run.info,
            warnings=run_answer.warnings(run),
            sentences=run_answer.paragraph(run),
            figures=shown,
            sections=SECTIONS,
            listings=_listings(run),
            settings=_settings(run),
            files=list(files),
        )
    )
    sheet.put(out / "index.html", page.encode())
    return out / "index.html"


def _plates(run: RunRecord) -> Iterator[Plate]:
    yield from curves(run.info, run.log)
    yield from layer_maps(run.layers)
    if (found := run_answer.judged(run.evaluation)) is not None:
        split, numbers = found
        figures = class_figures if "confusion" in numbers else label_figures
        yield from figures(numbers, split, names_of(run.info["data"]))


def _tables(run: RunRecord) -> dict[str, Frame]:
    """The files of the page that belong to no figure."""
    found: dict[str, Frame] = {
        "log": run.log,
        "layers": run.layers,
        "gradient_ratio": gradient_ratios(run.layers),
    }
    if (judged := run_answer.judged(run.evaluation)) is not None and "confusion" in judged[1]:
        found["confused_pairs"] = confused_pairs(judged[1], names_of(run.info["data"]))
    return {name: table for name, table in found.items() if len(table)}


def _listings(run: RunRecord) -> dict[str, Listing]:
    recipe, defaults = _flat(run.info["recipe"]), _flat(Recipe().config())
    changed = {name: value for name, value in recipe.items() if defaults.get(name) != value}
    return {
        "splits": _splits(run),
        "pairs": _pairs(run),
        "changed": _recipe("changed", changed, defaults),
        "recipe": _recipe("recipe", recipe, defaults),
    }


def _heads(**columns: bool) -> list[Head]:
    """Columns by title, and whether they are numbers."""
    return [Head(name, name.replace("_", " "), numeric) for name, numeric in columns.items()]


def _splits(run: RunRecord) -> Listing:
    """A row for each split that was evaluated as a whole."""
    rows, titles = [], []
    for split, found in run_answer.numbers_of(run.evaluation):
        titles = [name for name, _ in shares(found)]
        numbers = [
            (f"{found['examples']:,}", found["examples"]),
            (f"{found['loss']:.4g}", found["loss"]),
            *(("–" if value is None else f"{100 * value:.2f}", value) for _, value in shares(found)),
        ]
        if "confusion" in found:
            # Each image is right or wrong, by itself.
            low, high = wilson(found["accuracy"] * found["examples"], found["examples"])
            text, accuracy = numbers[2]
            numbers[2] = (f"{text} [{100 * low:.2f}, {100 * high:.2f}]", accuracy)
        rows.append(
            [(split, split), *((text, "" if value is None else f"{value:.17g}") for text, value in numbers)]
        )
    units = [f"{name} ({'points' if name == 'calibration error' else '%'})" for name in titles]
    heads = [Head(name, name, name != "split") for name in ("split", "images", "loss")]
    heads += [Head(name, unit, True) for name, unit in zip(titles, units, strict=True)]
    return Listing("splits", "Whole splits", heads, rows)


def _pairs(run: RunRecord) -> Listing:
    """The most frequent confusions."""
    heads = _heads(true_class=False, predicted_class=False, images=True, share=True)
    judged = run_answer.judged(run.evaluation)
    table = pd.DataFrame()
    if judged is not None and "confusion" in judged[1]:
        table = confused_pairs(judged[1], names_of(run.info["data"]))
    rows = [
        [
            (pair["true"], pair["true"]),
            (pair["predicted"], pair["predicted"]),
            (f"{pair['count']:,}", str(pair["count"])),
            (f"{100 * pair['share']:.1f} %", f"{pair['share']:.17g}"),
        ]
        for _, pair in table.head(PAIRS).iterrows()
    ]
    return Listing("pairs", "Confused pairs", heads, rows, len(table) - len(rows))


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration by dotted names."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        nested = isinstance(value, Mapping) and value
        found |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found


def _text(value: Any) -> str:
    """A value of a recipe."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_text(each)}" for name, each in value.items()) or "none"
    return tables.label(value)


def _recipe(name: str, chosen: Mapping[str, Any], defaults: Mapping[str, Any]) -> Listing:
    rows = [
        [(text, text) for text in (key, _text(value), _text(defaults[key]) if key in defaults else "")]
        for key, value in chosen.items()
    ]
    return Listing(name, "Recipe", _heads(option=False, value=False, default=False), rows)


def _settings(run: RunRecord) -> list[tuple[str, str]]:
    """What somebody needs who repeats the run."""
    info, status = run.info, run.status
    rows = [
        ("data", _data(info["data"])),
        ("normalized by", _moments(info["data"])),
        ("parameters", _number(info.get("parameters"))),
        ("began with those of", info.get("init_from")),
        ("steps", _number(info.get("steps"))),
        ("steps of an epoch", _number(info.get("steps_per_epoch"))),
        ("precision", info.get("precision")),
        ("device", sheet.device(info["device"]) if info.get("device") else ""),
        ("time", sheet.duration(status.seconds) if status else ""),
        ("started", info.get("started")),
        ("last written", status.updated if status else ""),
        ("commit", info.get("commit")),
        (
            "versions",
            ", ".join(f"{name} {version}" for name, version in (info.get("versions") or {}).items()),
        ),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _data(data: Info) -> str:
    sizes = [f"{data[split]:,} for {words}" for split, words in SPLITS.items() if data.get(split)]
    shape = "×".join(map(str, data.get("image_shape") or ()))
    parts = [
        data["name"],
        f"{data['num_classes']:,} classes",
        f"images of {shape}" if shape else "",
        ", ".join(sizes),
    ]
    return "; ".join(part for part in parts if part)


def _moments(data: Info) -> str:
    mean, std = (data.get(name) or [] for name in ("mean", "std"))
    if not mean or not std:
        return ""
    means, deviations = (", ".join(f"{value:.4g}" for value in values) for values in (mean, std))
    return f"mean {means}; deviation {deviations}"
