"""The experiment `experiments/transfer.py` at toy size."""

import importlib.util
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from cnnjax import data

FILE = Path(__file__).parents[1] / "experiments" / "transfer.py"
TOY = ["--quick", "--model", "mlp", "--depth", "3", "--width", "2", "--steps", "2", "--source-steps", "2"]


@pytest.fixture(scope="module", autouse=True)
def promotion():
    """Optax promotes types."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def transfer():
    spec = importlib.util.spec_from_file_location("transfer", FILE)
    module = sys.modules["transfer"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(transfer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer")
    assert transfer.main([*TOY, "--out", str(folder)]) == 0
    return folder


def test_every_method_is_measured(transfer, folder):
    table = pd.read_parquet(folder / "transfer.parquet")
    counts = table.groupby("method")["test_accuracy"].count()
    assert counts.to_dict() == dict.fromkeys(transfer.METHODS, 2 * 2)
    # An accuracy is a share of the test images of the classes 5 to 9.
    right = table["test_accuracy"] * np.sum(data.load("digits").test.labels >= 5)
    assert (right - right.round()).abs().max() < 1e-3
    assert (folder / "transfer.png").stat().st_size > 10_000 and (folder / "transfer.svg").exists()


def test_a_killed_run_goes_on_where_it_was(transfer, folder, capsys, monkeypatch):
    before = pd.read_parquet(folder / "transfer.parquet")
    (folder / "seeds" / "seed_001.parquet").unlink()
    one_seed, computed = transfer.one_seed, []

    def counted(options, source, target, seed, say):
        computed.append(seed)
        return one_seed(options, source, target, seed, say)

    monkeypatch.setattr(transfer, "one_seed", counted)
    assert transfer.main([*TOY, "--out", str(folder)]) == 0
    assert computed == [1]
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "transfer.parquet"), before, check_exact=True)
    assert "Test accuracy in %, 2 seeds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--width", "3"], "is of a run with width = 2, not 3: choose another folder with --out"),
        (["--seeds", "0"], "seeds must be 1 or more, got 0"),
        (["--shots", "3", "0"], "shots must be 1 or more, got 0"),
    ],
)
def test_errors(transfer, folder, capsys, options, text):
    assert transfer.main([*TOY, "--out", str(folder), *options]) == 2
    assert text in capsys.readouterr().err


def test_support_holds_as_many_of_each_class(transfer):
    labels = np.random.default_rng(0).integers(0, 5, 200)
    rows = transfer.support(labels, 7, seed=3)
    for shots in (1, 3, 7):
        np.testing.assert_array_equal(np.bincount(labels[rows[: 5 * shots]]), shots)
    assert len(set(rows)) == 35
    with pytest.raises(ValueError, match="--shots cannot be 100"):
        transfer.support(labels, 100, seed=3)


def rows(method, rate, validation, test):
    """Of two seeds."""
    columns = dict(validation_accuracy=validation, test_accuracy=test, seed=[0, 1])
    return pd.DataFrame(columns).assign(method=method, shots=1, learning_rate=rate)


def test_the_learning_rate_is_chosen_on_the_validation_split(transfer):
    table = pd.concat(
        [
            rows("from scratch", 0.1, [0.9, 0.1], [0.9, 0.9]),
            rows("from scratch", 0.01, [0.6, 0.6], [0.2, 0.3]),
            rows("linear probe", np.nan, [np.nan] * 2, [0.4, 0.6]),
        ]
    )
    chosen = transfer.selected(table)
    assert chosen["test_accuracy"].tolist() == [0.2, 0.3, 0.4, 0.6]
    np.testing.assert_allclose(transfer.gains(chosen)["gain"], [0.2, 0.3])


def test_halves_part_the_classes(transfer):
    dataset = data.load("digits")
    first, second = transfer.halves(transfer.QUICK)
    for split, one, two in zip(
        (dataset.train, dataset.validation, dataset.test), first, second, strict=False
    ):
        sizes = np.bincount(split.labels)
        np.testing.assert_array_equal(np.bincount(one.labels), sizes[:5])
        np.testing.assert_array_equal(np.bincount(two.labels), sizes[5:])
        assert one.images.shape == (len(one.labels), 8, 8, 1)
    assert first.model.num_classes == second.model.num_classes == 5


def test_says_what_it_asks_and_costs():
    for heading in ("Papers:", "Command:", "Cost:", "Expected:", "Found:"):
        assert heading in FILE.read_text()
