"""What the page of a training run says first: what the network reached, how its gradient fares, and what to beware of."""

import math
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cnnjax.frame import Column, Frame, Info
from cnnjax.report import sheet
from cnnjax.report.run_classes import wilson
from cnnjax.report.run_figures import best
from cnnjax.report.run_layers import gradient_ratios
from cnnjax.report.run_metrics import SHARES, percent
from cnnjax.report.scale import number
from cnnjax.training.journal import HEADLINE, RunRecord, state

__all__ = ["paragraph", "warnings"]

REACHED = {
    "single": "classifies {} of the {} images correctly",
    "multi": "ranks the {1} images of each class with an average precision of {0} in the mean",
}
OF_LABELS = ("mean_average_precision", "accuracy", "f1", "exact_match")
# The share of the time that may be spent waiting for input without a word about it.
WAIT = 0.2


def paragraph(run: RunRecord) -> list[str]:
    """The sentences of the answer."""
    sentences = [_reached(run), _test(run), _calibration(run), _training(run), _gradient(run), _time(run)]
    return [sentence for sentence in sentences if sentence]


def warnings(run: RunRecord) -> list[str]:
    """What a reader should know before all else, a sentence or two each."""
    found = [_state(run), _broken(run.log), _skipped(run), _waiting(run.log)]
    return [text for text in found if text] + [str(note) for note in run.info["data"].get("notes") or ()]


def _percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f} %"


def _last(log: Frame, column: str) -> Column | None:
    """The last record with a finite number in a column."""
    known = log[np.isfinite(log[column].to_numpy(float))]
    return known.iloc[-1] if len(known) else None


def _step(run: RunRecord) -> int:
    return run.status.step if run.status else int(run.log["step"].max()) if len(run.log) else 0


def _who(info: Info) -> str:
    """The model with its options, and the data."""
    recipe = info["recipe"]
    options = ", ".join(f"{name}={value}" for name, value in (recipe.get("options") or {}).items())
    return (
        f"{recipe.get('model', info['name'])}{f' ({options})' if options else ''} on {info['data']['name']}"
    )


def _is_multi(run: RunRecord) -> bool:
    """Whether images may show several classes."""
    return run.info["data"]["label_kind"] == "multi"


def _reached(run: RunRecord) -> str:
    """What it reached by the measure that counts, at last and at best."""
    kind, who = run.info["data"]["label_kind"], _who(run.info)
    reached, column = REACHED[kind], f"validation_{HEADLINE[kind]}"
    last, found = _last(run.log, column), best(run.info, run.log)
    if last is None or found is None:
        steps, share = _step(run), ((run.evaluation or {}).get("test") or {}).get(HEADLINE[kind])
        if share is not None:
            return f"{who} {reached.format(_percent(share), 'test')} after {steps:,} steps."
        return (
            f"{who} has been trained for {steps:,} steps." if steps else f"{who} has not recorded a step yet."
        )
    step, value = found
    text = f"{who} {reached.format(_percent(last[column]), 'validation')} after {int(last['step']):,} steps"
    text += f" or {last['epoch']:.3g} epochs" if last["epoch"] > 0 else ""
    return (
        f"{text}, its best."
        if step == last["step"]
        else f"{text} (best: {_percent(value)} at step {step:,})."
    )


def _test(run: RunRecord) -> str:
    """The test error with its interval; of images that may show several classes what their classes are ranked by."""
    found = (run.evaluation or {}).get("test")
    if not found:
        return ""
    if _is_multi(run):
        numbers = ", ".join(f"{SHARES[key]} {percent(found[key])}" for key in OF_LABELS)
        return f"On {found['examples']:,} test images: {numbers}."
    examples, error = found["examples"], 1 - found["accuracy"]
    low, high = wilson(error * examples, examples)
    top5 = f"; top-5 error {_percent(1 - found['top5'], 2)}" if run.info["data"]["num_classes"] > 5 else ""
    at = (run.evaluation or {}).get("step")
    where = f" at step {at:,}" if at not in (None, _step(run)) else ""
    return (
        f"Test error{where}: {_percent(error, 2)} of {examples:,} images, 95 % interval {100 * low:.2f} to "
        f"{_percent(high, 2)} (Wilson 1927){top5}."
    )


