"""The one step that needs TensorFlow, with stand-ins for it."""

import sys
from types import SimpleNamespace

import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.registered import DatasetNotFoundError

from cnnjax.data import load, prepare


@pytest.fixture
def tensorflow_is_there(monkeypatch):
    # A stand-in module in sys.modules would be seen by TFDS, too.
    importlib = SimpleNamespace(import_module=lambda name: None)
    monkeypatch.setattr(sys.modules["cnnjax.data.prepare"], "importlib", importlib)


def test_without_tensorflow(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(
        ImportError, match=r"mnist needs TensorFlow.*pip install 'cnnjax\[prepare\]'.*this step only"
    ):
        prepare("mnist", data_dir=tmp_path)


def test_a_typo_is_seen_before_tensorflow_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match="Did you mean 'mnist'?"):
        prepare("mnst", data_dir=tmp_path)


def test_digits_need_none():
    with pytest.raises(ValueError, match="digits is part of scikit-learn: it needs no preparation"):
        prepare("digits")


def test_a_prepared_set_needs_none(monkeypatch, write_set, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    write_set()
    said = []
    folder = prepare("tiny", data_dir=tmp_path / "sets", say=said.append)
    assert folder == tmp_path / "sets" / "tiny" / "1.0.0"
    assert said == [f"tiny is ready in {folder}"]


@pytest.mark.usefixtures("tensorflow_is_there")
def test_what_was_prepared_loads(monkeypatch, write_set, tmp_path):
    def builder(name, *, data_dir, file_format):
        assert (name, data_dir, file_format) == ("tiny", tmp_path / "sets", "array_record")
        return SimpleNamespace(download_and_prepare=write_set, data_dir=str(data_dir / "tiny" / "1.0.0"))

    monkeypatch.setattr(tfds, "builder", builder)
    said = []
    folder = prepare("tiny", data_dir=tmp_path / "sets", say=said.append)
    assert "only this step needs TensorFlow" in said[0] and str(folder) in said[1]
    assert len(load("tiny", data_dir=tmp_path / "sets").test) == 9


@pytest.mark.usefixtures("tensorflow_is_there")
def test_an_unknown_name(monkeypatch, tmp_path):
    def builder(name, **options):
        raise DatasetNotFoundError(name)

    monkeypatch.setattr(tfds, "builder", builder)
    with pytest.raises(ValueError, match="TFDS knows no data set 'cifar1000'. Did you mean 'cifar100'?"):
        prepare("cifar1000", data_dir=tmp_path)
