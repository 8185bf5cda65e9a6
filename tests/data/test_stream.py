"""Sets that stay on the disk: the same as those in memory where both can be had."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from cnnjax.data import batches, load, open_stream

TRAIN = {"a": 20, "b": 10}


def images_of(part, size):
    """All images of a part, with their labels."""
    found = batches(part, batch_size=7, image_size=size, seed=None)
    images, labels, weights = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return images[weights > 0], labels[weights > 0]


def assert_same(streamed, loaded, *, parts=("train", "validation", "test")):
    size = loaded.image_shape[0]
    for name in parts:
        images, labels = images_of(getattr(streamed, name), size)
        np.testing.assert_array_equal(images, getattr(loaded, name).images)
        np.testing.assert_array_equal(labels, getattr(loaded, name).labels)
    for field in ("name", "num_classes", "image_shape", "class_names", "notes"):
        assert getattr(streamed, field) == getattr(loaded, field)


@pytest.mark.parametrize("shape", [(4, 4, 3), (4, 4, 1)])
@pytest.mark.parametrize("splits", [{"train": 30, "test": 9}, {"train": 40}, {"train": 30, "validation": 9}])
def test_a_prepared_set_is_that_in_memory(write_set, tmp_path, shape, splits):
    write_set(shape=shape, splits=splits)
    options = {"data_dir": tmp_path / "sets", "split_seed": 2, "validation": 0.3, "subset": 12}
    streamed, loaded = open_stream("tiny", image_size=4, **options), load("tiny", **options)
    assert_same(streamed, loaded)
    np.testing.assert_allclose((streamed.mean, streamed.std), (loaded.mean, loaded.std), rtol=1e-6)


def test_a_folder_is_the_prepared_set_of_the_same_images(write_set, tmp_path):
    for split, (images, labels) in write_set(splits={"train": 30, "test": 9}, shape=(4, 4, 3)).items():
        for number in np.argsort(labels, kind="stable"):
            folder = tmp_path / "tiny" / split / str(labels[number])
            folder.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(images[number]).save(folder / f"{number:03}.png")
    streamed = open_stream(tmp_path / "tiny", image_size=4)
    loaded = load("tiny", data_dir=tmp_path / "sets")
    # The order differs: a folder is sorted by its classes.
    assert {image.tobytes() for image in images_of(streamed.test, 4)[0]} == {
        image.tobytes() for image in loaded.test.images
    }
    assert (len(streamed.train), len(streamed.validation), streamed.class_names) == (24, 6, ("0", "1", "2"))
    assert np.bincount(streamed.validation.labels).tolist() == [2, 2, 2]


def test_a_folder_with_all_its_parts(write_folder):
    root = write_folder({"train": TRAIN, "val": {"a": 2}, "test": {"b": 3}})
    data = open_stream(str(root), image_size=5)
    assert (data.name, data.num_classes, data.image_shape, data.notes) == ("pictures", 2, (5, 5, 3), ())
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 2, 3)
    assert data.validation.name(0) == "val/a/00.png" and data.class_names == ("a", "b")


def test_a_folder_without_test_images(write_folder):
    data = open_stream(write_folder({"train": TRAIN, "val": {"a": 2}}), image_size=5)
    assert (len(data.train), len(data.validation), len(data.test)) == (24, 6, 2)
    assert data.notes == (
        "pictures has no labeled test split: its official validation split is the test split",
    )
    assert np.bincount(data.validation.labels).tolist() == [4, 2]


def test_moments_are_those_of_up_to_a_thousand_images(write_folder, monkeypatch):
    root = write_folder({"train": TRAIN, "val": {"a": 2}, "test": {"b": 3}})
    images, _ = images_of(open_stream(root, image_size=5).train, 5)
    data = open_stream(root, image_size=5)
    assert data.mean.dtype == data.std.dtype == np.float32
    np.testing.assert_allclose(data.mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(data.std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-6)
    monkeypatch.setattr("cnnjax.data.stream._MOST_MEASURED", 4)
    some = images[np.linspace(0, 29, 4).astype(int)]
    np.testing.assert_allclose(
        open_stream(root, image_size=5).mean, (some / 255).mean(axis=(0, 1, 2)), rtol=1e-6
    )


def test_moments_leave_out_what_cannot_be_read(write_folder):
    root = write_folder({"train": TRAIN, "val": {"a": 2}, "test": {"b": 3}})
    expected, _ = images_of(open_stream(root, image_size=5).train, 5)
    (root / "train" / "a" / "00.png").write_bytes(b"damaged")
    found = open_stream(root, image_size=5)
    np.testing.assert_allclose(found.mean, (expected[1:] / 255).mean(axis=(0, 1, 2)), rtol=1e-6)
    for file in (root / "train").glob("*/*.png"):
        file.write_bytes(b"damaged")
    with pytest.raises(
        ValueError, match="none of 30 training images of pictures can be read, such as train/a/00.png"
    ):
        open_stream(root, image_size=5)


def test_imagenet_has_its_usual_moments(write_folder):
    data = open_stream(write_folder({"train": TRAIN}, name="ImageNet-100"), image_size=5)
    # torchvision's Normalize for its pretrained models.
    np.testing.assert_array_equal(data.mean, np.float32([0.485, 0.456, 0.406]))
    np.testing.assert_array_equal(data.std, np.float32([0.229, 0.224, 0.225]))


def test_what_is_a_folder_and_what_is_a_name(write_folder, tmp_path, monkeypatch):
    write_folder({"train": TRAIN})
    monkeypatch.chdir(tmp_path)
    for name in ("./pictures", Path("pictures"), str(tmp_path / "pictures")):
        assert open_stream(name, image_size=4).name == "pictures"
    monkeypatch.chdir(tmp_path / "pictures")
    assert open_stream("../pictures", image_size=4).name == open_stream(".", image_size=4).name == "pictures"
    with pytest.raises(FileNotFoundError, match="no data set 'pictures' in"):
        open_stream("pictures", image_size=4, data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder .*/absent"):
        open_stream(str(tmp_path / "absent"), image_size=4)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"image_size": 0}, "image_size must be 1 or more, got 0"),
        ({"image_size": 8, "validation": 1.0}, "expected split_seed >= 0, 0 <= validation < 1, got 0, 1.0"),
        ({"image_size": 8, "subset": 99}, "images left for training: subset cannot be 99"),
    ],
)
def test_options_out_of_range(write_folder, options, says):
    with pytest.raises(ValueError, match=says):
        open_stream(write_folder({"train": TRAIN}), **options)


def test_sets_in_memory_are_not_streamed():
    with pytest.raises(
        ValueError, match=r"digits is small and has no images on the disk: read it with load\('digits'\)"
    ):
        open_stream("digits", image_size=8)


@pytest.mark.usefixtures("kept_cache")
def test_cifar10_is_that_in_memory(tfds_dir):
    loaded = load("cifar10", data_dir=tfds_dir)
    streamed = open_stream("cifar10", data_dir=tfds_dir, image_size=32)
    assert_same(streamed, loaded, parts=("validation",))
    assert (len(streamed.train), len(streamed.test)) == (48_000, 10_000)
    # Of 1,000 images: three deviations of their mean are 0.012 to 0.016.
    np.testing.assert_allclose(streamed.mean, loaded.mean, atol=0.016)
    np.testing.assert_allclose(streamed.std, loaded.std, atol=0.016)
