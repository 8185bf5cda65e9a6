"""The figures of the page with their words and their numbers, in the order of the page."""

from collections.abc import Iterator
from dataclasses import dataclass

from matplotlib.figure import Figure

from cnnjax.frame import Frame, Info
from cnnjax.report import captions, heatmap, scatter, spectra, tables, trainability
from cnnjax.report.curves import CURVES, by_step, draw_by_step
from cnnjax.report.layers import QUANTITIES, by_layer, draw_by_layer, with_theory
from cnnjax.report.layout import Layout, choose, slices

__all__ = ["Plate", "plates"]

# Panels of the figure at the head of the page, and slices of a large grid that get a figure of their own.
LEAD_PANELS = 8
SLICES = 4


@dataclass(frozen=True)
class Plate:
    """A figure and what belongs to it. `section` is the part of the page, `folded` hides it behind a click."""

    name: str
    section: str
    title: str
    caption: str
    alternative: str
    figure: Figure
    table: Frame
    folded: bool = False


@dataclass(frozen=True)
class _Study:
    info: Info
    runs: Frame
    curves: Frame
    layers: Frame
    theory: Frame | None
    measures: Frame | None

    @property
    def trained(self) -> bool:
        return bool(self.info["steps"]) and bool(len(self.curves))


def _layer_plate(
    study: _Study, key: str, step: str, layout: Layout, name: str, section: str, folded: bool
) -> Plate | None:
    """The plate of a quantity by layer; none where there is nothing to see (no values, or zero everywhere)."""
    quantity = QUANTITIES[key]
    table = by_layer(study.info, study.runs, study.layers, column=quantity.column, step=step, layout=layout)
    if quantity.predicted and step == "first" and study.theory is not None:
        table = with_theory(study.info, study.runs, table, study.theory, column=quantity.column)
    if table["median"].isna().all() or (quantity.scale == "share" and not (table["high"] > 0).any()):
        return None
    when = "at initialization" if step == "first" else "at the end of training"
    title = f"{quantity.title}, {when}" + (f" ({layout.shown})" if layout.fixed else "")
    return Plate(
        name,
        section,
        title,
        captions.by_layer(table, layout, quantity.meaning),
        captions.alternative(title, layout),
        draw_by_layer(table, layout, quantity),
        table,
        folded,
    )


def _trainability(study: _Study) -> Plate | None:
    """The map over sigma_w2 and depth; none where the study is no such grid."""
    try:
        table = trainability.by_depth(study.info, study.runs)
    except ValueError:
        return None
    if table["train_accuracy"].isna().all():
        return None
    title = "Training accuracy over kernel variance and depth, and the depth that theory gives"
    caption = captions.trainability(study.info, table)
    figure = trainability.draw_by_depth(study.info, table)
    return Plate("trainability", "lead", title, caption, captions.alternative(title, None), figure, table)


def _spectra(study: _Study) -> Plate | None:
    """The histograms of singular values, where the study measures them."""
    measures = study.measures
    if measures is None or not len(spectra.vectors(measures)):
        return None
    table = spectra.spectra(study.info, study.runs, measures)
    title = "Singular values of the Jacobian at initialization"
    caption = captions.singular_values(study.info, table)
    figure = spectra.draw_spectra(study.info, table)
    return Plate("singular_values", "lead", title, caption, captions.alternative(title, None), figure, table)


def _gradients(study: _Study, layout: Layout) -> Iterator[Plate | None]:
    """The lead, then the whole grid (slice by slice where it is too large), then the end of training."""
    lead = choose(study.info, study.runs, max_panels=LEAD_PANELS)
    if lead != layout:
        yield _layer_plate(study, "gradient", "first", lead, "lead", "lead", False)
    for i, part in enumerate(slices(study.info, layout)[:SLICES]):
        name = "gradient_by_layer" + (f"_{i + 1}" if i else "")
        section = "lead" if lead == layout and not i else "gradients"
        yield _layer_plate(study, "gradient", "first", part, name, section, i > 0)
    if study.trained:
        yield _layer_plate(study, "gradient", "last", layout, "gradient_by_layer_end", "gradients", False)


def _signals(study: _Study, layout: Layout) -> Iterator[Plate | None]:
    """Signals at initialization, and, folded, those that training changes most."""
    for key in ("activation", "saturated", "correlation"):
        yield _layer_plate(study, key, "first", layout, f"{key}_by_layer", "signals", False)
    for key in ("activation", "saturated", "dead") if study.trained else ():
        yield _layer_plate(study, key, "last", layout, f"{key}_by_layer_end", "signals", True)


def _curves(study: _Study, layout: Layout) -> Iterator[Plate | None]:
    for key, curve in CURVES.items():
        table = by_step(study.info, study.runs, study.curves, column=curve.column, layout=layout)
        if table["median"].notna().any():
            yield Plate(
                f"{key}_by_step",
                "training",
                curve.title,
                captions.by_step(table, layout, curve.meaning),
                captions.alternative(curve.title, layout),
                draw_by_step(study.info, table, layout, curve),
                table,
            )


def _gradient_map(study: _Study, cells: Frame) -> Plate:
    names = [axis.name for axis in tables.axes(study.info, at_least=1)]
    ratio = [name for name in cells.columns if name.startswith("gradient_ratio")]
    title = "How much gradient reaches the first layer"
    return Plate(
        "gradient_map",
        "gradients",
        title,
        captions.gradient_map(study.info, cells),
        captions.alternative(title, None),
        heatmap.gradient_map(study.info, study.runs),
        cells[["cell", *names, *ratio, "flow"]],
    )


def _outcome(study: _Study, cells: Frame, layout: Layout) -> Iterator[Plate | None]:
    """The accuracy map and the scatter plot, where anything was trained."""
    names = [axis.name for axis in tables.axes(study.info, at_least=1)]
    if (cells["verdict"] != "").any() and len(cells) > 1:
        title = "Final test accuracy over the grid"
        columns = [
            "cell",
            *names,
            "learning_rate",
            "seeds",
            "diverged",
            "test_accuracy",
            "test_accuracy_sd",
            "verdict",
        ]
        caption = captions.accuracy_map(study.info, cells)
        figure = heatmap.accuracy_map(study.info, study.runs)
        alternative = captions.alternative(title, None)
        yield Plate("accuracy_map", "outcome", title, caption, alternative, figure, cells[columns])
    points = scatter.ratio_and_accuracy(study.info, study.runs)
    if len(points):
        title = "Gradient flow at initialization against final accuracy"
        figure = scatter.draw_ratio_against_accuracy(study.info, points, layout)
        caption = captions.scatter(study.info, points, layout)
        alternative = captions.alternative(title, None)
        yield Plate("ratio_against_accuracy", "outcome", title, caption, alternative, figure, points)


def plates(
    info: Info,
    runs: Frame,
    curves: Frame,
    layers: Frame,
    theory: Frame | None = None,
    measures: Frame | None = None,
) -> list[Plate]:
    """All figures that the tables of a study allow."""
    study = _Study(info, runs, curves, layers, theory, measures)
    layout = choose(info, runs)
    cells = tables.cells(info, runs)
    found: list[Plate | None] = [*_gradients(study, layout)]
    if cells["gradient_ratio_log10"].notna().any() and len(cells) > 1:
        found.insert(1, _gradient_map(study, cells))
    found += [*_signals(study, layout)]
    if study.trained:
        found += [*_curves(study, layout), *_outcome(study, cells, layout)]
    found = [_trainability(study), _spectra(study), *found]
    return [plate for plate in found if plate is not None]
