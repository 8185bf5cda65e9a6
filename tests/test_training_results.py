"""README's numbers of training runs are those of the runs whose summaries are kept."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# What each is to reach, and in how many epochs.
LEAST = {"mnist-lenet5": (0.99, 3), "cifar10-keras": (0.70, 10)}


@pytest.mark.parametrize("name", LEAST)
def test_a_row_is_that_of_its_runs(name):
    runs = json.loads((ROOT / "experiments" / "training" / f"{name}.json").read_text())
    row = next(line for line in README.splitlines() if f"experiments/training/{name}.json" in line)
    least, epochs = LEAST[name]
    for run in runs:
        accuracy = run["evaluation"]["test"]["accuracy"]
        assert accuracy >= least and run["log"][-1]["epoch"] <= epochs
        assert f"{accuracy:.2%}".replace("%", " %") in row
        assert run["commit"] and "+changes" not in run["commit"]
    assert runs[0]["command"] in row
