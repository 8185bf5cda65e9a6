"""Folders of images: what is found in them, in which order, and what is wrong with them."""

import pickle

import numpy as np
import PIL.Image
import pytest

from cnnjax.data.image_folder import read_folder

TRAIN = {"dog": 2, "ape": 1, "cat": 3}


def test_classes_and_images_come_in_the_order_of_their_names(write_folder):
    root = write_folder({"train": TRAIN, "val": {"cat": 1}, "test": {"ape": 2}})
    splits, classes, notes = read_folder(root)
    assert classes == ("ape", "cat", "dog") and notes == () and set(splits) == {"train", "validation", "test"}
    train = splits["train"]
    assert train.labels.tolist() == [0, 1, 1, 1, 2, 2] and train.labels.dtype == np.int32 and len(train) == 6
    assert train.name(3) == "train/cat/02.png" and splits["validation"].labels.tolist() == [1]
    assert train[4] == ((root / "train" / "dog" / "00.png").read_bytes(), 2)
    some = train.take(np.array([5, 0]))
    assert [some.name(0), some.name(1)] == [
        "train/dog/01.png",
        "train/ape/00.png",
    ] and some.labels.tolist() == [2, 0]


def test_only_images_count_at_any_depth_and_none_that_is_hidden(write_folder):
    root = write_folder({"train": TRAIN})
    deep = root / "train" / "ape" / "images" / "more"
    deep.mkdir(parents=True)
    PIL.Image.new("RGB", (2, 2)).save(deep / "1.JPEG")
    (deep / "._1.jpg").write_bytes(b"")
    (deep / "boxes.txt").write_text("")
    (root / "train" / ".thumbnails").mkdir()
    train = read_folder(root)[0]["train"]
    assert [train.name(i) for i in range(2)] == ["train/ape/00.png", "train/ape/images/more/1.JPEG"]
    assert len(train) == 7


def test_names_may_hold_any_letters_and_travel_to_another_process(write_folder):
    train = read_folder(write_folder({"train": {"Gürteltier": 1, "蟻": 1}}))[0]["train"]
    there = pickle.loads(pickle.dumps(train))
    assert there.name(0) == "train/Gürteltier/00.png" and there[1].label == 1


def test_a_test_folder_without_classes_is_left_out(write_folder):
    root = write_folder({"train": TRAIN})
    (root / "test").mkdir()
    PIL.Image.new("RGB", (2, 2)).save(root / "test" / "1.jpg")
    splits, _, notes = read_folder(root)
    assert set(splits) == {"train"}
    assert notes == ("the test folder of pictures has no folder for each class: it is left out",)


@pytest.mark.parametrize(
    "splits, says",
    [
        (
            {"training": TRAIN},
            r"expected images as .*/train/CLASS/IMAGE, or with a labels.csv in .*/train, but .*pictures holds training",
        ),
        ({"train": {"ape": 2}}, "expected a folder for each of 2 or more classes in .*train, got ape"),
        ({"train": TRAIN | {"emu": 0, "fox": 0}}, r"train has no image \(.bmp, .gif, .* in emu, fox"),
        ({"train": TRAIN, "val": {"cat": 1, "cow": 1}}, "val has folders that are no class of train: cow"),
        ({"train": TRAIN, "val": {"cat": 0}}, "val holds no images .* in the folders of its classes"),
        (
            {"train": TRAIN, "val": TRAIN, "validation": TRAIN},
            "has both validation and val: keep the one for validation",
        ),
    ],
)
def test_layouts_that_cannot_be_used(write_folder, splits, says):
    with pytest.raises(ValueError, match=says):
        read_folder(write_folder(splits))


def test_no_folder(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="no folder .*absent: name a folder that holds train/CLASS/IMAGE"
    ):
        read_folder(tmp_path / "absent")
