"""Tables of a small made-up study, for rules: relu and tanh at depth 3 and 30, five seeds, two learning rates."""

import itertools
from typing import Any

import numpy as np
import pandas as pd

from cnnjax import probes
from cnnjax.study import Study
from cnnjax.study.claims import Results

SEEDS = 5
# Of the selected rate, by cell; the other rate's runs have accuracy 0.99 and must not be taken.
ACCURACIES = {
    ("relu", 3): [0.95, 0.96, 0.97, 0.98, 0.99],
    ("relu", 30): [0.85, 0.88, 0.80, 0.90, 0.79],
    ("tanh", 3): [0.94, 0.95, 0.96, 0.97, 0.98],
    ("tanh", 30): [0.10, 0.10, 0.10, 0.10, 0.10],
}


def study(**fields: Any) -> Study:
    """The study of which these are the tables."""
    grid = {"activation": ["relu", "tanh"], "depth": [3, 30]}
    chosen = {"name": "made-up", "question": "?", "grid": grid, "learning_rates": [0.1, 0.01], "seeds": SEEDS}
    return Study(**{**chosen, "steps": 100, "record_every": 50, "options": {"width": 16}, **fields})


def results(made: Study | None = None, **info: Any) -> Results:
    """Its tables; `info` replaces what study.json says."""
    made = study() if made is None else made
    rows, layers, curves = [], [], []
    for (cell, place), rate, seed in itertools.product(enumerate(ACCURACIES), (0.1, 0.01), range(SEEDS)):
        run = len(rows)
        accuracy = ACCURACIES[place][seed] if rate == 0.1 else 0.99
        rows.append(
            {
                "run": run,
                "cell": cell,
                "activation": place[0],
                "depth": place[1],
                "seed": seed,
                "learning_rate": rate,
                "status": "finished",
                "selected": rate == 0.1,
                "test_accuracy": accuracy,
                "train_accuracy": accuracy,
                "gradient_slope": 0.1 * place[1] + 0.01 * seed,
                "s_max": 2.0 + seed,
            }
        )
        layers.append(_layers(run, place[1], seed))
        steps = np.arange(10, 101, 10)
        # relu reaches 0.9 at 0.9 / accuracy of the steps, rounded up.
        curves.append(pd.DataFrame({"run": run, "step": steps, "accuracy": accuracy * steps / 100}))
    told = {
        "finished": "2026-01-01T00:00:00+00:00",
        "axes": {"activation": ["relu", "tanh"], "depth": [3, 30]},
        "seeds": list(range(SEEDS)),
        "data": "digits",
        "config": made.as_config(),
    }
    tables = pd.DataFrame(rows), pd.concat(curves), pd.concat(layers)
    return Results({**told, **info}, *tables, _measures(len(rows)))


def _layers(run: int, depth: int, seed: int) -> pd.DataFrame:
    """The gradient halves from each layer to the one before it, at step 50 it stays; the head is no part of that."""
    frames = []
    for step, factor in ((0, 0.5), (50, 1.0)):
        index = np.arange(depth + 1)
        table = dict.fromkeys(probes.COLUMNS, np.zeros(depth + 1))
        gradient = np.log10(factor) * (depth - 1 - index) + 0.001 * seed * index
        gradient[-1] = 99.0
        table |= {
            "gradient_log10_second_moment": gradient,
            "output_log10_second_moment": -0.2 * index,
            "dead": 0.02 * index,
        }
        names = {
            "run": run,
            "step": step,
            "layer": index,
            "activation": ["relu"] * depth + ["identity"],
        }
        frames.append(pd.DataFrame(names | table))
    return pd.concat(frames)


def _measures(runs: int) -> pd.DataFrame:
    """Three singular values of each run: 1, 2 and 6."""
    run, index = np.indices((runs, 3))
    values = np.asarray([1.0, 2.0, 6.0])[index]
    names = {"run": run.ravel(), "measure": "singular_values", "index": index.ravel()}
    return pd.DataFrame({**names, "value": values.ravel()})
