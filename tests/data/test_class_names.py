"""Names of classes: from the folder, from the table, or numbers."""

import pytest

from cnnjax.data.class_names import WELL_KNOWN, class_names


def test_well_known_sets():
    assert class_names("cifar10", 10)[:2] == ("airplane", "automobile")
    assert class_names("fashion_mnist:3.0.1", 10)[9] == "Ankle boot"
    # https://www.cs.toronto.edu/~kriz/cifar.html: 100 classes; their labels are in alphabetical order.
    assert (
        list(WELL_KNOWN["cifar100"]) == sorted(set(WELL_KNOWN["cifar100"]))
        and len(WELL_KNOWN["cifar100"]) == 100
    )


@pytest.mark.parametrize("name", ["mnist", "svhn_cropped", "emnist/digits"])
def test_others_have_their_numbers(name):
    assert class_names(name, 10) == tuple("0123456789")


def test_a_table_for_another_number_of_classes_is_not_used():
    assert class_names("cifar10", 3) == ("0", "1", "2")


def test_the_folder_comes_first(tmp_path):
    (tmp_path / "coarse.labels.txt").write_text("big\nsmall\n")
    (tmp_path / "label.labels.txt").write_text(" ape \nbee\ncow\n\n")
    assert class_names("cifar10", 3, tmp_path) == ("ape", "bee", "cow")
    assert class_names("cifar10", 2, tmp_path) == ("big", "small")
    assert class_names("cifar10", 10, tmp_path)[0] == "airplane"
