"""Sets in ArrayRecord: decoded exactly, without TensorFlow, and refused with a reason."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from cnnjax.data import load
from cnnjax.data.tfds import read
from cnnjax.study import Study, run


@pytest.mark.parametrize("shape", [(4, 5, 1), (4, 5, 3), (4, 5, 4)])
def test_decoded_arrays_are_those_that_were_encoded(write_set, tmp_path, shape):
    written = write_set(shape=shape)
    arrays = read("tiny", tmp_path / "sets")
    assert int(arrays["num_classes"]) == 3
    for split, (images, labels) in written.items():
        assert arrays[f"{split}_images"].dtype == np.uint8 and arrays[f"{split}_labels"].dtype == np.int32
        np.testing.assert_array_equal(arrays[f"{split}_images"], images)
        np.testing.assert_array_equal(arrays[f"{split}_labels"], labels)


SEVERAL = [[2], [], [0, 2], [1, 0], [1, 1, 2]]
SHOWN = np.array([[0, 0, 1], [0, 0, 0], [1, 0, 1], [1, 1, 0], [0, 1, 1]], bool)


def test_images_may_show_several_classes(write_set, tmp_path):
    write_set(labels=SEVERAL, splits={"train": 5, "test": 3})
    arrays = read("tiny", tmp_path / "sets")
    np.testing.assert_array_equal(arrays["train_labels"], SHOWN)
    np.testing.assert_array_equal(arrays["test_labels"], SHOWN[:3])
    assert arrays["train_labels"].dtype == bool and int(arrays["num_classes"]) == 3
    found = load("tiny", data_dir=tmp_path / "sets", validation=0.4)
    assert found.label_kind == "multi" and len(found.train) == 3 and len(found.validation) == 2
    with pytest.raises(
        ValueError, match="a study needs images of one class each, and those of tiny may show"
    ):
        study = Study(name="s", question="?", grid={"depth": [2]}, data="tiny")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TFDS_DATA_DIR", str(tmp_path / "sets"))
            run(study, tmp_path / "study", quiet=True)


def test_a_set_that_was_prepared_anew_is_decoded_anew(write_set, tmp_path):
    write_set()
    before = read("tiny", tmp_path / "sets")
    (tmp_path / "sets" / "tiny").rename(tmp_path / "old")
    write_set(splits={"train": 12, "test": 6})
    assert len(before["train_labels"]) == 30 and len(read("tiny", tmp_path / "sets")["train_labels"]) == 12


TEXT = {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}


@pytest.mark.parametrize(
    "options, says",
    [
        (
            {"features": {"text": TEXT}},
            r"tiny is no set of images with class labels; its features are text \(Text\)",
        ),
        (
            {"shape": (None, None, 3)},
            r"images of shape \(None, None, 3\), expected images of one fixed shape: read them with open_stream",
        ),
        ({"splits": {"extra": 4, "test": 4}}, "tiny has no split 'train'; its splits are extra, test"),
        ({"labels": [[0], [1, 3]] * 15}, r"cannot be read \(the label 3 is none of 0 to 2\)"),
        ({"labels": np.full(30, -1)}, "the train split of tiny has labels from -1 to -1, expected 0 to 2"),
    ],
)
def test_sets_that_cannot_be_used(write_set, tmp_path, options, says):
    write_set(**options)
    with pytest.raises(ValueError, match=says):
        read("tiny", tmp_path / "sets")


def test_a_damaged_file(write_set, tmp_path):
    write_set()
    file = tmp_path / "sets" / "tiny" / "1.0.0" / "tiny-test.array_record-00000-of-00001"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(
        ValueError, match="the test split of tiny in .*1.0.0 cannot be read .*: prepare it anew"
    ):
        read("tiny", tmp_path / "sets")


LOAD = """
import json, sys, cnnjax.data
name, folder = sys.argv[1:]
cnnjax.data.load(name, data_dir=folder)
print(json.dumps([module for module in ("tensorflow", "torch") if module in sys.modules]))
"""


def test_no_tensorflow_and_no_torch_is_imported_even_where_they_are_installed(write_set, tmp_path):
    write_set()
    for package in ("tensorflow", "torch"):
        (tmp_path / "stubs" / package).mkdir(parents=True)
        (tmp_path / "stubs" / package / "__init__.py").write_text("")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "stubs")}
    command = [sys.executable, "-W", "error", "-c", LOAD, "tiny", str(tmp_path / "sets")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [] and done.stderr == ""


@pytest.mark.usefixtures("kept_cache")
def test_mnist(tfds_dir):
    arrays = read("mnist", tfds_dir)
    assert arrays["train_images"].shape == (60_000, 28, 28, 1)
    # Digits in the official test file, t10k-labels-idx1-ubyte.
    expected = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    np.testing.assert_array_equal(np.bincount(arrays["test_labels"]), expected)


@pytest.mark.usefixtures("kept_cache")
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_pixels_are_those_that_tfds_decodes(tfds_dir, name):
    import tensorflow_datasets as tfds

    arrays = read(name, tfds_dir)
    source = tfds.data_source(name, split="test", data_dir=tfds_dir)
    for index in (0, 1, 1369, 9999):
        np.testing.assert_array_equal(arrays["test_images"][index], source[index]["image"])
        assert arrays["test_labels"][index] == source[index]["label"]
