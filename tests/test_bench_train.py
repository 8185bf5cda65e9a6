"""The benchmarks of training at toy size: both sides do the same work, and what is read out of a profile."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from cnnjax import models

SCRIPTS = Path(__file__).parents[1] / "scripts"
pytestmark = pytest.mark.usefixtures("importable_scripts")


@pytest.fixture
def train_flax():
    """Plain Flax, with JAX as one usually has it."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield importlib.import_module("train_flax")


def test_resnet20_in_plain_flax_has_the_parameters_of_the_paper(train_flax):
    made = jax.eval_shape(lambda: train_flax.start(32).params)
    assert sum(leaf.size for leaf in jax.tree.leaves(made)) == models.PARAMETERS["cifar_resnet20"]


def test_plain_flax_cuts_windows_and_mirrors_them(train_flax):
    images = jax.random.bits(jax.random.key(0), (24, 6, 6, 3), np.uint8)
    cut = np.asarray(train_flax.augment(images, jax.random.key(1)))
    whole = (np.asarray(images) / 255 - train_flax.MEAN) / train_flax.STD
    padded = np.pad(whole, ((0, 0), (4, 4), (4, 4), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (6, 6), axis=(1, 2)).transpose(
        0, 1, 2, 4, 5, 3
    )
    either = np.stack([windows, windows[..., ::-1, :]], axis=1)
    found = np.abs(either - cut[:, None, None, None]).max((-3, -2, -1)) < 1e-5
    image, mirrored, *corner = np.argwhere(found).T
    assert list(image) == list(range(24)) and set(mirrored) == {0, 1}
    assert len(set(zip(*corner, strict=True))) > 12


def as_in_plain_flax(params):
    """Parameters of our cifar_resnet20 by the names of the other."""

    def named(number, layer):
        return {f"Conv_{number}": layer["linear"], f"BatchNorm_{number}": layer["norm"]}

    blocks = []
    for stage in (1, 2, 3):
        blocks += [params[f"stage{stage}_down"]] if stage > 1 else []
        stack = params[f"stage{stage}"]["block"]
        blocks += [jax.tree.map(lambda leaf, i=i: leaf[i], stack) for i in range(3 if stage == 1 else 2)]
    named_blocks = {
        f"Block_{i}": named(0, block["layer1"]) | named(1, block["layer2"]) for i, block in enumerate(blocks)
    }
    return named(0, params["stem"]) | named_blocks | {"Dense_0": params["head"]["linear"]}


@pytest.mark.slow
def test_plain_flax_trains_the_same_network_in_the_same_way(train_flax, monkeypatch):
    bench_train = importlib.import_module("bench_train")
    made = bench_train.trainer("cifar_resnet20")
    step, ours, (batch, key, moments) = bench_train.placed(made, (8, 16, 16, 3))
    other = train_flax.start(16)
    other = other.replace(params=jax.tree.map(jax.numpy.copy, as_in_plain_flax(ours.params)))
    # What is drawn in a step is left out.
    monkeypatch.setattr(train_flax, "augment", lambda images, key: (images / 255 - 0.5) / 0.5)
    for _ in range(3):
        ours, metrics = step(ours, batch, key, moments)
        other, others = train_flax.train_step(other, batch.images, batch.labels, key)
        assert float(others["loss"]) == pytest.approx(float(metrics.loss), rel=1e-3)
        assert float(others["accuracy"]) == float(metrics.accuracy)


def test_ways_to_train_at_toy_size(monkeypatch):
    bench_train = importlib.import_module("bench_train")

    def small():
        return bench_train.trainer("mlp", width=8)

    monkeypatch.setattr(bench_train, "resnet", small)
    each, plain = (bench_train.calls(small, 3, (4, 8, 8, 1), plain=plain) for plain in (False, True))
    losses = [each() for _ in range(3)]
    assert losses == pytest.approx([plain() for _ in range(3)], rel=1e-5)
    assert losses[-1] < losses[0]
    run = bench_train.one_call(2, 4, 8, 12)
    assert np.isfinite([run(), run()]).all()


def test_memory_of_a_step_at_toy_size():
    bench_train = importlib.import_module("bench_train")
    deep = bench_train.Deep("plain", {"depth": 40}, (8, 8, 1))
    assert 0 < bench_train.memory(deep, 64, True)() < bench_train.memory(deep, 64, False)()


@pytest.fixture
def bench_scaling(monkeypatch):
    """With a small network in place of cifar_resnet20."""
    bench_scaling = importlib.import_module("bench_scaling")
    for name, value in {"MODEL": "mlp", "SIZE": 8, "BATCH": 8}.items():
        monkeypatch.setattr(bench_scaling, name, value)
    yield bench_scaling
    bench_scaling.step.cache_clear()


def test_devices_do_not_change_what_is_computed(bench_scaling):
    losses = [
        [run(), run()]
        for run in (bench_scaling.step("jit", 1), bench_scaling.step("jit", 4), bench_scaling.step("pmap", 2))
    ]
    np.testing.assert_allclose(losses[1:], losses[:1] * 2, rtol=1e-5)


@pytest.mark.parametrize("by", ["jit", pytest.param("pmap", marks=pytest.mark.slow)])
def test_collectives_are_found_in_a_profile(bench_scaling, by):
    assert bench_scaling.exchange(by, 2)() > 0


def test_of_each_collective_the_device_that_comes_last_counts(bench_scaling):
    events = [
        ("all-reduce.1", 0, 9),
        ("all-reduce.1", 5, 4),
        ("all-reduce.1", 21, 2),
        ("all-reduce.1", 20, 3),
    ]
    events += [("psum.3", 50, 1), ("psum.3", 30, 21), ("all-reduce-promotion", 0, 99), ("fusion.7", 0, 99)]
    assert bench_scaling.in_collectives(events, 2) == 4 + 2 + 1
    assert bench_scaling.in_collectives(events[-2:], 2) is None


def test_a_side_has_as_many_devices_as_its_name_says():
    code = "import bench_scaling, jax; bench_scaling.virtual_devices(3); print(jax.device_count())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(SCRIPTS)}, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3"]


def test_resnet20_in_torch_has_the_parameters_of_the_paper():
    pytest.importorskip("torch")
    train_torch = importlib.import_module("train_torch")
    count = sum(parameter.numel() for parameter in train_torch.resnet20().parameters())
    assert count == models.PARAMETERS["cifar_resnet20"]
