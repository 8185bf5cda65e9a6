"""Checkpoints: which are kept, that damage never goes unnoticed, and what is said of the wrong ones."""

import contextlib
import gc
import json
import os
import resource
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from cnnjax.training.checkpoints import Checkpoints
from cnnjax.training.parallel import make_mesh

TREE = {
    "params": {"kernel": jnp.arange(48.0).reshape(8, 6), "bias": jnp.full(6, 0.1, jnp.bfloat16)},
    "step": jnp.int32(0),
}


def at(step):
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(step, leaf.dtype), TREE)


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert jax.tree.map(lambda leaf: leaf.dtype, found) == jax.tree.map(lambda leaf: leaf.dtype, expected)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with the checkpoints of steps 1 to 5, of which the second has the highest score."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    with Checkpoints(folder, last=2, best=1) as checkpoints:
        for step in range(1, 6):
            checkpoints.save(step, at(step), score=-abs(step - 2), about={"epoch": step / 2})
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "checkpoints")


def test_the_last_and_the_best_are_kept_and_come_back(folder):
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.steps == [2, 4, 5]
        found = checkpoints.restore(TREE)
        assert (found.step, found.about, found.passed_over) == (5, {"epoch": 2.5}, ())
        assert_equal(found.tree, at(5))
        assert_equal(checkpoints.restore(jax.eval_shape(lambda: TREE), step=2).tree, at(2))


def test_without_a_score_nothing_is_best(tmp_path):
    with Checkpoints(tmp_path / "run", last=1) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, at(step))
    assert Checkpoints(tmp_path / "run").steps == [3]


def test_arrays_may_be_donated_as_soon_as_saving_began(tmp_path):
    change = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0, tree), donate_argnums=0)
    with Checkpoints(tmp_path / "run") as checkpoints:
        tree = {"large": jnp.arange(1e6)}
        expected = np.asarray(tree["large"]).copy()
        checkpoints.save(1, tree)
        change(tree)["large"].block_until_ready()
        np.testing.assert_array_equal(
            checkpoints.restore(jax.eval_shape(lambda: {"large": jnp.arange(1e6)})).tree["large"], expected
        )


def files(folder, step=5):
    return sorted(path.relative_to(folder) for path in (folder / str(step)).rglob("*") if path.is_file())


