"""Records of prepared sets, one by one."""

import io
import pickle

import numpy as np
import PIL.Image
import pytest

from cnnjax.data.records import read_records


def pixels(encoded):
    return np.asarray(PIL.Image.open(io.BytesIO(encoded.data)))


@pytest.fixture
def read(write_set, tmp_path):
    """Writes a set, and returns it with what was written."""

    def read(**options):
        written = write_set(**options)
        splits, num_classes = read_records("tiny", tmp_path / "sets" / "tiny" / "1.0.0")
        return splits, num_classes, written

    return read


def test_records_are_what_was_written(read):
    splits, num_classes, written = read(shape=(None, None, 3))
    assert num_classes == 3 and set(splits) == {"train", "test"}
    for split, (images, labels) in written.items():
        records = splits[split]
        assert len(records) == len(labels) and records.channels == 3
        np.testing.assert_array_equal(records.labels, labels)
        for index in (0, 8):
            np.testing.assert_array_equal(pixels(records[index]), images[index])
            assert records[index].label == labels[index]
    assert splits["train"].name(7) == "record 7 of train of tiny"


def test_records_that_show_several_classes(read):
    splits, num_classes, _ = read(labels=[[2], [], [0, 2]], splits={"train": 3, "test": 2})
    expected = [[False, False, True], [False, False, False], [True, False, True]]
    train = splits["train"]
    assert num_classes == 3 and train.labels.tolist() == expected and len(splits["test"]) == 2
    assert train[2].label.tolist() == expected[2] and train.blank.tolist() == [False] * 3
    assert pickle.loads(pickle.dumps(train.take(np.array([2]))))[0].label.tolist() == expected[2]


def test_some_records_also_in_another_process(read):
    splits, _, written = read()
    some = splits["train"].take(np.array([9, 2, 5])).take(np.array([2, 0]))
    _ = some[0]  # Opens the files, which cannot be taken along.
    there = pickle.loads(pickle.dumps(some))
    assert there.name(1) == "record 9 of train of tiny" and len(there) == 2
    np.testing.assert_array_equal(pixels(there[1]), written["train"][0][9])
    assert there.labels.tolist() == [5 % 3, 9 % 3]


def test_labels_are_read_once(read, cache_folder):
    splits, _, _ = read()
    labels = splits["train"].labels
    (file,) = cache_folder.glob("tiny-1.0.0-*-train-labels.npz")
    np.savez(file, labels=labels[::-1])
    np.testing.assert_array_equal(splits["train"].labels, labels[::-1])


def test_splits_are_those_of_load(read):
    splits, _, _ = read(splits={"train": 6, "validation": 5, "test": 4, "extra": 3})
    assert {split: len(part) for split, part in splits.items()} == {"train": 6, "test": 4}


def test_a_test_split_without_labels_is_none(read):
    splits, _, _ = read(splits={"validation": 6, "test": 6, "train": 6}, labels=np.full(6, -1))
    assert set(splits) == {"train", "validation"}
    with pytest.raises(ValueError, match="the train split of tiny has labels from -1 to -1, expected 0 to 2"):
        _ = splits["train"].labels


def test_a_damaged_file(read, tmp_path):
    splits, _, _ = read()
    file = tmp_path / "sets" / "tiny" / "1.0.0" / "tiny-train.array_record-00000-of-00001"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(
        ValueError, match="the train split of tiny in .*1.0.0 cannot be read .*: prepare it anew"
    ):
        _ = splits["train"].labels
