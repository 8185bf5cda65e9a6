"""Batches that are the same however they are read, and wherever reading goes on."""

import json

import numpy as np
import pytest

from cnnjax.data import batches
from cnnjax.data.image_folder import read_folder

OPTIONS = {"batch_size": 4, "image_size": 6, "seed": 3}


@pytest.fixture
def source(write_folder):
    """Eleven images, larger than they are asked for."""
    return read_folder(write_folder({"train": {"a": 7, "b": 4}}, size=(12, 16)))[0]["train"]


def take(found, count):
    return [next(found) for _ in range(count)]


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_training_batches_are_cut_from_the_row_of_all_epochs(source):
    found = take(batches(source, **OPTIONS | {"image_size": 12}, crop="center"), 11)
    assert found[0].images.shape == (4, 12, 12, 3) and found[0].images.dtype == np.uint8
    assert found[0].labels.dtype == np.int32 and found[0].weights.dtype == np.float32
    images = np.concatenate([batch.images for batch in found])
    labels = np.concatenate([batch.labels for batch in found])
    for epoch in range(4):
        here = slice(epoch * 11, epoch * 11 + 11)
        assert len({image.tobytes() for image in images[here]}) == 11
        order = np.random.default_rng((3, 0, epoch)).permutation(11)
        np.testing.assert_array_equal(labels[here], source.labels[order])
    assert all((batch.weights == 1).all() for batch in found)


def test_random_crops_differ_between_epochs(source):
    images = np.concatenate([batch.images for batch in take(batches(source, **OPTIONS), 11)])
    assert len({image.tobytes() for image in images}) == 44


def test_an_evaluation_has_every_image_once_in_order_and_is_filled_up(source):
    found = list(batches(source, **OPTIONS | {"seed": None}))
    images, labels, weights = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    assert len(found) == 3 and weights.tolist() == [1.0] * 11 + [0.0] and not images[11].any()
    np.testing.assert_array_equal(labels[:11], source.labels)
    one_by_one = batches(source, **OPTIONS | {"seed": None, "batch_size": 1})
    np.testing.assert_array_equal(images[:11], np.concatenate([batch.images for batch in one_by_one]))


@pytest.mark.parametrize("seed", [3, None])
def test_the_shares_of_all_processes_are_the_batch_of_one(source, seed):
    options = OPTIONS | {"batch_size": 12, "seed": seed}
    count = 1 if seed is None else 4
    whole = take(batches(source, **options), count)
    shares = [take(batches(source, **options, processes=(index, 3)), count) for index in range(3)]
    joined = [
        [np.concatenate(arrays) for arrays in zip(*parts, strict=True)] for parts in zip(*shares, strict=True)
    ]
    assert shares[0][0].images.shape == (4, 6, 6, 3)
    assert_equal(joined, whole)


@pytest.mark.parametrize("consumed", [0, 1, 5])
def test_going_on_equals_never_having_stopped(source, consumed):
    unbroken = take(batches(source, **OPTIONS), 8)
    stopped = batches(source, **OPTIONS)
    take(stopped, consumed)
    state = json.loads(json.dumps(stopped.state()))
    assert state == {"batches": consumed, "seed": 3, "batch_size": 4, "examples": 11, "corrupt": {}}
    resumed, moved = batches(source, **OPTIONS), batches(source, **OPTIONS)
    take(resumed, 2)
    resumed.restore(state)
    assert_equal(take(resumed, 8 - consumed), unbroken[consumed:])
    assert_equal(take(batches(source, **OPTIONS, first=consumed), 8 - consumed), unbroken[consumed:])
    # Another number of processes goes on from the same state.
    moved = [batches(source, **OPTIONS, processes=(index, 2)) for index in range(2)]
    for share in moved:
        share.restore(state)
    halves = [next(share).images for share in moved]
    np.testing.assert_array_equal(np.concatenate(halves), unbroken[consumed].images)


def test_an_evaluation_goes_on_and_ends(source):
    found = batches(source, **OPTIONS | {"seed": None}, first=2)
    assert next(found).labels.tolist() == [1, 1, 1, 0]
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(found)
    assert list(batches(source, **OPTIONS | {"seed": None}, first=9)) == []