# Orbax leaves coroutines behind where it fails to read.
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", ["deleted", "cut off", "a byte changed"])
def test_no_damage_to_any_file_goes_unnoticed(folder, written, tmp_path, damage):
    noticed = 0
    for number, file in enumerate(files(folder)):
        copy = shutil.copytree(written, tmp_path / str(number))
        path = copy / file
        content = path.read_bytes()
        if damage == "deleted":
            path.unlink()
        elif damage == "cut off":
            path.write_bytes(content[: len(content) // 2])
        else:
            middle = len(content) // 2
            path.write_bytes(content[:middle] + bytes([content[middle] ^ 0x55]) + content[middle + 1 :])
        with Checkpoints(copy) as checkpoints:
            found = checkpoints.restore(TREE)
        # Some files say nothing about the arrays.
        assert_equal(found.tree, at(found.step))
        assert found.step in (4, 5)
        if found.step == 4 and found.passed_over:
            noticed += 1
            assert found.passed_over[0].startswith("the checkpoint of step 5 is damaged: ")
    assert noticed >= 1


def test_orbax_leaves_nothing_behind_that_complains_later(tmp_path, caplog, monkeypatch):
    """It reads all arrays at once and abandons the others when one fails."""
    tree = {str(index): jnp.full(20_000, index) for index in range(20)}
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, tree)
    for file in tmp_path.glob("2/state/**/d/*"):
        os.truncate(file, file.stat().st_size // 2)
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(tree).step == 1
    gc.collect()
    assert not heard and not caplog.records and sys.unraisablehook == heard.append


def test_a_half_written_checkpoint_is_none(folder):
    # As a process leaves it that is killed while it writes.
    shutil.move(folder / "5", folder / "5.orbax-checkpoint-tmp-0")
    (folder / "5.orbax-checkpoint-tmp-0" / "commit_success.txt").unlink(missing_ok=True)
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.steps == [2, 4]
        assert checkpoints.restore(TREE).step == 4
        checkpoints.save(5, at(5))
    with Checkpoints(folder) as checkpoints:
        assert_equal(checkpoints.restore(TREE).tree, at(5))


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_one_makes_way_when_the_run_comes_there_again(folder):
    for time in (1, 2):
        for file in (folder / "5").rglob("_METADATA"):
            file.unlink()
        with Checkpoints(folder, last=2, best=1) as checkpoints:
            found = checkpoints.restore(TREE)
            assert found.step == 4 and found.passed_over[0].startswith("the checkpoint of step 5 is damaged")
            # Reading alone changes nothing.
            assert (folder / "5").exists() and (folder / "5.damaged").exists() == (time == 2)
            checkpoints.save(5, at(5), score=-3.0)
        with Checkpoints(folder) as checkpoints:
            assert checkpoints.steps == [2, 4, 5] and (folder / "5.damaged").exists()
            assert_equal(checkpoints.restore(TREE).tree, at(5))


def test_reading_leaves_the_folder_of_a_run_at_work_alone(folder):
    # What the run is writing at this moment.
    (folder / "6.orbax-checkpoint-tmp").mkdir()
    (folder / "4" / "_CHECKPOINT_METADATA").write_text("{")
    with Checkpoints(folder) as checkpoints:
        assert (checkpoints.steps, checkpoints.best) == ([2, 4, 5], 2)
        assert_equal(checkpoints.restore(TREE).tree, at(5))
    assert {"2", "4", "5", "6.orbax-checkpoint-tmp"} == {path.name for path in folder.iterdir()}
    with Checkpoints(folder / "none") as checkpoints:
        assert (checkpoints.steps, checkpoints.best) == ([], None)
    assert not (folder / "none").exists()


def test_a_step_is_saved_once(folder):
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(ValueError, match="holds a checkpoint of step 5 already"),
    ):
        checkpoints.save(5, at(5))


def test_a_run_goes_on_with_other_devices(folder):
    mesh = make_mesh(model=2)
    place = NamedSharding(mesh, PartitionSpec(None, "model"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    like = jax.eval_shape(lambda: TREE)
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=place if leaf.ndim == 2 else everywhere
        ),
        like,
    )
    with Checkpoints(folder) as checkpoints:
        found = checkpoints.restore(like).tree
        assert found["params"]["kernel"].sharding.is_equivalent_to(place, 2)
        assert_equal(found, at(5))
        checkpoints.save(6, found)
    with Checkpoints(folder) as checkpoints:
        assert_equal(checkpoints.restore(TREE).tree, at(5))


def test_the_checkpoint_of_another_model_is_compared_with_this_one(folder):
    other = {"params": {"kernel": jnp.zeros((8, 7)), "scale": jnp.zeros(6)}, "step": jnp.int32(0)}
    with Checkpoints(folder) as checkpoints, pytest.raises(ValueError) as error:
        checkpoints.restore(other)
    text = str(error.value)
    assert "belongs to another model" in text
    assert "params/bias: bfloat16[6] in the checkpoint, nothing in the model" in text
    assert "params/kernel: float32[8, 6] in the checkpoint, float32[8, 7] in the model" in text
    assert "params/scale: nothing in the checkpoint, float32[6] in the model" in text


def test_a_newer_format_is_refused(folder):
    path = folder / "5" / "_CHECKPOINT_METADATA"
    told = json.loads(path.read_text())
    told["custom_metadata"]["format"] = 2
    path.write_text(json.dumps(told))
    with Checkpoints(folder) as checkpoints, pytest.raises(ValueError, match="has format 2.* reads up to 1"):
        checkpoints.restore(TREE)


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_is_not_there(tmp_path, folder):
    with (
        Checkpoints(tmp_path / "empty") as checkpoints,
        pytest.raises(FileNotFoundError, match="holds no checkpoint that is whole$"),
    ):
        checkpoints.restore(TREE)
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(FileNotFoundError, match="no checkpoint of step 3"),
    ):
        checkpoints.restore(TREE, step=3)
    for file in folder.rglob("_METADATA"):
        file.unlink()
    with Checkpoints(folder) as checkpoints, pytest.raises(FileNotFoundError, match="step 2 is damaged"):
        checkpoints.restore(TREE)
    with pytest.raises(ValueError, match="keep 1 of the last checkpoints or more"):
        Checkpoints(tmp_path, last=0)


