"""A made-up study with the shape of a real one: signals that multiply layer by layer, nets that train, fail and diverge."""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

AXES = {
    "activation": ["relu", "tanh", "sigmoid"],
    "initializer": ["he_normal", "xavier_normal"],
    "architecture": ["plain", "plain + bn", "resnet", "pre-act resnet"],
    "depth": [10, 30],
}


class Study(NamedTuple):
    """What `report.write` takes."""

    info: dict[str, Any]
    runs: pd.DataFrame
    curves: pd.DataFrame
    layers: pd.DataFrame


def information(
    axes: dict[str, list[Any]], seeds: list[int], rates: list[float], steps: int
) -> dict[str, Any]:
    """What study.json holds."""
    return {
        "name": "synthetic",
        "question": "Which activation, initializer and architecture keeps the gradient alive?",
        "description": "A made-up grid for tests.",
        "papers": [
            "Glorot and Bengio (2010), Understanding the difficulty of training deep feedforward networks"
        ],
        "axes": axes,
        "config": {"model": "plain", "options": {"padding": "CIRCULAR"}, "grid": axes},
        "seeds": seeds,
        "learning_rates": rates,
        "steps": steps,
        "batch_size": 64,
        "data": "digits",
        "notes": ["The numbers are made up."],
        "num_classes": 10,
        "command": "cnnjax run experiments/synthetic.py",
        "versions": {"cnnjax": "0.1.0", "jax": "0.10.2"},
        "device": {"platform": "cpu", "kind": "cpu", "count": 2},
        "run_axis": "map",
        "earlier": [],
        "precision": "float32, highest",
        "commit": "0123456789abcdef",
        "seconds": 123.4,
        "started": "2025-01-01T10:00:00+00:00",
        "finished": "2025-01-01T10:02:03+00:00",
        "peak_memory_gib": 1.25,
    }


def slope(cell: dict[str, Any]) -> float:
    """The log10 factor of the gradient's second moment for one layer toward the input."""
    activation = {"tanh": -0.08, "sigmoid": -1.3}.get(cell.get("activation", "relu"), 0.0)
    initializer = -0.3 if cell.get("initializer", "he_normal") == "xavier_normal" else 0.0
    architecture = cell.get("architecture", "plain")
    if architecture == "plain + bn":
        return 0.17 + 0.05 * initializer
    damping = {"plain": 1.0, "resnet": 0.12, "pre-act resnet": 0.06}[architecture]
    return damping * (activation + (initializer if cell.get("activation") != "tanh" else 0.0))


def profile(cell: dict[str, Any], count: int, rng: np.random.Generator, *, late: bool) -> pd.DataFrame:
    """The rows of one run and step."""
    factor = slope(cell) * (0.3 if late else 1.0)
    from_last = np.arange(count)[::-1]
    gradient = -4.0 + factor * from_last + np.cumsum(rng.normal(0, 0.05, count))[::-1]
    # Below float32's smallest number there is only zero.
    gradient = np.where(gradient < -38, -math.inf, gradient)
    activation = -0.5 + min(factor, 0.0) * np.arange(count) * 0.5 + np.cumsum(rng.normal(0, 0.03, count))
    kind = cell.get("activation", "relu")
    noise = rng.uniform(0, 0.04, count)
    kernel = rng.normal(0.5, 0.05, count)
    return pd.DataFrame(
        {
            "layer": np.arange(count),
            "path": [f"block_{i}/conv" for i in range(count)],
            "activation": kind,
            "mean": rng.normal(0, 0.1, count),
            "log10_second_moment": activation + 0.2,
            "dead": 0.5 + noise if kind == "relu" else np.zeros(count),
            "saturated": np.zeros(count) if kind == "relu" else 0.05 + noise + 0.01 * np.arange(count) * late,
            "correlation": 1 - (0.7 + noise) * np.exp(-np.arange(count) / 15),
            "output_mean": rng.normal(0, 0.1, count),
            "output_log10_second_moment": activation,
            "gradient_log10_second_moment": gradient,
            "gradient_log10_max": gradient / 2 + 1,
            "output_gradient_log10_second_moment": gradient + 0.1,
            "output_gradient_log10_max": gradient / 2 + 1.1,
            "kernel_log10_norm": kernel,
            "kernel_gradient_log10_norm": np.where(np.arange(count) == count - 1, np.nan, gradient / 2),
            "gradient_to_kernel_log10": gradient / 2 - kernel,
            "update_to_kernel_log10": gradient / 2 - kernel - 2,
        }
    )


def outcome(cell: dict[str, Any], depth: int, rate: float, rng: np.random.Generator) -> tuple[str, float]:
    """Status and final accuracy of one run: strong shrinking stalls, high rates on exploding nets diverge."""
    total = slope(cell) * depth
    if total > 4 and rate >= 0.1:
        return "diverged", math.nan
    reach = 0.97 / (1 + math.exp(-(total + 9))) if total < 0 else 0.95
    return "finished", float(
        np.clip(max(0.1, reach - (0.02 if rate < 0.1 else 0.0)) + rng.normal(0, 0.006), 0, 1)
    )


