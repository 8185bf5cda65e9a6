"""Checkpoints: which are kept, that damage never goes unnoticed, and what is said of the wrong ones."""

import json
import shutil

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
