"""Where a prepared set is looked for, and what the errors say."""

import json
import re
from pathlib import Path

import pytest

from cnnjax.data.folders import data_root, find, inexact_notes, prepare_command


def make(root: Path, folder: str, file: str = "x-train.array_record-00000-of-00001") -> Path:
    (root / folder).mkdir(parents=True)
    (root / folder / "dataset_info.json").write_text("{}")
    (root / folder / file).write_text("")
    return root / folder


def test_the_newest_version_unless_one_is_named(tmp_path):
    make(tmp_path, "mnist/3.0.1")
    newest = make(tmp_path, "mnist/10.0.0")
    make(tmp_path, "mnist/incomplete.3XYZ_11.0.0")
    assert find("mnist", tmp_path) == newest
    assert find("mnist:3.0.1", tmp_path) == tmp_path / "mnist" / "3.0.1"


def test_a_configuration(tmp_path):
    folder = make(tmp_path, "imagenet_resized/8x8/0.1.0")
    assert find("imagenet_resized/8x8", tmp_path) == folder
    assert find("imagenet_resized/8x8:0.1.0", tmp_path) == folder


@pytest.mark.parametrize(
    "name, says",
    [
        (
            "cifar10",
            "no data set 'cifar10' in {root}: `TFDS_DATA_DIR={root} cnnjax data prepare cifar10` prepares it",
        ),
        ("minst", "no data set 'minst' in {root}. Did you mean 'mnist'? (If not: "),
        ("my_own_sett", "Did you mean 'my_own_set'?"),
        ("my_own_set:2.0.0", "no 'my_own_set:2.0.0' in {root}, which has version 1.0.0: name that, or none"),
        ("grouped", "'grouped' in {root} has configurations (large, small): write grouped/large, say"),
    ],
)
def test_a_missing_set_names_the_folder_and_the_command(tmp_path, name, says):
    for folder in ("my_own_set/1.0.0", "grouped/small/1.0.0", "grouped/large/1.0.0"):
        make(tmp_path, folder)
    with pytest.raises(FileNotFoundError, match=re.escape(says.format(root=tmp_path))):
        find(name, tmp_path)


def test_no_hint_where_no_name_is_close(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        find("zebrafish", tmp_path / "nowhere")
    assert "Did you mean" not in str(caught.value)


def test_another_format_than_array_record(tmp_path):
    folder = make(tmp_path, "mnist/3.0.1", "mnist-train.tfrecord-00000-of-00001")
    says = f"{folder} does not hold mnist in ArrayRecord.*move that folder away, then run `.*cnnjax data prepare mnist`"
    with pytest.raises(ValueError, match=says):
        find("mnist", tmp_path)


@pytest.mark.parametrize("name", ["", "../secret", "a/b/c", "mnist:new", "mnist/.."])
def test_a_malformed_name(tmp_path, name):
    with pytest.raises(ValueError, match="a data set is named NAME, NAME/CONFIG or NAME:1.2.3, got"):
        find(name, tmp_path)


def test_where_sets_are(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "/sets")
    assert data_root(None) == Path("/sets") and data_root("/other") == Path("/other")
    assert prepare_command("mnist", Path("/sets")) == "cnnjax data prepare mnist"
    assert prepare_command("mnist", Path("/other")) == "TFDS_DATA_DIR=/other cnnjax data prepare mnist"
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert data_root(None) == Path.home() / "tensorflow_datasets"


def test_notes_on_inexact_images(tmp_path):
    (tmp_path / "mnist_inexact.json").write_text(json.dumps({"inexact_train": [], "inexact_test": [4, 7]}))
    expected = ("2 of the 10 test images of this copy of mnist:3.0.1 are not bit-exact (mnist_inexact.json)",)
    assert inexact_notes("mnist:3.0.1", tmp_path, {"train": 50, "test": 10}) == expected
    assert inexact_notes("cifar10", tmp_path, {"train": 50, "test": 10}) == ()
