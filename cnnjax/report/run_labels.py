"""What a trained network gets right and wrong on a split of images that may show several classes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from cnnjax.frame import Frame
from cnnjax.report.plates import Plate
from cnnjax.report.run_classes import BARS, WORST, Sure, bars, plate, reliability_figures

__all__ = ["label_figures", "label_table"]

LABELS = Sure(
    title="What the probabilities of classes are worth",
    counted="labels",
    confidence="probability of a class in an image",
    true="share of them that are there",
    caption="Left: a point is a bin of labels (an image and a class) of about the same probability. On the dashed line the "
    "probability is right. Lines: 95 % intervals, as if labels were independent (Wilson 1927). Right: how many labels are "
    "so probable; where most classes are rare, most are near 0.",
)
COLUMNS = ("average_precision", "precision", "recall", "f1", "examples")


def label_table(found: Mapping[str, Any], names: Sequence[str]) -> Frame:
    """A row for each class that is there, the best ranked first: class, and the metrics of it."""
    columns = {name: found[f"class_{name}"] for name in COLUMNS}
    table = pd.DataFrame({"class": list(names), **columns})
    there: Frame = table[table["examples"] > 0].astype(dict.fromkeys(COLUMNS[:-1], "float64"))
    return there.sort_values("average_precision", ascending=False, kind="stable").reset_index(drop=True)


def label_figures(found: Mapping[str, Any], split: str, names: Sequence[str]) -> Iterator[Plate]:
    """The figures of a split's evaluation, as `evaluation.json` has it."""
    table = label_table(found, names)
    if len(table):
        title = f"Average precision by class on the {split} split"
        figure = bars(table, "average_precision", found["mean_average_precision"], label="average precision")
        yield plate("class_average_precision", title, _words(table, len(names)), figure, table)
    yield from reliability_figures(found, split, LABELS)


def _words(table: Frame, count: int) -> str:
    parts = [
        f"The {WORST} worst of {len(table):,} classes." if len(table) > BARS else "",
        "The area under precision over recall, when the images are ranked by the probability of a class; by chance it is "
        "the share of the images that show it. Dashed: the mean over classes. The table holds precision, recall and F1.",
        f"Classes that no image shows are left out: {count - len(table)}." if len(table) < count else "",
    ]
    return " ".join(part for part in parts if part)
