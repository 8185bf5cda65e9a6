import numpy as np
import pandas as pd
import pytest

from cnnjax.commands.cells import cell_table
from cnnjax.report import tables

INFO = {
    "name": "made up",
    "axes": {"depth": list(range(50))},
    "seeds": [0, 1],
    "learning_rates": [0.1, 0.01],
    "steps": 4,
    "num_classes": 10,
}


def made(*, cells, **columns):
    rows = np.arange(2 * cells)
    frame = {
        "run": rows,
        "cell": rows // 2,
        "depth": rows // 2,
        "seed": rows % 2,
        "learning_rate": 0.01,
        "status": "finished",
        "selected": True,
        "flow": "stable",
        "gradient_ratio_log10": -rows / 2,
        "gradient_slope": 0.0,
        "train_accuracy": 0.5,
        "validation_accuracy": 0.5,
        # The best cell is the last one.
        "test_accuracy": rows / 100,
    }
    return pd.DataFrame(frame | columns)


def columns(info, runs):
    table = cell_table(info, tables.cells(info, runs))
    return table.title, {column.header: list(column.cells) for column in table.columns}


def test_all_cells_in_the_order_of_the_study():
    info = INFO | {"axes": {"depth": [0, 1, 2]}}
    title, shown = columns(info, made(cells=3))
    assert title == "made up: all 3 cells"
    assert shown == {
        "depth": ["0", "1", "2"],
        # Mean and deviation of 0 and 1, 2 and 3, 4 and 5 percent.
        "test accuracy %": ["0.5 ± 0.7", "2.5 ± 0.7", "4.5 ± 0.7"],
        "learning rate": ["0.01"] * 3,
        "log10 gradient ratio": ["−0.2", "−1.2", "−2.2"],
        "flow": ["stable"] * 3,
    }


@pytest.mark.parametrize(
    ("steps", "by", "best", "worst"),
    [(4, "test accuracy", "49", "0"), (0, "gradient ratio nearest 0", "0", "49")],
)
def test_many_cells_are_cut_to_the_ends(steps, by, best, worst):
    title, shown = columns(INFO | {"steps": steps}, made(cells=50))
    assert title == f"made up: the 20 best and 20 worst of 50 cells by {by}"
    assert len(shown["depth"]) == len(set(shown["depth"])) == 40
    assert (shown["depth"][0], shown["depth"][-1]) == (best, worst)
    assert ("test accuracy %" in shown) == bool(steps)


@pytest.mark.parametrize("status", ["diverged", "out of memory", "unfinished"])
def test_what_became_of_the_runs(status):
    info = INFO | {"axes": {"depth": [0, 1]}}
    statuses = ["finished", status, status, status]
    accuracies = [0.5, np.nan, np.nan, np.nan]
    _, shown = columns(info, made(cells=2, status=statuses, test_accuracy=accuracies))
    assert shown["test accuracy %"] == ["50.0 (n = 1)", status]
    assert shown["learning rate"] == ["0.01", "–"]
