"""Images that may show several classes, through the step, over devices, and in a run from a folder to its page."""

import csv
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from cnnjax import data, models
from cnnjax.cli import main
from cnnjax.data import Dataset, Split
from cnnjax.optim import Optimizer
from cnnjax.training import Plan, journal, train
from cnnjax.training.augmentation import Augmentation
from cnnjax.training.checkpoints import Checkpoints
from cnnjax.training.label_tally import LabelTally
from cnnjax.training.loop import CHECKPOINTS
from cnnjax.training.parallel import jit_step, make_mesh, pmap_step, replicated
from cnnjax.training.step import Batch, Moments, Trainer

BATCH = 16


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def pairs(digits):
    """Two digits side by side, and which digits there are."""
    rng = np.random.default_rng(0)

    def paired(part, size):
        left, right = rng.integers(0, len(part), (2, size))
        there = np.zeros((size, 10), bool)
        for rows in (left, right):
            there[np.arange(size), part.labels[rows]] = True
        return Split(np.concatenate([part.images[left], part.images[right]], axis=2), there)

    return Dataset(
        name="pairs",
        train=paired(digits.train, 256),
        validation=paired(digits.validation, 40),
        test=paired(digits.test, 40),
        num_classes=10,
        image_shape=(8, 16, 1),
        mean=digits.mean,
        std=digits.std,
        class_names=tuple(f"digit {i}" for i in range(10)),
    )


def trainer(**options):
    chosen = dict(
        model=models.create("mlp", depth=2, width=32),
        optimizer=Optimizer(options={"momentum": 0.9}).make(0.01),
        loss="binary_cross_entropy",
        label_kind="multi",
    )
    return Trainer(num_classes=10, **{**chosen, **options})


def of(pairs):
    """A batch, the moments and a state before the first step."""
    batch = Batch(jnp.asarray(pairs.train.images[:BATCH]), jnp.asarray(pairs.train.labels[:BATCH]))
    state = trainer().initial(jax.random.key(0), jnp.zeros((2, *pairs.image_shape)))
    return batch, Moments(jnp.asarray(pairs.mean), jnp.asarray(pairs.std)), state


def test_the_step_is_that_of_the_definition(pairs):
    batch, moments, state = of(pairs)
    made = trainer(label_smoothing=0.2)
    images, labels, key = made.seen(jnp.int32(0), batch, jax.random.key(1), moments)
    # Of what is there 0.8 is left, and half of the rest goes to either side.
    np.testing.assert_allclose(labels, np.where(batch.labels, 0.9, 0.1), rtol=1e-6)
    _, metrics = made.update(state, images, labels, batch.labels, key)
    logits = np.asarray(made.model.apply(state.variables(), images, train=True), np.float64)
    probabilities = 1 / (1 + np.exp(-logits))
    expected = -(labels * np.log(probabilities) + (1 - labels) * np.log1p(-probabilities)).sum(axis=1).mean()
    assert float(metrics.loss) == pytest.approx(float(expected), rel=1e-5)
    assert float(metrics.accuracy) == pytest.approx(np.mean((logits > 0) == np.asarray(batch.labels)))


def test_mixed_images_have_the_labels_of_both(pairs):
    batch, moments, _ = of(pairs)
    made = trainer(augmentation=Augmentation(mixup=1.0))
    _, labels, _ = made.seen(jnp.int32(0), batch, jax.random.key(1), moments)
    there = np.asarray(batch.labels, float)
    assert (
        labels.sum() == pytest.approx(there.sum(), rel=1e-5) and 0 < np.asarray(labels)[labels > 0].min() < 1
    )


def test_an_evaluation_does_not_depend_on_the_loss_of_training(pairs):
    batch, moments, state = of(pairs)
    found = [
        trainer(loss=loss).evaluate(state.variables(), batch, moments)
        for loss in ("focal", "binary_cross_entropy")
    ]
    assert all(isinstance(each, LabelTally) for each in found)
    assert found[0].metrics()["loss"] == found[1].metrics()["loss"]


def test_over_devices_as_on_one(pairs):
    batch, moments, state = of(pairs)
    made, key = trainer(), jax.random.key(1)
    expected, metrics = jax.jit(made.step)(state, batch, key, moments)
    mesh = make_mesh()
    found = {
        "jit": jit_step(made, state, mesh)(jax.tree.map(jnp.copy, state), batch, key, moments),
        "pmap": pmap_step(made)(replicated(state), batch, key, moments),
    }
    for name, (new, other) in found.items():
        one = new if name == "jit" else jax.tree.map(lambda x: x[0], new)
        np.testing.assert_allclose(other.accuracy, metrics.accuracy, rtol=1e-6, err_msg=name)
        for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(expected.params), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5, err_msg=name)


