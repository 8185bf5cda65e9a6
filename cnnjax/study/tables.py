"""From what a compiled call returns to tidy tables."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cnnjax import probes
from cnnjax.frame import Frame
from cnnjax.probes import Flow
from cnnjax.study.plan import Run

ACCURACIES = (
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "test_loss",
    "test_accuracy",
)


def layer_rows(flows: Flow, runs: Sequence[Run], step: int) -> Frame:
    """A row for each run and layer. `flows`: a table `(runs or more, layers, columns)`."""
    count, layers = len(runs), len(flows.layers)
    names = {
        "run": np.repeat([run.run for run in runs], layers),
        "step": step,
        "layer": np.tile(np.arange(layers), count),
        "path": list(flows.layers) * count,
        "activation": list(flows.activations) * count,
    }
    columns = np.asarray(flows.table)[:count].reshape(-1, len(probes.COLUMNS)).T
    return pd.DataFrame({**names, **dict(zip(probes.COLUMNS, columns, strict=True))})


def curve_rows(runs: Sequence[Run], step: int, **columns: Any) -> Frame:
    """A row for each run at one step. `columns`: arrays `(runs or more,)`."""
    values = {name: np.asarray(array, np.float64)[: len(runs)] for name, array in columns.items()}
    return pd.DataFrame({"run": [run.run for run in runs], "step": step, **values})


def measure_rows(measured: Mapping[str, np.ndarray], runs: Sequence[Run]) -> Frame:
    """A row for each run, measure and entry. `measured`: arrays `(runs or more,)` or `(runs or more, entries)`."""
    frames = []
    for name, array in measured.items():
        values = np.asarray(array, np.float64)[: len(runs)].reshape(len(runs), -1)
        run, index = np.indices(values.shape)
        numbers = np.asarray([run.run for run in runs])
        columns = {
            "run": numbers[run.ravel()],
            "measure": name,
            "index": index.ravel(),
            "value": values.ravel(),
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def measure_columns(measures: Frame) -> dict[str, np.ndarray]:
    """The measures that are a single number, by run, in the order of the runs."""
    single = measures.groupby("measure", sort=False)["index"].transform("max") == 0
    wide = measures[single].pivot(index="run", columns="measure", values="value")
    return {name: wide[name].to_numpy() for name in wide}


def identity_columns(run: Run) -> dict[str, Any]:
    """The columns of a run that are known before it starts."""
    return {
        "run": run.run,
        "cell": run.cell,
        **run.labels,
        "seed": run.seed,
        "learning_rate": run.learning_rate,
    }


def run_rows(runs: Sequence[Run], status: str, **columns: Any) -> Frame:
    """A row for each run, with missing values for all columns that are not given."""
    missing = dict.fromkeys((*ACCURACIES, "gradient_ratio_log10", "gradient_slope"), np.nan)
    defaults = {"status": status, "diverged_step": None, "diverged_layer": None, "parameters": None}
    defaults |= {"flow": None, **missing}
    frame = pd.DataFrame([identity_columns(run) | defaults for run in runs])
    for name, values in columns.items():
        frame[name] = values
    types = {"diverged_step": "Int64", "parameters": "Int64", "diverged_layer": "string", "flow": "string"}
    return frame.astype({**types, **dict.fromkeys(missing, "float64")})


def flow_columns(layers: Frame) -> dict[str, list[Any]]:
    """The derived numbers of each run, in the order of the runs. `layers`: the rows of one step."""
    columns = collections.defaultdict(list)
    for _, rows in layers.groupby("run", sort=True):
        flow = Flow(tuple(rows["path"]), tuple(rows["activation"]), rows[list(probes.COLUMNS)].to_numpy())
        columns["gradient_ratio_log10"].append(probes.gradient_ratio(flow))
        columns["gradient_slope"].append(probes.gradient_slope(flow))
        columns["flow"].append(probes.classify(flow))
    return dict(columns)


def mark_diverged(runs: Frame, curves: Frame, layers: Sequence[str]) -> Frame:
    """Sets status, step and layer of the runs in which something was not finite.

    Args:
      runs: from `run_rows`.
      curves: with `broken_step` (NaN where all was finite) and `broken_layer`, an index into `layers`.
      layers: names of the layers.
    """
    runs = runs.set_index("run", drop=False)
    broken = curves[curves["broken_step"].notna()].sort_values("step").groupby("run").first()
    for run, row in broken.iterrows():
        runs.loc[run, "status"] = "diverged"
        runs.loc[run, "diverged_step"] = int(row["broken_step"])
        runs.loc[run, "diverged_layer"] = layers[int(row["broken_layer"])]
    # The very last update may break a run without a further step to show where.
    silent = (runs["status"] == "finished") & ~np.isfinite(runs["test_loss"])
    runs.loc[silent, "status"] = "diverged"
    runs.loc[silent, "diverged_step"] = curves["step"].max()
    return runs.reset_index(drop=True)


def select_learning_rates(runs: Frame) -> Frame:
    """Adds the column `selected`: whether a run has its cell's best learning rate.

    The best one has the highest validation accuracy, averaged over the seeds, a run without one counting as 0; among
    equals the lowest validation loss; then the smallest rate. A cell with an unfinished run has none yet.
    """
    scores = runs.assign(
        accuracy=runs["validation_accuracy"].fillna(0.0), loss=runs["validation_loss"].fillna(np.inf)
    )
    means = scores.groupby(["cell", "learning_rate"], as_index=False)[["accuracy", "loss"]].mean()
    order = means.sort_values(
        ["cell", "accuracy", "loss", "learning_rate"], ascending=[True, False, True, True]
    )
    best = order.groupby("cell")["learning_rate"].first()
    complete = ~runs["cell"].isin(runs.loc[runs["status"] == "unfinished", "cell"])
    return runs.assign(selected=(runs["learning_rate"] == runs["cell"].map(best)) & complete)