def judged(evaluation: Mapping[str, Any] | None) -> tuple[str, Mapping[str, Any]] | None:
    """The split that the figures of classes show, test rather than validation, and its numbers."""
    for split in ("test", "validation"):
        if evaluation and evaluation.get(split):
            return split, evaluation[split]
    return None


def _calibration(run: RunRecord) -> str:
    found = judged(run.evaluation)
    if found is None or found[1].get("calibration_error") is None:
        return ""
    split, numbers = found
    sure = "probabilities are" if _is_multi(run) else "confidence is"
    return (
        f"On the {split} split its {sure} off by {100 * numbers['calibration_error']:.1f} points on average."
    )


def _training(run: RunRecord) -> str:
    """Training loss and accuracy."""
    last = _last(run.log, "loss")
    if last is None:
        return ""
    accuracy = last["accuracy"]
    words = f" and its training accuracy {_percent(accuracy)}" if math.isfinite(accuracy) else ""
    return f"At step {int(last['step']):,} its training loss is {last['loss']:.3g}{words}."


def _size(look: Column, than: str = "") -> str:
    if look["ratio_log10"] == -math.inf:
        return "exactly zero (underflow)"
    return (
        f"{number(look['ratio_log10'])} times{than}" if math.isfinite(look["ratio_log10"]) else "not finite"
    )


def _gradient(run: RunRecord) -> str:
    """How much gradient reaches the first layer, now and at first."""
    if run.layers.empty:
        return ""
    looks = gradient_ratios(run.layers)
    last, first = looks.iloc[-1], looks.iloc[0]
    before = f"; at step {first['step']:,} it was {_size(first)} ({first['class']})" if len(looks) > 1 else ""
    size = _size(last, " that at the last hidden layer")
    return f"At step {last['step']:,} the mean squared gradient at the first layer is {size}: {last['class']}{before}."


def _time(run: RunRecord) -> str:
    seconds = run.status.seconds if run.status else float(run.log["seconds"].sum())
    if not seconds:
        return ""
    speed = run.log["images_per_second"].median()
    how = f" at {speed:,.0f} images a second (median)" if math.isfinite(speed) else ""
    return f"Training took {sheet.duration(seconds)}{how}."


def _state(run: RunRecord) -> str:
    """What became of the run, where it is not finished."""
    said, steps = state(run.folder, run.status), run.info.get("steps")
    where = f"step {_step(run):,}" + (f" of {steps:,}" if steps else "")
    go_on = f"It goes on from its last checkpoint with: cnnjax resume {shlex.quote(str(run.folder))}"
    if said == "running":
        return f"This run is at work: {where} is done. Everything below speaks of what is there so far, and can change."
    if said == "killed":
        return f"This run ended at {where} without a word: its process is no more. {go_on}"
    if said == "stopped":
        return f"This run was stopped at {where}. {go_on}"
    if said == "failed":
        error = run.status.error if run.status and run.status.error else "nothing is known of the error"
        return f"This run failed at {where}: {error.rstrip('.')}."
    return ""


def _broken(log: Frame) -> str:
    bad = log[~np.isfinite(log["loss"].to_numpy(float))]
    if bad.empty or len(bad) == len(log) and log["loss"].isna().all() and not log["skipped"].any():
        return ""
    return f"{len(bad):,} of {len(log):,} records have no finite loss, the first at step {int(bad['step'].iloc[0]):,}."


def _skipped(run: RunRecord) -> str:
    skipped = run.log[run.log["skipped"] > 0]
    if skipped.empty:
        return ""
    count = int(skipped["skipped"].sum())
    what = "1 step was" if count == 1 else f"{count:,} steps were"
    return f"{what} left out as not finite, the first before step {int(skipped['step'].iloc[0]):,}."


def _waiting(log: Frame) -> str:
    known = log[log["input_wait"].notna() & log["seconds"].notna()]
    total = known["seconds"].sum()
    share = (known["input_wait"] * known["seconds"]).sum() / total if total else 0.0
    if not share > WAIT:
        return ""
    return f"Training waited for its input {100 * share:.0f} % of the time: a faster input pipeline would speed it up."


def numbers_of(evaluation: Mapping[str, Any] | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The splits of an evaluation that there are."""
    for split in ("validation", "test"):
        if evaluation and evaluation.get(split):
            yield split, evaluation[split]
