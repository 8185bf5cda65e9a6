"""`load`: sizes, shares and seeds of the splits, and the moments of well-known sets."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from cnnjax.data import draws, load


def images_of(data) -> set[bytes]:
    return {image.tobytes() for split in (data.train, data.validation, data.test) for image in split.images}


def test_digits_are_scikit_learns():
    data = load()
    # scikit-learn's user guide, "Optical recognition of handwritten digits": 1797 images, 8x8, values 0..16.
    assert len(data.train) + len(data.validation) + len(data.test) == 1797
    assert (data.image_shape, data.num_classes, data.name) == ((8, 8, 1), 10, "digits")
    assert data.class_names == tuple("0123456789")
    originals = load_digits().images
    scaled = np.array([round(value * 255 / 16) for value in range(17)], np.uint8)
    assert images_of(data) == {scaled[image.astype(int)].tobytes() for image in originals}
    assert data.notes == ("digits has no official test split: 359 images were drawn by split_seed=0",)


def test_digits_keep_their_labels():
    data, pairs = load(), zip(*load_digits(return_X_y=True), strict=True)
    known = {np.rint(row * (255 / 16)).astype(np.uint8).tobytes(): label for row, label in pairs}
    assert [known[image.tobytes()] for image in data.test.images] == data.test.labels.tolist()


def test_enlarged_digits_are_interpolated_between_the_centers_of_the_pixels():
    small, large = load(), load("digits32")
    assert large.image_shape == (32, 32, 1) and large.notes[0].startswith(
        "digits32 has no official test split"
    )
    np.testing.assert_array_equal(large.train.labels, small.train.labels)
    image, centers = small.test.images[0, :, :, 0].astype(float), (np.arange(32) - 1.5) / 4
    by_rows = np.stack([np.interp(centers, np.arange(8), column) for column in image.T], axis=1)
    expected = np.stack([np.interp(centers, np.arange(8), row) for row in by_rows])
    np.testing.assert_allclose(large.test.images[0, :, :, 0], expected, atol=0.5)


@pytest.mark.parametrize("split, size", [("train", 1150), ("validation", 288), ("test", 359)])
def test_every_split_has_the_shares_of_the_whole(split, size):
    labels = getattr(load(), split).labels
    shares = np.bincount(load_digits().target) * size / 1797
    assert labels.dtype == np.int32 and len(labels) == size
    assert np.all(np.abs(np.bincount(labels) - shares) < 2)


def test_the_split_of_seed_0_stays_what_it_is():
    # Found with NumPy 2.4.6: a change means that numbers from before no longer compare.
    assert load().test.labels[:12].tolist() == [5, 9, 2, 4, 6, 7, 9, 3, 4, 6, 8, 5]


def test_seeds_and_options_draw_independently():
    first, again, other = load(), load(), load(split_seed=1)
    np.testing.assert_array_equal(first.test.images, again.test.images)
    np.testing.assert_array_equal(first.train.images, again.train.images)
    assert np.any(first.test.images != other.test.images)
    np.testing.assert_array_equal(first.test.images, load(validation=0.5, subset=100).test.images)
    np.testing.assert_array_equal(first.validation.images, load(subset=100).validation.images)


def test_validation_takes_a_fifth_but_has_a_bound(write_set, tmp_path, monkeypatch):
    assert len(load().validation) == round((1797 - 359) / 5)
    write_set()
    assert len(load("tiny", data_dir=tmp_path / "sets").validation) == 6
    monkeypatch.setattr(draws, "_MOST_VALIDATION", 4)
    assert len(load("tiny", data_dir=tmp_path / "sets").validation) == 4


def test_no_validation():
    data = load(validation=0)
    assert (len(data.train), len(data.validation)) == (1438, 0)
    assert data.validation.images.shape == (0, 8, 8, 1)


def test_a_subset_is_stratified_and_sets_the_moments():
    data = load(subset=100)
    assert np.all(np.abs(np.bincount(data.train.labels) - 10) <= 1) and len(data.train) == 100
    np.testing.assert_allclose(data.mean, (data.train.images / 255).mean(axis=(0, 1, 2)), rtol=1e-6)
    assert data.notes[-1] == "trained on 100 of 1150 training images"


@pytest.mark.parametrize(
    "options, says",
    [
        ({"subset": 1151}, "digits has 1150 images left for training: subset cannot be 1151"),
        ({"subset": 0}, "subset cannot be 0"),
        ({"validation": 1.0}, "expected split_seed >= 0, 0 <= validation < 1, got 0, 1.0"),
        ({"split_seed": -1}, "expected split_seed >= 0, 0 <= validation < 1, got -1, None"),
    ],
)
def test_options_out_of_range(options, says):
    with pytest.raises(ValueError, match=says):
        load(**options)


def test_the_official_test_split_is_kept(write_set, tmp_path):
    images, labels = write_set()["test"]
    data = load("tiny", data_dir=tmp_path / "sets", split_seed=5, validation=0.3)
    np.testing.assert_array_equal(data.test.images, images)
    np.testing.assert_array_equal(data.test.labels, labels)
    assert (len(data.train), len(data.validation), data.image_shape, data.notes) == (21, 9, (4, 5, 3), ())


def test_an_official_validation_split_serves_as_test_split(write_set, tmp_path):
    images, _ = write_set(splits={"train": 10, "validation": 6})["validation"]
    data = load("tiny", data_dir=tmp_path / "sets")
    np.testing.assert_array_equal(data.test.images, images)
    assert data.notes == ("tiny has no labeled test split: its official validation split is the test split",)


def test_a_set_with_a_training_split_only(write_set, tmp_path):
    write_set(splits={"train": 30})
    data = load("tiny", data_dir=tmp_path / "sets")
    assert (len(data.train), len(data.validation), len(data.test)) == (19, 5, 6)
    assert data.notes == ("tiny has no official test split: 6 images were drawn by split_seed=0",)


def test_classes_are_named_where_the_folder_names_them_even_if_the_arrays_come_from_the_cache(
    write_set, tmp_path
):
    write_set()
    assert load("tiny", data_dir=tmp_path / "sets").class_names == ("0", "1", "2")
    file = tmp_path / "sets" / "tiny" / "1.0.0" / "label.labels.txt"
    file.write_text("cat\ndog\nfish\n")
    assert load("tiny", data_dir=tmp_path / "sets").class_names == ("cat", "dog", "fish")


def test_a_missing_set(tmp_path):
    with pytest.raises(FileNotFoundError, match="cnnjax data prepare cifar100` prepares it"):
        load("cifar100", data_dir=tmp_path)


# The constants that training recipes normalize by: MNIST in PyTorch's examples, CIFAR-10 since Krizhevsky's.
MOMENTS = {
    "mnist": ([0.1307], [0.3081]),
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
}


@pytest.mark.usefixtures("kept_cache")
@pytest.mark.parametrize("name", MOMENTS)
def test_moments_of_well_known_sets(tfds_dir, name):
    data = load(name, data_dir=tfds_dir, validation=0)
    np.testing.assert_allclose((data.mean, data.std), MOMENTS[name], atol=2e-4)


@pytest.mark.usefixtures("kept_cache")
def test_notes_of_the_inexact_copy_of_cifar10(tfds_dir):
    if not (tfds_dir / "cifar10_inexact.json").exists():
        pytest.skip("this copy of cifar10 is exact")
    data = load("cifar10", data_dir=tfds_dir)
    assert (len(data.train), len(data.validation), len(data.test)) == (48_000, 2000, 10_000)
    assert (
        "23 of the 10000 test images of this copy of cifar10 are not bit-exact (cifar10_inexact.json)"
        in data.notes
    )


IMPORT = """
import sys, cnnjax.data
from jax._src import xla_bridge
print([name for name in ("tensorflow_datasets", "sklearn", "PIL") if name in sys.modules], xla_bridge._backends)
"""


def test_the_import_is_light():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "{}"]
