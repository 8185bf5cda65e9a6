import dataclasses
import math

import pytest

from cnnjax.files import locked
from cnnjax.report import run_answer
from cnnjax.training import journal

from ..made_up_run import make_run


@pytest.fixture
def run(tmp_path):
    """A run of few records, whose parts are replaced."""
    return journal.read_run(make_run(tmp_path / "a run", every=700, look_every=3200, layers=5))


def sentences(run, **changes):
    return run_answer.paragraph(dataclasses.replace(run, **changes))


def warnings(run, **changes):
    return run_answer.warnings(dataclasses.replace(run, **changes))


def test_the_answer_comes_first(run):
    log = run.log.assign(validation_accuracy=math.nan)
    log.loc[3, "validation_accuracy"], log.loc[8, "validation_accuracy"] = 0.914, 0.9123
    first = sentences(run, log=log)[0]
    assert first == (
        "cifar_resnet20 on cifar10 classifies 91.2 % of the validation images correctly after 6,300 steps or 17.9 epochs "
        "(best: 91.4 % at step 2,800)."
    )
    log.loc[8, "validation_accuracy"] = 0.92
    assert sentences(run, log=log)[0].endswith(
        "92.0 % of the validation images correctly after 6,300 steps or 17.9 epochs, its best."
    )


def test_without_validation_the_test_comes_first(run):
    log = run.log.assign(validation_accuracy=math.nan)
    assert sentences(run, log=log)[0] == (
        "cifar_resnet20 on cifar10 classifies 91.3 % of the test images correctly after 6,400 steps."
    )
    found = sentences(run, log=log, evaluation=None)
    assert found[0] == "cifar_resnet20 on cifar10 has been trained for 6,400 steps."
    assert not any("Test error" in text or "confidence" in text for text in found)


def test_labels_of_several_classes_are_judged_by_their_ranking(run):
    info = run.info | {"data": run.info["data"] | {"label_kind": "multi"}}
    log = run.log.assign(validation_mean_average_precision=math.nan)
    log.loc[3, "validation_mean_average_precision"], log.loc[8, "validation_mean_average_precision"] = (
        0.7,
        0.6,
    )
    test = {"mean_average_precision": 0.61, "accuracy": 0.95, "f1": None, "exact_match": 0.5, "examples": 200}
    first, second, *_ = sentences(
        run, info=info, log=log, evaluation={"step": 6400, "validation": None, "test": test}
    )
    assert first == (
        "cifar_resnet20 on cifar10 ranks the validation images of each class with an average precision of 60.0 % in the "
        "mean after 6,300 steps or 17.9 epochs (best: 70.0 % at step 2,800)."
    )
    assert second == (
        "On 200 test images: mean average precision 61.00%, accuracy 95.00%, F1 –, exact match 50.00%."
    )


def test_a_run_that_has_only_begun(run):
    nothing = {"log": run.log.head(0), "layers": run.layers.head(0), "status": None, "evaluation": None}
    assert sentences(run, **nothing) == ["cifar_resnet20 on cifar10 has not recorded a step yet."]
    info = run.info | {"recipe": {"model": "mlp", "options": {"depth": 8, "norm": None}}}
    assert sentences(run, **nothing, info=info)[0].startswith("mlp (depth=8, norm=None) on cifar10 has not")


def test_the_test_error_has_its_interval(run):
    test = dict(run.evaluation["test"], accuracy=0.912, examples=10_000, top5=0.997, calibration_error=0.0341)
    found = " ".join(sentences(run, evaluation={"step": 6400, "validation": None, "test": test}))
    # Wilson's interval for 880 of 10,000 by hand: (p + z²/2n ± z √(p(1 - p)/n + z²/4n²)) / (1 + z²/n), z = 1.96.
    assert (
        "Test error: 8.80 % of 10,000 images, 95 % interval 8.26 to 9.37 % (Wilson 1927); top-5 error 0.30 %."
        in found
    )
    assert "On the test split its confidence is off by 3.4 points on average." in found
    found = " ".join(sentences(run, evaluation={"step": 6000, "validation": None, "test": test}))
    assert "Test error at step 6,000: 8.80 %" in found
    info = run.info | {"data": run.info["data"] | {"num_classes": 5}}
    assert "top-5" not in " ".join(sentences(run, info=info))


