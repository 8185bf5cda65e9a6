"""The folder of a run that never was: losses fall, validation follows, a gradient vanishes or does not, a few pairs of
classes are confused.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.training import journal

ANIMALS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BINS = 15


def information(*, steps: int, classes: int, names: bool, per_epoch: int, notes: list[str]) -> dict[str, Any]:
    """What run.json holds."""
    class_names = list(ANIMALS) if classes == 10 else [f"class {i}" for i in range(classes)]
    return {
        "name": "cifar10-resnet20",
        "recipe": {
            "model": "cifar_resnet20",
            "options": {},
            "data": "cifar10",
            "duration": steps,
            "batch_size": 128,
            "learning_rate": 0.1,
            "schedule": {"name": "step", "boundaries": [steps // 2, 3 * steps // 4], "factor": 0.1},
            "optimizer": {"name": "sgd", "options": {"momentum": 0.9}},
        },
        "command": "cnnjax train cifar10-resnet20",
        "started": "2026-01-05T10:00:00+00:00",
        "versions": {"python": "3.12.1", "cnnjax": "0.1.0", "jax": "0.12.0"},
        "device": {"platform": "gpu", "kind": "made up", "count": 2, "machine": "x86_64"},
        "precision": "float32",
        "commit": "0123456789abcdef",
        "data": {
            "name": "cifar10",
            "train": 45_000,
            "validation": 5000,
            "test": 10_000,
            "num_classes": classes,
            "image_shape": [32, 32, 3],
            "mean": [0.4914, 0.4822, 0.4465],
            "std": [0.2470, 0.2435, 0.2616],
            "class_names": class_names if names else [],
            "notes": notes,
        },
        "parameters": 272_474,
        "steps": steps,
        "steps_per_epoch": per_epoch,
    }


def records(
    *, steps: int, every: int, evaluate_every: int, classes: int, per_epoch: int, diverged: int | None
) -> list[dict[str, Any]]:
    """The log of a run that reaches an accuracy of about 92 %, or that breaks behind a step."""
    rng = np.random.default_rng(0)
    found = []
    for step in range(every, steps + 1, every):
        done = step / steps
        rate = 0.1 * 0.1 ** ((done > 0.5) + (done > 0.75))
        level = 0.55 * math.exp(-6 * done) + 0.25 * math.exp(-done) - 0.05 * ((done > 0.5) + (done > 0.75))
        error = max(level, 0.01) * (1 + 0.05 * rng.normal())
        broken = diverged is not None and step > diverged
        record = {
            "step": step,
            "epoch": step / per_epoch,
            "loss": math.nan if broken else error * math.log(classes) * 1.2,
            "accuracy": 1 / classes if broken else 1 - error,
            "gradient_norm": math.nan if broken else 0.4 + error * (1 + 0.2 * rng.normal()),
            "learning_rate": rate,
            "seconds": every / 60 * (8.0 if step == every else 1 + 0.05 * rng.normal()),
            "images_per_second": 60 * 128 * (0.125 if step == every else 1 + 0.05 * rng.normal()),
            "input_wait": abs(0.02 * rng.normal()),
            "skipped": 0,
        }
        if step % evaluate_every == 0 or step == steps:
            accuracy = 1 / classes if broken else 1 - error - 0.06 + 0.004 * rng.normal()
            record |= {
                "validation_loss": math.nan if broken else 1.1 * error + 0.3,
                "validation_accuracy": accuracy,
                "validation_top5": max(accuracy, 0.99),
            }
        found.append(record)
    return found


def looks(*, steps: int, every: int, layers: int, slope: float) -> list[dict[str, Any]]:
    """The gradient's second moment falls by `slope` decades a layer toward the input, less so as training goes on."""
    rng = np.random.default_rng(1)
    found = []
    for step in range(0, steps + 1, every):
        distance = np.arange(layers)[::-1]
        gradient = (
            -7.0 - slope * distance * (1 - 0.5 * step / steps) - step / steps + 0.05 * rng.normal(size=layers)
        )
        ratio = gradient[0] - gradient[max(layers - 2, 0)]
        found.append(
            {
                "step": step,
                "class": "vanishing" if ratio < -4 else "exploding" if ratio > 4 else "stable",
                "layers": [f"block_{i // 2}.act{i % 2 + 1}" for i in range(layers - 1)] + ["head"],
                "log10_second_moment": (0.1 * distance / layers).tolist(),
                "gradient_log10_second_moment": gradient.tolist(),
                "kernel_gradient_log10_norm": (gradient / 2 + 2).tolist(),
                "saturated": (0.4 + 0.1 * rng.uniform(size=layers)).tolist(),
                "dead": (0.3 + 0.1 * rng.uniform(size=layers)).tolist(),
            }
        )
    return found


