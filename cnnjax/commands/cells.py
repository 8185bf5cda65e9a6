"""The result of a study in the terminal: a row for each cell of the grid, the verdicts, and the answer in words."""

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnnjax.frame import Column, Frame, Info
from cnnjax.report import answer, tables, verdicts
from cnnjax.study.claims import Verdict

# More cells are cut to the best and the worst of them.
SHOWN = 40
# Of a terminal that does not say: enough for one line a cell.
WIDTH = 120


def console(*, width: int = WIDTH) -> Console:
    """The terminal, or a page of that width where the output goes to a file."""
    return Console(width=None if sys.stdout.isatty() else width, highlight=False)


def print_result(info: Info, runs: Frame, page: Path, judged: Sequence[Verdict] = ()) -> None:
    """Prints the cells, the verdicts where there are any, the answer and the path of the page."""
    out = console()
    cells = tables.cells(info, runs)
    out.print(cell_table(info, cells))
    if judged:
        out.print(verdict_table(judged))
    out.print(" ".join(answer.paragraph(info, runs)))
    if info["seconds"] is not None:
        out.print(f"{answer.size(info, runs)}, in {info['seconds']:.0f} s")
    # Printed plainly, so that a path is never broken into lines.
    print(f"report: {page.resolve()}")


def cell_table(info: Info, cells: Frame) -> Table:
    """A table of cells, those of `tables.cells`: the axes, test accuracy, gradient ratio and flow."""
    shown, title = _shown(info, cells)
    axes, numbers = tables.axes(info), _numbers(info)
    table = Table(title=title, title_justify="left")
    for axis in axes:
        table.add_column(axis.title, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right")
    table.add_column("flow")
    for _, cell in shown.iterrows():
        labels = [str(cell[axis.name]) for axis in axes]
        table.add_row(*labels, *(text(cell) for text in numbers.values()), cell["flow"])
    return table


def verdict_table(judged: Sequence[Verdict]) -> Table:
    """A table of claims: the verdict and what there is to note, the study's number, the printed one, the source."""
    table = Table(title=verdicts.summary(judged), title_justify="left", show_lines=True)
    for name in ("claim", "verdict", "ours", "printed", "source"):
        table.add_column(name)
    for verdict in judged:
        texts = verdicts.texts(verdict)
        outcome = f"{texts.mark} {verdict.verdict}" + (f": {texts.note}" if texts.note else "")
        # Text, because brackets would be read as markup.
        ours = "\n".join(part for part in (texts.ours, texts.count) if part)
        table.add_row(*map(Text, (verdict.name, outcome, ours, texts.printed, verdict.source)))
    return table


def _numbers(info: Info) -> dict[str, Callable[[Column], str]]:
    """The columns of numbers: their names, and the text of a cell's."""
    columns: dict[str, Callable[[Column], str]] = {}
    if info["steps"]:
        columns["test accuracy %"] = lambda cell: _accuracy(cell, len(info["seeds"]))
        if len(info["learning_rates"]) > 1:
            columns["learning rate"] = lambda cell: f"{cell['learning_rate']:g}" if cell["seeds"] else "–"
    return columns | {"log10 gradient ratio": lambda cell: tables.decades(cell["gradient_ratio_log10"])}


def _shown(info: Info, cells: Frame) -> tuple[Frame, str]:
    """The rows to show, in the order of the study or the best ones first, and what to call them."""
    if len(cells) <= SHOWN:
        return cells, f"{info['name']}: all {len(cells)} cells" if len(cells) > 1 else info["name"]
    half = SHOWN // 2
    if info["steps"]:
        ranked, by = cells.sort_values("test_accuracy", ascending=False, kind="stable"), "test accuracy"
    else:
        distance = cells["gradient_ratio_log10"].abs().fillna(math.inf)
        ranked, by = cells.loc[distance.sort_values(kind="stable").index], "gradient ratio nearest 0"
    ends = [*ranked.index[:half], *ranked.index[-half:]]
    return cells.loc[ends], f"{info['name']}: the {half} best and {half} worst of {len(cells)} cells by {by}"


def _accuracy(cell: Column, seeds: int) -> str:
    """Mean and deviation over the seeds in percent, or what became of the runs."""
    if not cell["seeds"]:
        statuses = ("diverged", "out of memory", "unfinished")
        return next((name for name in statuses if cell[name.replace(" ", "_")]), "–")
    mean, spread = 100 * cell["test_accuracy"], 100 * cell["test_accuracy_sd"]
    text = f"{mean:.1f}" if math.isnan(spread) else f"{mean:.1f} ± {spread:.1f}"
    return text if cell["seeds"] == seeds else f"{text} (n = {cell['seeds']})"
