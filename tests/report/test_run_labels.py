"""Figures of images that may show several classes: a bar for each class that is there, and what probabilities are worth."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.report.run_labels import label_figures, label_table
from cnnjax.training.label_tally import LabelTally


def evaluation(rng, classes, rows=200):
    """Of logits that tell the last classes best; none shows the first."""
    there = rng.random((rows, classes)) < np.where(np.arange(classes), 0.3, 0)
    logits = rng.normal(size=there.shape) + np.linspace(0, 6, classes) * (there - 0.5)
    zeros = jnp.zeros(rows)
    return LabelTally.of(jnp.asarray(logits, jnp.float32), jnp.asarray(there), zeros).report()


def test_a_row_for_each_class_that_is_there_the_best_ranked_first(rng):
    found = evaluation(rng, 4)
    table = label_table(found, "abcd")
    assert list(table["class"]) == ["d", "c", "b"] and table["average_precision"].is_monotonic_decreasing
    for row in table.to_dict("records"):
        number = "abcd".index(row.pop("class"))
        assert row == {name: found[f"class_{name}"][number] for name in row}


def test_the_figures_say_what_they_show(rng):
    found = evaluation(rng, 4)
    classes, worth = label_figures(found, "test", "abcd")
    assert classes.name == "class_average_precision" and "left out: 1." in classes.caption
    bars = [patch.get_width() for patch in classes.figure.axes[0].patches]
    assert bars == pytest.approx(list(label_table(found, "abcd")["average_precision"]))
    assert worth.name == "reliability" and worth.table["count"].sum() == 800
    assert worth.figure.axes[1].get_ylabel() == "share of the labels"


def test_of_many_classes_the_worst_are_shown(rng):
    names = [f"class {i}" for i in range(60)]
    plate = next(iter(label_figures(evaluation(rng, 60), "test", names)))
    assert plate.caption.startswith("The 20 worst of 59 classes.") and len(plate.table) == 59
    assert len(plate.figure.axes[0].patches) == 20
