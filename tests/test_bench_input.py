"""The benchmark of the input at toy size: what its sides are, and that both sides of a row can be measured."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import PIL.Image
import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def bench_input(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setenv("TFDS_DATA_DIR", "prepared sets")
    yield importlib.import_module("bench_input")
    for name in ("bench_input", "benchmarking"):
        sys.modules.pop(name, None)


@pytest.fixture
def toy(bench_input):
    return bench_input.Scale(files=6, batch=2, batches=2, steps=2, sizes=(16,))


def test_images_are_like_those_of_imagenet(bench_input, tmp_path):
    bench_input.draw(tmp_path, 2)
    files = sorted(tmp_path.glob("train/*/*.jpg"))
    assert [file.parent.name for file in files] == ["a", "b"]
    # ILSVRC 2012: 1,281,167 training images in 138 GB.
    assert all(80_000 < file.stat().st_size < 140_000 for file in files)
    with PIL.Image.open(files[0]) as picture:
        assert picture.size == (500, 375)


def test_both_sides_give_a_rate(bench_input, toy, tmp_path):
    bench_input.draw(tmp_path, toy.files)
    assert bench_input.pipeline(str(tmp_path), 16, 0, toy)() > 0
    assert bench_input.step("keras_cifar_cnn", 32, toy)() > 0


def test_every_row_has_both_sides(bench_input, toy):
    made = {
        "pipeline": bench_input.pipelines("folder", toy),
        "step": bench_input.steps("resnet18", "folder", toy),
    }
    rates, rows = {"pipeline": 30.0, "step": 20.0}, []

    def ask(side, case):
        assert callable(made[side].pop(case) if side == "pipeline" else made[side][case])
        return SimpleNamespace(value=rates[side])

    bench = SimpleNamespace(wants=lambda row: True, ask=ask, add=rows.append)
    names = list(bench_input.sources("folder", toy))
    bench_input.measure(bench, model="resnet18", names=names, rounds=1)
    assert names == ["16x16", "cifar10"] and made["pipeline"] == {}
    assert [row.ratio for row in rows] == [1.5] * 6 and all(row.met for row in rows)
    assert rows[1].case == "images per second, 16x16, 1 workers, resnet18"