def test_closed_batches_start_anew(source):
    unbroken, closed = take(batches(source, **OPTIONS), 2), batches(source, **OPTIONS)
    first = next(closed)
    closed.close()
    closed.close()
    assert_equal([first, next(closed)], unbroken)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"seed": 4}, "this state is of batches with seed 3, these have 4"),
        ({"batch_size": 2}, "this state is of batches with batch_size 4, these have 2"),
    ],
)
def test_a_state_of_other_batches(source, changes, says):
    with pytest.raises(ValueError, match=says):
        batches(source, **OPTIONS | changes).restore(batches(source, **OPTIONS).state())


def test_damaged_images_are_errors_or_counted(source):
    (source.root / source.name(3)).write_bytes(b"damaged")
    failing = batches(source, **OPTIONS)
    with pytest.raises(ValueError, match="train/a/03.png cannot be read"):
        take(failing, 3)
    before = failing.state()["batches"]
    with pytest.raises(ValueError, match="train/a/03.png cannot be read"):
        take(failing, 3)
    assert failing.state()["batches"] == before
    skipping = batches(source, **OPTIONS, on_corrupt="skip")
    take(skipping, 11)
    assert skipping.corrupt == {"train/a/03.png": 4} == skipping.state()["corrupt"]
    evaluated = batches(source, **OPTIONS | {"seed": None}, on_corrupt="skip")
    assert sum(batch.weights.sum() for batch in evaluated) == 10 and evaluated.corrupt == {
        "train/a/03.png": 1
    }


def test_worker_processes_read_the_same_and_tell_what_is_damaged(source):
    (source.root / source.name(3)).write_bytes(b"damaged")
    options = OPTIONS | {"on_corrupt": "skip"}
    here, there = batches(source, **options, first=1), batches(source, **options, first=1, workers=2)
    assert_equal(take(there, 6), take(here, 6))
    assert there.corrupt == here.corrupt and there.corrupt and there.state() == here.state()
    there.restore(here.state() | {"batches": 0})
    assert_equal(take(there, 1), take(batches(source, **options), 1))
    there.close()
    failing = batches(source, **OPTIONS | {"seed": None, "batch_size": 11}, workers=2)
    with pytest.raises(ValueError, match="train/a/03.png cannot be read"):
        next(failing)


@pytest.mark.parametrize(
    "changes, error, says",
    [
        ({"batch_size": 0}, ValueError, "batch_size must be 1 or more, got 0"),
        ({"image_size": 6.0}, TypeError, "image_size must be an integer, got 6.0"),
        ({"seed": -1}, ValueError, "seed must be 0 or more, got -1"),
        ({"workers": -1}, ValueError, "workers must be 0 or more, got -1"),
        ({"buffer": 0}, ValueError, "buffer must be 1 or more, got 0"),
        ({"processes": (2, 2)}, ValueError, r"processes must be \(index, count\) with .*, got \(2, 2\)"),
        (
            {"processes": (0, 3)},
            ValueError,
            "a batch of 4 cannot be divided among 3 processes: take a multiple",
        ),
        ({"on_corrupt": "ignore"}, ValueError, "on_corrupt must be 'error' or 'skip', got 'ignore'"),
        ({"crop": "ten"}, ValueError, "crop must be 'random_resized' or 'center', got 'ten'"),
        ({"crop": "random_resized", "seed": None}, ValueError, "a random crop needs a seed"),
        ({"area": (0.5, 0.1)}, ValueError, r"expected 0 < area\[0\] .* got area \(0.5, 0.1\), ratio \(0.75"),
    ],
)
def test_options_out_of_range(source, changes, error, says):
    with pytest.raises(error, match=says):
        batches(source, **OPTIONS | changes)


def test_nothing_to_read(source):
    nothing = source.take(np.arange(0))
    assert list(batches(nothing, **OPTIONS | {"seed": None})) == []
    with pytest.raises(ValueError, match="there are no images to train on: the source is empty"):
        batches(nothing, **OPTIONS)