def judged(*, classes: int, examples: int, accuracy: float) -> dict[str, Any]:
    """What evaluation.json says of a split: the confusion of neighbors is the likeliest, that of 3 and 5 above all."""
    rng = np.random.default_rng(2)
    size = examples // classes
    distance = np.abs(np.subtract.outer(np.arange(classes), np.arange(classes)))
    odds = np.exp(-distance / 2.0) * rng.uniform(0.2, 1.8, (classes, classes))
    if classes > 5:
        odds[3, 5], odds[5, 3] = 6.0, 5.0
    np.fill_diagonal(odds, 0)
    own = np.clip(accuracy + 0.04 * rng.normal(size=classes), 0, 1)
    rates = (1 - own)[:, None] * odds / np.maximum(odds.sum(axis=1, keepdims=True), 1e-9)
    np.fill_diagonal(rates, own)
    confusion = np.stack([rng.multinomial(size, rate / rate.sum()) for rate in rates])
    right = float(np.trace(confusion) / confusion.sum())
    confidence = (np.arange(BINS) + 0.5) / BINS
    count = np.where(np.arange(BINS) < 2, 0, np.round(examples * confidence**6 / np.sum(confidence**6)))
    return {
        "loss": 0.31,
        "accuracy": right,
        "top5": max(0.99, right),
        "class_accuracy": (np.diag(confusion) / size).tolist(),
        "calibration_error": 0.034,
        "confusion": confusion.tolist(),
        "examples": int(confusion.sum()),
        "reliability": {
            "confidence": [c if n else None for c, n in zip(confidence.tolist(), count, strict=True)],
            "accuracy": [c**1.3 if n else None for c, n in zip(confidence.tolist(), count, strict=True)],
            "count": count.tolist(),
        },
    }


def make_run(
    folder: Path,
    *,
    steps: int = 6400,
    until: int | None = None,
    every: int = 100,
    evaluate_every: int = 700,
    look_every: int = 800,
    layers: int = 20,
    slope: float = 0.1,
    classes: int = 10,
    names: bool = True,
    per_epoch: int = 351,
    diverged: int | None = None,
    state: journal.State = "finished",
    error: str | None = None,
    evaluated: tuple[str, ...] = ("validation", "test"),
    notes: tuple[str, ...] = (),
) -> Path:
    """Writes the folder of a run and gives its path.

    Args:
      folder: to write.
      steps: of the run.
      until: the step at which it is; None for the end.
      every, evaluate_every, look_every: between records, evaluations, looks into the layers; 0 for none of these.
      layers: of the network.
      slope: decades by which the gradient's second moment falls with each layer toward the input.
      classes: of the data.
      names: whether they have names.
      per_epoch: steps of an epoch.
      diverged: the step behind which no loss is finite.
      state, error: of the status.
      evaluated: splits that evaluation.json has; none of them for no such file.
      notes: of the data.
    """
    until = steps if until is None else until
    folder.mkdir(parents=True, exist_ok=True)
    info = information(steps=steps, classes=classes, names=names, per_epoch=per_epoch, notes=list(notes))
    journal.write_info(folder, info)
    log = records(
        steps=steps,
        every=every,
        evaluate_every=evaluate_every or 10 * steps,
        classes=classes,
        per_epoch=per_epoch,
        diverged=diverged,
    )
    log = [record for record in log if record["step"] <= until]
    if not evaluate_every:
        log = [{k: v for k, v in record.items() if not k.startswith("validation")} for record in log]
    for record in log:
        journal.append(folder / journal.LOG, record)
    for look in looks(steps=steps, every=look_every, layers=layers, slope=slope) if look_every else []:
        if look["step"] <= until:
            journal.append(folder / journal.LAYERS, look)
    known = [record for record in log if "validation_accuracy" in record]
    best = max(known, key=lambda record: record["validation_accuracy"], default=None)
    journal.write_status(
        folder,
        state,
        until,
        sum(record["seconds"] for record in log),
        best_step=best and best["step"],
        best=best and best["validation_accuracy"],
        error=error,
    )
    if evaluated:
        sizes = {"validation": 5000, "test": 10_000}
        found = {
            name: judged(classes=classes, examples=size, accuracy=0.912) if name in evaluated else None
            for name, size in sizes.items()
        }
        journal.write_evaluation(folder, {"step": until, **found})
    return folder
