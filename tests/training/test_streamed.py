"""A set from the disk: the batches that `data.batches` gives, a run that goes on, and images that cannot be read."""

import jax
import numpy as np
import PIL.Image
import pytest

from cnnjax import data
from cnnjax.training import (
    Placement,
    Plan,
    Recipe,
    Streaming,
    Watcher,
    begin,
    evaluate,
    go_on,
    journal,
    trained,
)
from cnnjax.training.parallel import make_mesh
from cnnjax.training.streamed import Streamed

PLAN = Plan(steps=12, batch_size=8)
ONE = Placement(devices=1)


@pytest.fixture
def folder(tmp_path, rng):
    """Three colors with noise, 20 training images of each and 8 for test, of two sizes."""
    for split, count in (("train", 20), ("test", 8)):
        for name, color in (("blue", (0, 0, 255)), ("green", (0, 255, 0)), ("red", (255, 0, 0))):
            (tmp_path / "pictures" / split / name).mkdir(parents=True)
            for number in range(count):
                size = (20, 12) if number % 2 else (12, 16)
                pixels = np.asarray(color) * 0.6 + rng.uniform(0, 100, (*size, 3))
                path = tmp_path / "pictures" / split / name / f"{number:02}.png"
                PIL.Image.fromarray(pixels.astype(np.uint8)).save(path)
    return tmp_path / "pictures"


def recipe(folder, **options):
    chosen = dict(
        model="mlp",
        options={"depth": 2, "width": 8},
        data=str(folder),
        image_size=8,
        duration=12,
        batch_size=8,
        learning_rate=0.02,
        record_every=4,
        evaluate_every=6,
        checkpoint_every=5,
        placement=ONE,
    )
    return Recipe(**{**chosen, **options})


def feed(folder, devices=1, **options):
    dataset = data.open_stream(str(folder), image_size=8)
    mesh = make_mesh(jax.devices()[:devices])
    return Streamed(dataset, PLAN, mesh, Streaming(**options)), dataset


def assert_same(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), found, expected)


def test_a_step_has_its_batch_whoever_asks(folder):
    found, dataset = feed(folder, devices=8)
    expected = data.batches(dataset.train, batch_size=8, image_size=8, seed=0)
    try:
        following = found.following(0)
        for step in range(9):
            here, batch = next(expected), next(following)
            np.testing.assert_array_equal(batch.images, here.images)
            np.testing.assert_array_equal(batch.labels, here.labels)
            assert len(batch.images.sharding.device_set) == 8
            if step == 3:
                assert_same(found.batch(7), feed(folder)[0].batch(7))
        # Taken up where it was left, or at another step.
        np.testing.assert_array_equal(next(found.following(9)).images, next(expected).images)
        np.testing.assert_array_equal(next(found.following(2)).images, found.batch(2).images)
        assert found.waited > 0
    finally:
        found.close()
        expected.close()


def test_an_evaluation_has_every_image_once(folder):
    found, dataset = feed(folder, devices=8)
    weighed = list(found.evaluation("test"))
    assert sum(float(one.weights.sum()) for one in weighed) == len(dataset.test) == 24
    assert found.first_images().shape == (8, 8, 8, 3)


def test_a_run_learns_and_goes_on_to_the_same_end(folder, tmp_path):
    begin(tmp_path / "whole", recipe(folder), name="colors")
    beats = []
    watcher = Watcher(beat=lambda *beat: beats.append(beat), stop=lambda: beats[-1][0] >= 3)
    begin(tmp_path / "parts", recipe(folder), name="colors", watcher=watcher)
    assert 3 <= journal.read_status(tmp_path / "parts").step < 12
    go_on(tmp_path / "parts")
    assert_same(trained(tmp_path / "parts").state, trained(tmp_path / "whole").state)
    found = journal.read_evaluation(tmp_path / "whole")
    assert found["test"]["accuracy"] == 1.0
    assert evaluate(trained(tmp_path / "whole"), "test")["loss"] == pytest.approx(
        found["test"]["loss"], rel=1e-5
    )
    assert journal.read_info(tmp_path / "whole")["data"]["class_names"] == ["blue", "green", "red"]


def test_an_image_that_cannot_be_read_is_an_error_or_left_out(folder, tmp_path):
    broken = folder / "train" / "red" / "07.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(ValueError, match="07.png cannot be read"):
        begin(tmp_path / "error", recipe(folder, validation=0.0), name="colors")
    told = []
    skipping = recipe(folder, validation=0.0, streaming=Streaming(on_corrupt="skip"))
    begin(tmp_path / "skip", skipping, name="colors", watcher=Watcher(note=told.append))
    assert any("07.png could not be read and was left out" in text for text in told)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"workers": -1}, "workers must be 0 or more, got -1"),
        ({"prefetched": 0}, "prefetched must be 1 or more, got 0"),
        ({"smallest": 0.0}, r"must lie in \(0, 1\], got 0.0"),
    ],
)
def test_what_is_out_of_range(options, text):
    with pytest.raises(ValueError, match=text):
        Streaming(**options)


def test_an_alternating_flip_is_not_for_streams(folder, tmp_path):
    from cnnjax.training import Augmentation

    with pytest.raises(ValueError, match="an alternating flip needs a set that lies on the device"):
        begin(tmp_path / "run", recipe(folder, augmentation=Augmentation(flip="alternating")), name="colors")
