"""Which devices a run takes."""

import pytest

from cnnjax.training.placement import Placement


def test_a_mesh_of_all_or_some():
    assert dict(Placement().mesh(64).shape) == {"data": 8, "model": 1}
    assert dict(Placement(devices=4, model_axis=2).mesh(64).shape) == {"data": 2, "model": 2}
    assert dict(Placement(by="pmap", devices=2).mesh(64).shape) == {"data": 2, "model": 1}


@pytest.mark.parametrize(
    "act, text",
    [
        (lambda: Placement(by="pmpa"), "unknown placement 'pmpa'; did you mean 'pmap'"),
        (lambda: Placement(by="pmap", model_axis=2), "a model axis of 2 needs by='jit'"),
        (lambda: Placement(batch_norm="device"), "batch norm of each device by itself needs by='pmap'"),
        (lambda: Placement(devices=9).mesh(72), "devices must lie between 1 and the 8 there are; got 9"),
        (lambda: Placement().mesh(100), "a batch of 100 cannot be divided among 8 devices: use 96"),
        (lambda: Placement(model_axis=3).mesh(96), "8 devices cannot be divided into groups of 3"),
    ],
)
def test_what_cannot_be_laid_out(act, text):
    with pytest.raises(ValueError, match=text):
        act()
