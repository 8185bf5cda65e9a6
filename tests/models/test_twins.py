import pytest

from cnnjax import models

IMAGE = (32, 32, 3)


def change(name, twin, **options):
    model = models.create(name, **options)
    return models.difference(model, models.twins(model)[twin], IMAGE)


def test_a_resnet_without_skips_loses_its_projections():
    # 1x1 from 64 to 128, 128 to 256, 256 to 512 channels, each with the scale and shift of its norm.
    projections = sum(n * 2 * n + 2 * 2 * n for n in (64, 128, 256))
    found = change("resnet18", "no skip")
    assert found == models.Difference(shared=11_689_512 - projections, removed=projections, added=0)


def test_without_norms_biases_come_where_scales_and_shifts_were():
    # The norms of the stem, of 6n layers in three widths; a bias for each of their channels.
    channels = 16 * 7 + 32 * 6 + 64 * 6
    found = change("cifar_resnet20", "no norm")
    assert found == models.Difference(shared=269_722 - 2 * channels, removed=2 * channels, added=channels)


def test_shortcuts_without_parameters_leave_everything():
    assert change("cifar_resnet20", "no skip") == models.Difference(shared=269_722, removed=0, added=0)


def test_a_model_is_its_own_equal():
    model = models.create("lenet5")
    found = models.difference(model, model.clone(), (32, 32, 1))
    assert found == models.Difference(shared=61_706, removed=0, added=0)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("resnet18", {}, {"no skip", "no norm", "plain"}),
        ("resnet18", {"norm": None}, {"no skip"}),
        ("vgg11_bn", {}, {"no norm"}),
        ("lenet5", {}, set()),
        ("plain", {"skip": False}, set()),
    ],
)
def test_a_model_has_the_twins_that_lack_what_it_has(name, options, expected):
    assert set(models.twins(models.create(name, **options))) == expected