def test_the_best_and_what_was_said_of_each(folder, tmp_path):
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.best == 2
        assert [checkpoints.about(step) for step in (None, 5, 4, 2)] == [
            {"epoch": k / 2} for k in (5, 5, 4, 2)
        ]
        with pytest.raises(FileNotFoundError, match="no checkpoint of step 3 whose description can be read"):
            checkpoints.about(3)
    with Checkpoints(tmp_path / "equal", last=2, best=1) as checkpoints:
        for step, score in ((1, 0.0), (2, 0.5), (3, 0.5), (4, None)):
            checkpoints.save(step, at(step), score=score)
    with Checkpoints(tmp_path / "equal") as checkpoints:
        assert (checkpoints.steps, checkpoints.best) == ([3, 4], 3)
    (folder / "5" / "_CHECKPOINT_METADATA").unlink()
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.about() == {"epoch": 2.0}


STATE = {
    "params": {
        "conv": {"kernel": jnp.ones((3, 3, 1, 4))},
        "head": {"kernel": jnp.ones((4, 10)), "bias": jnp.ones(10)},
    },
    "batch_stats": {"norm": {"mean": jnp.ones(4)}},
    "optimizer": {"momentum": jnp.ones(7)},
}
OTHER = {
    "params": {
        "conv": {"kernel": jnp.zeros((3, 3, 1, 4))},
        "head": {"kernel": jnp.zeros((4, 5)), "scale": jnp.zeros(5)},
    },
    "batch_stats": {"norm": {"mean": jnp.zeros(4)}},
}


@pytest.fixture
def trained(tmp_path):
    with Checkpoints(tmp_path / "trained", last=3) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, jax.tree.map(lambda leaf, step=step: leaf * step, STATE))
    return tmp_path / "trained"


def test_parameters_alone_whatever_the_optimizer(trained):
    like = {name: jax.tree.map(jnp.zeros_like, STATE[name]) for name in ("params", "batch_stats")}
    expected = {name: jax.tree.map(lambda leaf: 2 * leaf, STATE[name]) for name in like}
    everywhere = NamedSharding(make_mesh(), PartitionSpec())
    with Checkpoints(trained) as checkpoints:
        tree, found = checkpoints.restore_params(jax.device_put(like, everywhere))
        assert_equal(tree, expected)
        assert all(leaf.sharding.is_equivalent_to(everywhere, leaf.ndim) for leaf in jax.tree.leaves(tree))
        assert found.step == 2 and len(found.taken) == 4
        assert found.missing == found.extra == found.misshapen == found.passed_over == ()
        first, _ = checkpoints.restore_params({"params": like["params"]}, step=1)
        assert_equal(first, {"params": STATE["params"]})