def curve(accuracy: float, steps: int, stop: int | None, rng: np.random.Generator) -> pd.DataFrame:
    """Loss and accuracy of one run over 24 segments."""
    at = np.linspace(steps / 24, steps, 24).astype(int)
    final = 0.5 if math.isnan(accuracy) else accuracy
    progress = 1 - np.exp(-5 * at / steps)
    shown = 0.1 + (final - 0.1) * progress + rng.normal(0, 0.004, 24)
    loss = math.log(10) * (1 - 0.98 * (final - 0.1) / 0.9 * progress) + rng.uniform(0, 0.02, 24)
    frame = pd.DataFrame(
        {
            "step": at,
            "loss": loss,
            "accuracy": shown,
            "validation_loss": loss + 0.05,
            "validation_accuracy": shown,
        }
    )
    if stop is not None:
        frame.loc[frame["step"] >= stop, frame.columns[1:]] = math.nan
    return frame


def flow(ratio: float) -> str:
    return "vanishing" if ratio < -3 else "exploding" if ratio > 3 else "stable"


def make(
    *,
    axes: dict[str, list[Any]] | None = None,
    seeds: int = 3,
    rates: tuple[float, ...] = (0.1, 0.03),
    steps: int = 480,
) -> Study:
    """A whole study: every combination of the axes, learning rates and seeds."""
    axes = AXES if axes is None else axes
    names = list(axes)
    runs, curves, layers = [], [], []
    cells = list(itertools.product(*axes.values()))
    for (number, values), rate, seed in itertools.product(enumerate(cells), rates, range(seeds)):
        cell = dict(zip(names, values, strict=True))
        depth = int(cell.get("depth", 20))
        run = len(runs)
        rng = np.random.default_rng([number, seed])
        first = profile(cell, depth, rng, late=False).assign(run=run, step=0)
        ends = first["gradient_log10_second_moment"].iloc[[0, -1]].to_numpy()
        status, accuracy = outcome(cell, depth, rate, rng) if steps else ("finished", math.nan)
        stop = 5 * steps // 24 if status == "diverged" else None
        layers.append(first)
        if steps:
            last = profile(cell, depth, rng, late=True).assign(run=run, step=steps)
            if stop is not None:
                last[last.columns[3:-2]] = math.nan
            layers.append(last)
            curves.append(curve(accuracy, steps, stop, rng).assign(run=run))
        runs.append(
            {"run": run, "cell": number, **cell, "seed": seed, "learning_rate": rate, "status": status}
            | {
                "diverged_step": stop,
                "diverged_layer": None if stop is None else "stack[3]/layer",
                "parameters": 5000 * depth,
            }
            | {"train_loss": 1.0, "train_accuracy": accuracy + 0.01, "validation_loss": 1.0}
            | {"validation_accuracy": accuracy + 0.002, "test_loss": 1.1, "test_accuracy": accuracy}
            | {"gradient_ratio_log10": ends[0] - ends[1], "gradient_slope": -slope(cell)}
            | {"flow": flow(ends[0] - ends[1])}
        )
    table = pd.DataFrame(runs)
    means = table.groupby(["cell", "learning_rate"])["validation_accuracy"].mean().fillna(-1).reset_index()
    best = means.sort_values("validation_accuracy").drop_duplicates("cell", keep="last").set_index("cell")
    table.insert(6, "selected", table["learning_rate"] == table["cell"].map(best["learning_rate"]))
    empty = pd.DataFrame(
        columns=["run", "step", "loss", "accuracy", "validation_loss", "validation_accuracy"]
    )
    return Study(
        information(axes, list(range(seeds)), list(rates), steps),
        table,
        pd.concat(curves, ignore_index=True) if curves else empty,
        pd.concat(layers, ignore_index=True),
    )


def partial(study: Study) -> Study:
    """The study as it lies on disk when a third of its runs are still to be done."""
    info = study.info | {"finished": None}
    done = study.runs["run"] < 2 * len(study.runs) // 3
    numbers = [
        "train_accuracy",
        "validation_accuracy",
        "test_accuracy",
        "gradient_ratio_log10",
        "gradient_slope",
    ]
    runs = study.runs.copy()
    runs.loc[~done, numbers] = math.nan
    runs.loc[~done, "status"] = "unfinished"
    runs.loc[~done, "flow"] = None
    runs.loc[~done, "selected"] = False
    kept = runs.loc[done, "run"]
    curves, layers = (frame[frame["run"].isin(kept)] for frame in (study.curves, study.layers))
    return Study(info, runs, curves.reset_index(drop=True), layers.reset_index(drop=True))


def gaussian(
    sigma_w2: list[float], depths: list[int], *, options: dict[str, Any] | None = None, **make_options: Any
) -> Study:
    """A whole study over sigma_w2, by named variants, and depth: tanh networks of Gaussian kernels, sigma_b2 = 0.05."""
    variants = {f"{value:g}": {"gain": math.sqrt(value)} for value in sigma_w2}
    study = make(axes={"sigma_w2": list(variants), "depth": depths}, **make_options)
    config = {
        "model": "mlp",
        "options": {
            "activation": "tanh",
            "initializer": "gaussian",
            "bias_std": math.sqrt(0.05),
            **(options or {}),
        },
        "grid": {"sigma_w2": variants, "depth": depths},
    }
    return study._replace(info=study.info | {"config": config})


def singular_values(study: Study, rows: dict[str, np.ndarray]) -> pd.DataFrame:
    """A table of measures as the study stores it: by a cell's first label, the spectra of its seeds `(seeds, values)`."""
    axis = next(iter(study.info["axes"]))
    frames = [
        pd.DataFrame(
            {"run": run["run"], "measure": "singular_values", "index": range(values.shape[1])}
        ).assign(value=values[run["seed"]])
        for _, run in study.runs.iterrows()
        for values in [rows[run[axis]]]
    ]
    return pd.concat(frames, ignore_index=True)
