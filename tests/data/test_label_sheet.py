"""Folders of images that may show several classes: what their sheets say, and what is wrong with them."""

import numpy as np
import PIL.Image
import pytest

from cnnjax.data import batches, open_stream
from cnnjax.data.image_folder import read_folder
from cnnjax.data.label_sheet import read_sheet

TRAIN = ["file,cat,dog,ape", "0.png,1,0,1", "deep/1.png,0,0,0", "2.png, 0 ,1,0", "3.png,1,1,0"]


@pytest.fixture
def write(tmp_path, rng):
    """Writes sheets by split, and an image for every row that has a name with a point."""

    def written(**sheets):
        for split, lines in sheets.items():
            folder = tmp_path / "scenes" / split
            folder.mkdir(parents=True)
            (folder / "labels.csv").write_text("\n".join(lines) + "\n")
            for file in {line.split(",")[0] for line in lines[1:]}:
                (folder / file).parent.mkdir(exist_ok=True)
                PIL.Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / file)
        return tmp_path / "scenes"

    return written


def test_images_and_classes_come_in_the_order_of_the_sheet(write):
    root = write(train=TRAIN, val=["file,cat,dog,ape", "9.png,0,1,1"])
    splits, classes, notes = read_folder(root)
    assert classes == ("cat", "dog", "ape") and notes == () and set(splits) == {"train", "validation"}
    train = splits["train"]
    expected = [[True, False, True], [False, False, False], [False, True, False], [True, True, False]]
    assert train.labels.tolist() == expected and train.labels.dtype == bool
    assert [train.name(i) for i in range(2)] == ["train/0.png", "train/deep/1.png"]
    data, label = train[3]
    assert data == (root / "train" / "3.png").read_bytes() and label.tolist() == [True, True, False]
    assert train.take(np.array([3, 0])).labels.tolist() == [expected[3], expected[0]]


def test_what_is_left_out_is_said(write):
    root = write(train=TRAIN)
    PIL.Image.new("RGB", (2, 2)).save(root / "train" / "extra.png")
    (root / "test").mkdir()
    splits, _, notes = read_folder(root)
    assert len(splits["train"]) == 4 and set(splits) == {"train"}
    assert notes == (
        "the test folder of scenes has no labels.csv: it is left out",
        "1 images below train of scenes are not in its labels.csv: they are left out",
    )


def test_batches_have_a_row_of_labels_for_each_image_and_none_where_they_are_filled_up(write):
    rows = [f"{i}.png,{i % 2},{i // 2 % 2}" for i in range(10)]
    found = open_stream(write(train=["file,odd,pair", *rows]), image_size=8, validation=0.25)
    assert found.label_kind == "multi" and found.num_classes == 2 and found.class_names == ("odd", "pair")
    assert [len(part) for part in (found.train, found.validation, found.test)] == [6, 2, 2]
    everywhere = [found.train, found.validation, found.test]
    assert sorted(part.name(i) for part in everywhere for i in range(len(part))) == [
        f"train/{i}.png" for i in range(10)
    ]
    images, labels, weights = list(batches(found.train, batch_size=4, image_size=8, seed=None))[-1]
    assert images.shape == (4, 8, 8, 3) and labels.shape == (4, 2) and labels.dtype == bool
    np.testing.assert_array_equal(labels[:2], found.train.labels[4:])
    assert weights.tolist() == [1, 1, 0, 0] and not labels[2:].any()


@pytest.mark.parametrize(
    "lines, says",
    [
        ([], r"begin with file,CLASS,CLASS,... and different names, got nothing"),
        (["name,cat,dog"], "begin with file,CLASS,CLASS,.* got name,cat,dog"),
        (["file,cat,cat"], "different names, got file,cat,cat"),
        (["file,cat,dog", "0.png,1"], "row 1 of .*labels.csv has 2 cells, expected 3 as in its head"),
        (
            ["file,cat,dog", "0.png,1,0", "1.png,1,0.5"],
            r"row 2 of .*labels.csv \(1.png\): dog must be 0 or 1, got '0.5'",
        ),
        (["file,cat,dog", "0.png,1,0", "0.png,1,0"], "more than one row for 0.png"),
    ],
)
def test_sheets_that_are_none(tmp_path, lines, says):
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=says):
        read_sheet(path)


def test_a_sheet_of_other_letters_is_read_or_refused(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("\ufefffile,Gürteltier\r\nä.png,1\r\n", encoding="utf-8")
    assert read_sheet(path)[:2] == (("ä.png",), ("Gürteltier",))
    path.write_bytes("file,Gürteltier\n".encode("latin-1"))
    with pytest.raises(ValueError, match="cannot be read as a table of comma-separated values"):
        read_sheet(path)


def test_sheets_that_do_not_fit(write):
    root = write(train=["file,cat,emu,fox", "0.png,1,0,0"])
    with pytest.raises(
        ValueError, match="labels.csv has no image that shows emu, fox: leave such columns out"
    ):
        read_folder(root)
    (root / "train" / "labels.csv").write_text("file,cat\n0.png,1\ngone.png,1\nnotes.txt,1\n")
    with pytest.raises(ValueError, match=r"that are not there: train/gone.png, train/notes.txt"):
        read_folder(root)
    (root / "train" / "labels.csv").write_text("file,cat\n0.png,1\n")
    (root / "val").mkdir()
    with pytest.raises(ValueError, match="val has no labels.csv, as train has"):
        read_folder(root)
    (root / "val" / "labels.csv").write_text("file,dog\n")
    with pytest.raises(ValueError, match=r"expected the columns of .* \(cat\), got dog"):
        read_folder(root)
    (root / "val" / "labels.csv").write_text("file,cat\n")
    with pytest.raises(ValueError, match="labels.csv lists no images"):
        read_folder(root)