def test_a_run_with_a_data_set_of_ones_own(pairs, tmp_path):
    plan = Plan(steps=60, batch_size=32, record_every=10, evaluate_every=20, checkpoint_every=20)
    train(trainer(), pairs, plan, tmp_path)
    records = [json.loads(line) for line in (tmp_path / journal.LOG).read_text().splitlines()]
    assert records[0]["step"] == 10 and "validation_loss" not in records[0]
    assert records[-1].keys() >= {"validation_accuracy", "validation_mean_average_precision"}
    assert "validation_top5" not in records[-1] and records[-1]["loss"] < records[0]["loss"]
    ranked = {record["step"]: record["validation_mean_average_precision"] for record in records[1::2]}
    status, best = journal.read_status(tmp_path), max(ranked, key=lambda step: ranked[step])
    assert (status.best_step, status.best) == (best, ranked[best])
    with Checkpoints(tmp_path / CHECKPOINTS) as checkpoints:
        assert checkpoints.best == best
    test = journal.read_evaluation(tmp_path)["test"]
    share = pairs.test.labels.mean()
    assert test["accuracy"] > 1 - share and test["mean_average_precision"] > 3 * share


def test_what_does_not_fit_is_said(pairs, digits, tmp_path):
    with pytest.raises(
        ValueError,
        match="'cross_entropy' is for images of one class each, .* take 'binary_cross_entropy' or 'focal'",
    ):
        trainer(loss="cross_entropy")
    with pytest.raises(ValueError, match="unknown kind of labels 'several'"):
        trainer(label_kind="several")
    batch, moments, state = of(pairs)
    with pytest.raises(
        ValueError, match=r"expected labels \(batch\) for label_kind='single' and 10 classes, got \(16, 10\)"
    ):
        trainer(label_kind="single").step(state, batch, jax.random.key(0), moments)
    with pytest.raises(
        ValueError, match=r"expected labels \(batch, 10\) for label_kind='multi' and 10 classes, got \(16,\)"
    ):
        trainer().evaluate(state.variables(), batch._replace(labels=jnp.zeros(BATCH, jnp.int32)), moments)
    with pytest.raises(ValueError, match="the trainer has label_kind 'multi' and digits has 'single'"):
        train(trainer(), digits, Plan(steps=1, batch_size=8), tmp_path / "run")


def write(root, part, split):
    folder = root / split
    folder.mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        sheet = csv.writer(file)
        sheet.writerow(["file", *(f"digit {i}" for i in range(10))])
        for number, (image, there) in enumerate(zip(part.images, part.labels, strict=True)):
            PIL.Image.fromarray(image[..., 0]).convert("RGB").resize((8, 8)).save(folder / f"{number}.png")
            sheet.writerow([f"{number}.png", *there.astype(int)])


def test_from_a_folder_to_the_page(pairs, tmp_path, capsys):
    root, out = tmp_path / "scenes", tmp_path / "run"
    for split in ("train", "validation", "test"):
        write(root, getattr(pairs, split), split)
    options = ["--data", str(root), "--image-size", "8", "--streaming.crop", "center", "--model", "mlp"]
    options += [
        "--options",
        "depth=2",
        "width=16",
        "--duration",
        "2 epochs",
        "--batch-size",
        "32",
        "--out",
        str(out),
    ]
    with jax.numpy_dtype_promotion("standard"):
        assert main(["train", *options]) == 2
        assert "take 'binary_cross_entropy' or 'focal'" in capsys.readouterr().err and not out.exists()
        assert main(["train", *options, "--loss", "binary_cross_entropy"]) == 0
        said, line = capsys.readouterr()
        assert "test: accuracy" in said and "mean average precision" in said
        assert re.search(r"step 16, .*validation [\d.]+%, loss [\d.]+, mean average precision [\d.]+%", line)
        page = (out / "report" / "index.html").read_text()
        assert "ranks the validation images of each class" in page and "Average precision by class" in page
        assert "Confusions" not in page and "Wilson 1927).</span>" not in page
        assert main(["evaluate", str(out)]) == 0
        assert "exact match" in (said := capsys.readouterr().out) and "  digit 9: " in said
        assert main(["predict", str(out), str(root / "test" / "0.png"), "--count", "10"]) == 0
        shares = [float(part.rsplit(" ", 1)[1].rstrip("%\n")) for part in capsys.readouterr().out.split(",")]
        # Each is by itself.
        assert len(shares) == 10 and abs(sum(shares) - 100) > 1
        assert main(["runs", str(tmp_path)]) == 0
