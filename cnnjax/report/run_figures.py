"""What a training run did step by step: loss and accuracy, the size of its gradient, its speed."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cnnjax.frame import Frame, Info
from cnnjax.report import captions, style
from cnnjax.report.plates import Plate
from cnnjax.report.run_metrics import SHARES
from cnnjax.report.scale import Range, View, set_ticks
from cnnjax.training.journal import HEADLINE

__all__ = ["best", "curves"]

LEFT, RIGHT, TOP, BOTTOM, GAP = 0.70, 0.08, 0.26, 0.40, 0.12
# Of a line; further records are averaged in groups.
POINTS = 400
FEW = 40
TRAINING, VALIDATION, BROKEN = style.SINGLE, "#c8660a", "#f3dcd3"
# The color and the name of what is measured on the validation split.
VALIDATED = {
    "validation_loss": (VALIDATION, "validation"),
    "validation_accuracy": (VALIDATION, "validation"),
    "validation_mean_average_precision": ("#7a0177", f"validation, {SHARES['mean_average_precision']}"),
}


def best(info: Info, log: Frame) -> tuple[int, float] | None:
    """The step of the highest validation `HEADLINE` and what it was; the first of equal ones, None without any."""
    column = _headline(info)
    known = log[log[column].notna()]
    if known.empty:
        return None
    row = known.loc[known[column].idxmax()]
    return int(row["step"]), float(row[column])


def _headline(info: Info) -> str:
    """The column that the best step is chosen by."""
    return f"validation_{HEADLINE[info['data']['label_kind']]}"


def _validated(info: Info) -> list[str]:
    """The columns of the shares that are drawn of the validation split."""
    return list(dict.fromkeys(("validation_accuracy", _headline(info))))


def curves(info: Info, log: Frame) -> Iterator[Plate]:
    """The figures over steps that a log allows."""
    if _known(log, "loss", "accuracy", "validation_loss", "validation_accuracy"):
        columns = ("loss", "accuracy", "validation_loss", *_validated(info), "learning_rate")
        title = "Loss, accuracy and learning rate"
        yield _plate(
            "learning", "lead", title, _learning_words(info, log), _learning(info, log), log, columns
        )
    if _known(log, "gradient_norm"):
        title, caption = "Norm of the gradient", _norm_words(log)
        yield _plate(
            "gradient_norm", "training", title, caption, _norm(info, log), log, ("gradient_norm", "skipped")
        )
    if _known(log, "images_per_second", "input_wait"):
        columns = ("seconds", "images_per_second", "input_wait")
        yield _plate("speed", "training", "Speed", _speed_words(log), _speed(info, log), log, columns)


def _plate(
    name: str, section: str, title: str, caption: str, figure: Figure, log: Frame, columns: Sequence[str]
) -> Plate:
    table = log[["step", "epoch", *columns]]
    return Plate(name, section, title, caption, captions.alternative(title, None), figure, table)


def _known(log: Frame, *columns: str) -> list[str]:
    """Those columns that hold a finite number."""
    return [name for name in columns if np.isfinite(log[name].to_numpy(float)).any()]


def _grouped(log: Frame, column: str, *, gaps: bool) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a line of `POINTS` points or less; what is not finite is left out, or is a gap."""
    values = log[column].where(np.isfinite(log[column].to_numpy(float)))
    rows = log.assign(value=values)[["step", "value"]]
    rows = rows if gaps else rows.dropna()
    groups = rows.groupby(np.arange(len(rows)) // _group(len(rows)))
    return groups["step"].last().to_numpy(float), groups["value"].mean().to_numpy(float)


def _group(records: int) -> int:
    return max(1, math.ceil(records / POINTS))


def _line(axes: Axes, log: Frame, column: str, *, color: str, name: str, gaps: bool, log10: bool) -> None:
    steps, values = _grouped(log, column, gaps=gaps)
    if log10:
        with np.errstate(divide="ignore"):
            values = np.log10(np.where(values > 0, values, np.nan))
    marker = "o" if not gaps or len(steps) <= FEW else ""
    size = 2.6 if len(steps) <= FEW else 1.6
    axes.plot(steps, values, color=color, label=name, marker=marker, ms=size, mew=0, lw=1.0, gid=column)


@style.styled
def _stack(info: Info, log: Frame, heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """Panels one below the other that share the axis of steps; where the loss is not finite they are shaded."""
    height = TOP + sum(heights) + GAP * (len(heights) - 1) + BOTTOM
    figure = Figure(figsize=(style.WIDTH, height))
    panels, top = [], height - TOP
    for each in heights:
        place = (LEFT / style.WIDTH, (top - each) / height, 1 - (LEFT + RIGHT) / style.WIDTH, each / height)
        panels.append(figure.add_axes(place))
        top -= each + GAP
    last = float(log["step"].max())
    for panel in panels:
        panel.set_xlim(-0.015 * last, 1.015 * last)
        panel.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
        panel.tick_params(labelbottom=panel is panels[-1])
        for start, end in _broken(log):
            panel.axvspan(start, end, color=BROKEN, lw=0, zorder=0, gid="not-finite")
    panels[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    epoch = info.get("steps_per_epoch")
    panels[-1].set_xlabel(f"training step (an epoch has {epoch:,})" if epoch else "training step")
    return figure, panels


def _broken(log: Frame) -> list[tuple[float, float]]:
    """The stretches of steps whose records have no finite loss."""
    bad = ~np.isfinite(log["loss"].to_numpy(float))
    if bad.all():
        return []
    ends = log["step"].to_numpy(float)
    starts = np.concatenate([[0.0], ends[:-1]])
    edges = np.flatnonzero(np.diff(np.concatenate([[0], bad.astype(int), [0]])))
    return [(float(starts[a]), float(ends[b - 1])) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _decades(axes: Axes, label: str, *, reference: float | None = None) -> None:
    """Scales an axis of log10 values by its lines."""
    lines = np.concatenate(
        [np.asarray(line.get_ydata(), float) for line in axes.get_lines()] or [np.zeros(0)]
    )
    finite = lines[np.isfinite(lines)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (-1.0, 0.0)
    if reference is not None:
        # A loss on its way to divergence would flatten everything else.
        high = min(max(high, reference), reference + 1)
    # Enough for a tick or two around a single value.
    pad = 0.06 * (high - low) + 0.5 * max(0.0, 0.4 - (high - low))
    limits = Range(low - pad, low - pad, high + pad)
    _scale(axes, View("training step", label, "decades"), limits)


def _scale(axes: Axes, view: View, limits: Range) -> None:
    ticks = axes.xaxis.get_major_locator()
    set_ticks(axes, view, limits)
    axes.xaxis.set_major_locator(ticks)
    axes.set_ylabel(view.y_label)


@style.styled
def _learning(info: Info, log: Frame) -> Figure:
    rates = bool(_known(log, "learning_rate"))
    figure, panels = _stack(info, log, [1.6, 1.6, *([0.75] if rates else [])])
    drawn = {"loss": ["validation_loss"], "accuracy": _validated(info)}
    for panel, (measure, validated) in zip(panels, drawn.items(), strict=False):
        scale = {"log10": measure == "loss"}
        _line(panel, log, measure, color=TRAINING, name="training", gaps=True, **scale)
        for column in _known(log, *validated):
            color, name = VALIDATED[column]
            _line(panel, log, column, color=color, name=name, gaps=False, **scale)
    _losses(panels[0], info)
    _accuracies(panels[1], info, log)
    if rates:
        _line(panels[2], log, "learning_rate", color=style.INK, name="", gaps=True, log10=True)
        _decades(panels[2], "learning rate")
    lines = [line for panel in panels[1::-1] for line in panel.get_legend_handles_labels()[0]]
    named = {str(line.get_label()): line for line in lines}
    place = (LEFT / style.WIDTH, 1 - 0.04 / figure.get_figheight())
    figure.legend(
        named.values(), named, loc="upper left", bbox_to_anchor=place, ncols=3, borderpad=0, borderaxespad=0
    )
    return figure


def _guessing(info: Info) -> tuple[float, float]:
    """Cross entropy and accuracy of a network that holds all classes for equally likely.

    Where images may show several, that is a coin for each class, and the loss is a sum over the classes.
    """
    classes = info["data"]["num_classes"]
    if info["data"]["label_kind"] == "multi":
        return classes * math.log(2), 1 / 2
    return math.log(max(classes, 2)), 1 / classes


def _losses(axes: Axes, info: Info) -> None:
    guess = math.log10(_guessing(info)[0])
    _decades(axes, "loss", reference=guess)
    axes.axhline(guess, color=style.GRAY, lw=0.8, ls=(0, (4, 3)), zorder=1)


def _accuracies(axes: Axes, info: Info, log: Frame) -> None:
    known = log[["accuracy", *_validated(info)]].to_numpy(float)
    finite, guess = known[np.isfinite(known)], _guessing(info)[1]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    low = min(low, guess)
    pad = 0.06 * max(high - low, 1e-3)
    _scale(axes, View("training step", "accuracy", "share"), Range(low - pad, low - pad, high + pad))
    axes.axhline(guess, color=style.GRAY, lw=0.8, ls=(0, (4, 3)), zorder=1)
    if (found := best(info, log)) is not None:
        color, _ = VALIDATED[_headline(info)]
        axes.plot(*found, marker="o", ms=6, mfc="none", mec=color, mew=1.1, zorder=5, gid="best")


@style.styled
def _norm(info: Info, log: Frame) -> Figure:
    figure, (panel,) = _stack(info, log, [1.5])
    _line(panel, log, "gradient_norm", color=TRAINING, name="", gaps=True, log10=True)
    _decades(panel, "norm of the gradient")
    skipped = log.loc[log["skipped"] > 0, "step"].to_numpy(float)
    low = panel.get_ylim()[0]
    panel.plot(skipped, np.full(len(skipped), low), ls="", marker="|", ms=9, color="#a33a00", gid="skipped")
    return figure


@style.styled
def _speed(info: Info, log: Frame) -> Figure:
    figure, panels = _stack(info, log, [1.2, 0.8])
    _line(panels[0], log, "images_per_second", color=TRAINING, name="", gaps=True, log10=False)
    panels[0].axhline(log["images_per_second"].median(), color=style.GRAY, lw=0.8, ls=(0, (4, 3)), zorder=1)
    top = np.nanmax(log["images_per_second"].to_numpy(float), initial=1e-9)
    _scale(panels[0], View("", "images per second", "plain"), Range(0.0, 0.0, 1.08 * float(top)))
    panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    _line(panels[1], log, "input_wait", color=TRAINING, name="", gaps=True, log10=False)
    wait = np.nanmax(log["input_wait"].to_numpy(float), initial=0.05)
    _scale(panels[1], View("", "input wait", "share"), Range(0.0, 0.0, 1.08 * float(wait)))
    return figure


def _means(log: Frame) -> str:
    group = _group(len(log))
    what = (
        "the steps since the point before"
        if group == 1
        else f"{group} records, which the table holds one by one"
    )
    return f"A point of training is a mean over {what}."


def _shaded(log: Frame) -> str:
    return "Shaded: records without a finite loss." if _broken(log) else ""


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _spoken(info: Info) -> str:
    return f"validation {SHARES[HEADLINE[info['data']['label_kind']]]}"


def _learning_words(info: Info, log: Frame) -> str:
    found, rates = best(info, log), bool(_known(log, "learning_rate"))
    return _joined(
        "Loss and learning rate are on log scales." if rates else "The loss is on a log scale.",
        _means(log),
        "It is measured on the batches as the network sees them, augmented and with dropout where the recipe has these, so "
        "it can be worse than validation.",
        "Dashed: guessing.",
        f"Ring: the best {_spoken(info)}, {100 * found[1]:.2f} % at step {found[0]:,}." if found else "",
        "" if found else "The validation split was never evaluated.",
        _shaded(log),
    )


def _norm_words(log: Frame) -> str:
    skipped = int(log["skipped"].fillna(0).sum())
    return _joined(
        "Of all parameters together, before clipping (log scale).",
        _means(log),
        f"Red strokes: records in which updates were left out ({skipped:,} in all)." if skipped else "",
        _shaded(log),
    )


def _speed_words(log: Frame) -> str:
    return _joined(
        "Images a second of training, evaluations not counted, and the share of that time in which the devices waited for "
        "input. Dashed: the median.",
        "Compiling is not counted.",
    )
