"""The page: the answer, the figures and the tables of a study in one file that needs no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cnnjax.frame import Frame, Info
from cnnjax.report import answer, sheet, tables
from cnnjax.report import verdicts as words
from cnnjax.report.listing import Listing, agreement_listing, cell_listing, margin_listing, run_listing
from cnnjax.report.plates import plates
from cnnjax.study.claims import Verdict

__all__ = ["write"]

SECTIONS = {
    "gradients": "Gradients, layer by layer",
    "signals": "Signals, layer by layer",
    "training": "Training",
    "outcome": "What training reached",
}
RUN_AXES = {"map": "one after the other (map)", "vmap": "all at once (vmap)"}


def _settings(info: Info) -> list[tuple[str, str]]:
    """What somebody needs who repeats the study."""
    memory = info.get("peak_memory_gib")
    rows = [
        *_common(info),
        ("data", info["data"]),
        ("steps", f"{info['steps']:,}"),
        ("batch size", tables.label(info["batch_size"])),
        ("seeds", ", ".join(tables.label(seed) for seed in info["seeds"])),
        ("learning rates", ", ".join(tables.label(rate) for rate in info["learning_rates"])),
        ("precision", info["precision"]),
        ("device", sheet.device(info["device"])),
        ("runs of one device", RUN_AXES.get(info["run_axis"], info["run_axis"])),
        ("time", sheet.duration(info["seconds"])),
        ("peak memory", "" if memory is None else f"{memory:.2f} GiB"),
        ("started", info["started"]),
        ("finished", info["finished"]),
        ("commit", info["commit"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in info["versions"].items())),
        ("partly computed with", "; ".join(_difference(info, earlier) for earlier in info["earlier"])),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def _common(info: Info) -> list[tuple[str, str | None]]:
    """The model, its options and how it is trained, as far as not every cell of the grid has its own."""
    config = info["config"]
    own = {
        name for values in config["grid"].values() if isinstance(values, Mapping) for name in _of_all(values)
    }
    own |= config["grid"].keys()
    options = {name: value for name, value in config["options"].items() if name not in own}
    rows = [(name, config.get(name)) for name in ("model", "optimizer", "schedule") if name not in own]
    return [*rows[:1], ("options", _assignments(options)), *rows[1:]]


def _of_all(variants: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """What every named variant sets."""
    return set.intersection(*(set(settings) for settings in variants.values()))


def _variants(info: Info) -> list[tuple[str, str]]:
    """The named variants of the axes and what each sets."""
    return [
        (f"{axis}: {name}", _assignments(settings) or "nothing else")
        for axis, values in info["config"]["grid"].items()
        if isinstance(values, Mapping)
        for name, settings in values.items()
    ]


def _assignments(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={tables.label(value)}" for name, value in settings.items())


def _difference(info: Info, earlier: Mapping[str, Any]) -> str:
    """How the environment of an earlier part of a study differs from that of its end."""
    versions = [
        f"{name} {version}"
        for name, version in earlier["versions"].items()
        if info["versions"].get(name) != version
    ]
    device = [sheet.device(earlier["device"])] if earlier["device"] != info["device"] else []
    others = [
        f"{name.replace('_', ' ')} {earlier[name]}"
        for name in ("run_axis", "precision", "commit")
        if earlier[name] != info[name]
    ]
    return ", ".join([*versions, *device, *others])


def _warning(info: Info, runs: Frame) -> str:
    """What to know before reading on, when the study isn't done."""
    open_runs = int((runs["status"] == "unfinished").sum())
    if not open_runs and info["finished"]:
        return ""
    return (
        f"This study is not finished: {len(runs) - open_runs} of {len(runs)} runs are done. "
        f"Everything below speaks of what is there so far, and can change."
    )


def _reading(info: Info, cells: Frame) -> list[str]:
    """What a reader must know to read the figures right."""
    notes = [
        "The gradient shown is the derivative of the loss with respect to the pre-activations. The norm of a weight's "
        "gradient alone can look healthy while signal and gradient both shrink, because the two factors multiply to a "
        "constant (Glorot and Bengio 2010, eq. 14).",
        "Stable, vanishing and exploding describe the network at initialization. They do not say whether it trains: "
        "a stable net can fail for other reasons, and optimizers can repair a bad scale.",
    ]
    if (cells["flow"] == "exploding").any():
        notes.append(
            "Exploding is the opposite of vanishing. Plain nets with batch normalization do it at initialization: with ReLU "
            "the mean squared gradient grows toward the input by a factor that tends to π / (π − 1) = 1.47 per layer "
            "for large batches (Yang et al. 2019)."
        )
    if (cells["verdict"] != "").any() and len(info["learning_rates"]) > 1:
        notes.append(
            "Each cell is judged at its own learning rate, chosen on the validation split, never on the test split."
        )
    return notes


def _listings(info: Info, runs: Frame, cells: Frame) -> dict[str, Listing]:
    return {
        "margins": margin_listing(info, tables.margins(info, cells)),
        "agreement": agreement_listing(info, tables.agreement(cells)),
        "cells": cell_listing(info, cells),
        "runs": run_listing(info, runs),
    }


def write(
    info: Info,
    runs: pd.DataFrame,
    curves: pd.DataFrame,
    layers: pd.DataFrame,
    folder: Path,
    *,
    verdicts: Sequence[Verdict] = (),
    theory: pd.DataFrame | None = None,
    measures: pd.DataFrame | None = None,
) -> Path:
    """Write `index.html`, `figures/*.svg`, `figures/*.png` and `tables/*.csv` to a folder; give the path of the page.

    The arguments are the tables of a study as `cnnjax.study` stores them, the verdicts on its claims, which the page
    shows first, what theory predicts, which is drawn dashed, and the study's own measures, of which singular values get a
    figure; unfinished studies are welcome. The page needs nothing but itself. Every file is written to a temporary name
    and renamed, the page last.

    Raises:
      ValueError: there are no runs.
    """
    if runs.empty:
        raise ValueError("the table of runs is empty: run the study before its report")
    folder = Path(folder)
    cells = tables.cells(info, runs)
    found = plates(info, runs, curves, layers, theory, measures)
    shown = [sheet.put_figure(plate, i, folder) for i, plate in enumerate(found, 1)]
    numbers = {"cells": cells, "runs": runs, "values": tables.margins(info, cells)}
    if verdicts:
        numbers["verdicts"] = words.frame(verdicts)
    for name, table in numbers.items():
        sheet.put_table(folder, name, table)
    page = (
        sheet.environment()
        .get_template("page.html.j2")
        .render(
            info=info,
            size=answer.size(info, runs),
            verdicts=[(verdict, words.texts(verdict)) for verdict in verdicts],
            tally=words.summary(verdicts),
            sentences=answer.paragraph(info, runs),
            variants=_variants(info),
            warning=_warning(info, runs),
            figures=shown,
            sections=SECTIONS,
            listings=_listings(info, runs, cells),
            settings=_settings(info),
            reading=_reading(info, cells),
        )
    )
    path = folder / "index.html"
    sheet.put(path, page.encode())
    return path