def test_of_other_parameters_those_that_fit_if_asked(trained):
    with Checkpoints(trained) as checkpoints:
        tree, found = checkpoints.restore_params(OTHER, partial=True)
        assert found.taken == ("batch_stats/norm/mean", "params/conv/kernel")
        assert found.missing == ("params/head/scale",)
        assert found.extra == ("params/head/bias",)
        assert found.misshapen == ("params/head/kernel",)
        assert_equal(tree["batch_stats"]["norm"]["mean"], 2 * jnp.ones(4))
        assert_equal(tree["params"]["conv"]["kernel"], 2 * jnp.ones((3, 3, 1, 4)))
        assert_equal(tree["params"]["head"], OTHER["params"]["head"])
        with pytest.raises(ValueError) as error:
            checkpoints.restore_params(OTHER)
        assert (
            "differs from the model: params/head/bias: float32[10] in the checkpoint, nothing in the model"
            in str(error.value)
        )
        assert str(error.value).endswith("; partial=True takes what fits")
        many = {"params": {f"layer_{i}": jnp.zeros(i + 2) for i in range(9)}}
        with pytest.raises(ValueError, match="has nothing that fits: .*, and 7 more$"):
            checkpoints.restore_params(many, partial=True)


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("partial", [True, False])
def test_parameters_are_checked_too(trained, partial):
    for path in (trained / "2").rglob("d/*"):
        os.truncate(path, path.stat().st_size // 2)
    with Checkpoints(trained) as checkpoints:
        tree, found = checkpoints.restore_params({"params": STATE["params"]}, partial=partial)
        assert found.step == 1
        (text,) = found.passed_over
        assert text.startswith("the checkpoint of step 2 is damaged: ") and "tensorstore_spec" not in text
        assert_equal(tree, {"params": STATE["params"]})


LARGE = {"x": jax.ShapeDtypeStruct((200, 1000), jnp.float32)}


def large(step):
    """800 kB that cannot be compressed."""
    return {"x": jnp.asarray(np.random.default_rng(step).normal(size=LARGE["x"].shape), jnp.float32)}


@contextlib.contextmanager
def small_files():
    """No file grows over 100 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("noticed_by", ["wait", "save", "close"])
def test_what_cannot_be_written_is_one_clear_error(tmp_path, noticed_by):
    text = (
        r"the checkpoint of step 3 could not be written to .*run: File too large; those of step 1, 2 are intact: raise the "
        r"limit for the size of files \(ulimit -f\), and resume the run$"
    )
    with Checkpoints(tmp_path / "run") as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, large(step))
        checkpoints.wait()
        with small_files(), pytest.raises(OSError, match=text):
            checkpoints.save(3, large(3))
            if noticed_by == "save":
                checkpoints.save(4, large(4))
            getattr(checkpoints, noticed_by if noticed_by != "save" else "wait")()
        # Nothing is lost, nothing half written is left, and it can go on.
        assert {path.name for path in (tmp_path / "run").iterdir()} == {"1", "2"}
        assert_equal(checkpoints.restore(LARGE).tree, large(2))
        checkpoints.save(3, large(3))
    with Checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.steps == [2, 3]
        assert_equal(checkpoints.restore(LARGE).tree, large(3))


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk):
    with Checkpoints(small_disk / "run", last=3) as checkpoints:
        checkpoints.save(1, large(1))
        checkpoints.save(2, large(2))
        with pytest.raises(
            OSError, match="step 3 .*: No space left on device; .* 1, 2 are intact: make room there"
        ):
            checkpoints.save(3, large(3))
            checkpoints.wait()
        assert_equal(checkpoints.restore(LARGE).tree, large(2))
        assert_equal(checkpoints.restore(LARGE, step=1).tree, large(1))


def test_errors_are_not_logged_besides(tmp_path, caplog):
    with Checkpoints(tmp_path / "run") as checkpoints, small_files(), pytest.raises(OSError):
        checkpoints.save(3, large(3))
        checkpoints.wait()
    assert not caplog.records


def test_what_is_no_json_is_named_before_anything_is_written(tmp_path):
    with Checkpoints(tmp_path / "run") as checkpoints, pytest.raises(TypeError, match="object is not JSON"):
        checkpoints.save(1, at(1), about={"x": object()})
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "run").write_text("a file")
    with (
        Checkpoints(tmp_path / "run") as checkpoints,
        pytest.raises(OSError, match="step 1 could not be .*none before"),
    ):
        checkpoints.save(1, at(1))