@pytest.mark.parametrize(
    ("moments", "kind", "text"),
    [
        (
            (-3, -2, -1, 0, 9),
            "stable",
            "the first layer is 0.001 times that at the last hidden layer: stable",
        ),
        ((-6, -2, -1, -1, 9), "vanishing", "is 10⁻⁵ times that at the last hidden layer: vanishing"),
        ((-math.inf, -2, -1, 0, 9), "vanishing", "is exactly zero (underflow): vanishing"),
        ((math.nan, -2, -1, 0, 9), "not finite", "is not finite: not finite"),
    ],
)
def test_the_gradient_of_the_last_look(run, moments, kind, text):
    layers = run.layers.copy()
    last = layers["step"] == 6400
    layers.loc[last, "gradient_log10_second_moment"] = moments
    layers.loc[layers["step"] == 0, "gradient_log10_second_moment"] = (-1, 0, 0, 0, 5)
    layers.loc[last, "class"] = kind
    found = next(t for t in sentences(run, layers=layers) if "gradient" in t)
    assert found.startswith("At step 6,400 the mean squared gradient") and text in found
    assert found.endswith("; at step 0 it was 0.1 times (stable).")
    assert "; at step" not in next(t for t in sentences(run, layers=layers[last]) if "gradient" in t)


def test_time_and_training_loss(run):
    log = run.log.assign(loss=0.01234, accuracy=0.9987, images_per_second=7625.0)
    found = " ".join(sentences(run, log=log, status=dataclasses.replace(run.status, seconds=172.0)))
    assert "At step 6,300 its training loss is 0.0123 and its training accuracy 99.9 %." in found
    assert "Training took 2 min 52 s at 7,625 images a second (median)." in found


def test_a_finished_run_on_good_data_has_no_warning(run):
    assert warnings(run) == []


@pytest.mark.parametrize(
    ("state", "error", "text"),
    [
        (
            "stopped",
            None,
            "This run was stopped at step 700 of 6,400. It goes on from its last checkpoint with: ",
        ),
        (
            "running",
            None,
            "This run ended at step 700 of 6,400 without a word: its process is no more. It goes on ",
        ),
        ("failed", "out of memory.", "This run failed at step 700 of 6,400: out of memory."),
        ("failed", None, "This run failed at step 700 of 6,400: nothing is known of the error."),
    ],
)
def test_what_became_of_a_run(run, state, error, text):
    status = journal.Status(state=state, step=700, seconds=1.0, updated="", error=error)
    (found,) = warnings(run, status=status)
    assert found.startswith(text)
    if state != "failed":
        # A path with a space is quoted for the shell.
        assert found.endswith(f"cnnjax resume '{run.folder}'")


def test_a_run_at_work(run):
    status = journal.Status(state="running", step=700, seconds=1.0, updated="")
    with locked(run.folder):
        (found,) = warnings(run, status=status)
    assert found.startswith("This run is at work: step 700 of 6,400 is done.")


def test_what_to_beware_of(run):
    log = run.log.copy()
    log.loc[[2, 5], "loss"] = [math.nan, math.inf]
    log.loc[[2, 4], "skipped"] = [3, 1]
    info = run.info | {"data": run.info["data"] | {"notes": ["104 images are inexact."]}}
    assert warnings(run, log=log.assign(input_wait=0.4), info=info) == [
        "2 of 9 records have no finite loss, the first at step 2,100.",
        "4 steps were left out as not finite, the first before step 2,100.",
        "Training waited for its input 40 % of the time: a faster input pipeline would speed it up.",
        "104 images are inexact.",
    ]
    log = run.log.assign(skipped=0)
    log.loc[2, "skipped"] = 1
    assert warnings(run, log=log) == ["1 step was left out as not finite, the first before step 2,100."]


def test_a_log_without_losses_is_no_divergence(run):
    assert warnings(run, log=run.log.assign(loss=math.nan)) == []


def test_the_test_split_is_judged_rather_than_validation(run):
    assert run_answer.judged(run.evaluation)[0] == "test"
    assert run_answer.judged(run.evaluation | {"test": None})[0] == "validation"
    assert run_answer.judged(None) is None
    assert [split for split, _ in run_answer.numbers_of(run.evaluation)] == ["validation", "test"]
