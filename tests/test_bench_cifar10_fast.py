"""The benchmark of CIFAR-10 in seconds at toy size: its one program is the same run as steps taken one by one."""

import dataclasses
import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models
from cnnjax.data import Split, batch_indices, normalize
from cnnjax.data.augment import alternating
from cnnjax.training import Augmentation, Batch, Moments, Optimizer, Trainer
from cnnjax.training.feed import Keys
from cnnjax.training.recipe import Recipe

SCRIPTS = Path(__file__).parents[1] / "scripts"
MOMENTS = Moments(jnp.array([0.4]), jnp.array([0.2]))
STEPS, BATCH = 5, 8


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module("bench_cifar10_fast")
    sys.modules.pop("bench_cifar10_fast", None)


def split(size, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (size, 8, 8, 1), np.uint8)
    return Split(jnp.asarray(images), jnp.asarray(rng.integers(0, 4, size), jnp.int32))


def trainer():
    return Trainer(
        model=models.create("plain", depth=3, width=4, num_classes=4),
        optimizer=Optimizer(options={"momentum": 0.9}).make(0.05),
        num_classes=4,
        label_smoothing=0.2,
        augmentation=Augmentation(crop=1, crop_mode="reflect", flip="alternating"),
    )


def test_the_program_is_the_run_that_steps_make(bench, monkeypatch):
    # Two batches an epoch; the test set in pieces of 4, of which the last has two examples.
    monkeypatch.setattr(bench, "EVALUATED", 4)
    train, test, chosen = split(20, 0), split(10, 1), trainer()
    run = jax.jit(bench.program(chosen, MOMENTS, steps=STEPS, batch_size=BATCH))
    accuracy, losses = run(jnp.uint32(3), train, test)

    keys = Keys(*jax.random.split(jax.random.key(3), 4))
    rows = batch_indices(keys.order, 0, steps=STEPS, size=20, batch_size=BATCH)
    state = jax.jit(chosen.initial)(keys.initial, normalize(train.images, *MOMENTS))
    step, expected = jax.jit(chosen.step), []
    for number, row in enumerate(rows):
        mirrored = alternating(keys.mirror, row, number // 2)
        state, metrics = step(
            state, Batch(train.images[row], train.labels[row], mirrored), keys.step, MOMENTS
        )
        expected.append(metrics.loss)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    logits = jax.jit(chosen.model.apply)(state.variables(), normalize(test.images, *MOMENTS))
    assert float(accuracy) == pytest.approx(float(jnp.mean(logits.argmax(-1) == test.labels)))


def test_options_change_the_preset(bench, monkeypatch):
    preset = Recipe(model="airbench94", batch_size=2000, duration="8 epochs")
    monkeypatch.setattr(bench, "PRESETS", {"cifar10-fast": preset})
    asked = []
    monkeypatch.setattr(bench, "report", lambda recipe, seeds: asked.append((recipe, seeds)))
    bench.main([])
    bench.main(
        "--seeds 2 --epochs 1.5 --batch-size 500 --subset 900 --width 8 --precision bfloat16 --data digits32".split()
    )
    assert asked[0] == (dataclasses.replace(preset, data="cifar10"), 20)
    recipe, seeds = asked[1]
    assert seeds == 2 and recipe.data == "digits32" and recipe.subset == 900 and recipe.batch_size == 500
    assert recipe.duration == "1.5 epochs" and recipe.precision == "bfloat16"
    assert recipe.options == {"widths": (8, 32, 32)}


def test_the_summary_says_how_sure_it_is(bench, monkeypatch, capsys):
    results = iter([(9.0, 0.1, 2.0), (2.0, 0.93, 1.0), (3.0, 0.95, 0.9)])
    monkeypatch.setattr(bench, "compiled", lambda recipe, dataset: (None, 10))
    monkeypatch.setattr(bench, "timed", lambda run, seed, dataset: next(results))
    bench.report(Recipe(data="digits", batch_size=50), 2)
    text = capsys.readouterr().out
    assert "first run 9.000 s (not counted): test accuracy 10.00%" in text
    assert "seed 1: 3.000 s, test accuracy 95.00%, last loss 0.900" in text
    # Student's t of two values one to either side: 12.7 times their distance from the mean.
    assert "test accuracy in %: mean 94 [81, 107] (n = 2), standard deviation 1.41 (95 % interval)" in text
    assert "200 training images a second" in text and "2.59 s" in text and "1.99 s" in text
