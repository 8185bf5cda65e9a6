import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from cnnjax import interop, models
from cnnjax.functional.shapes import parameter_count

from ..drawn import images, variables


@pytest.fixture
def saved(tmp_path):
    """A model, its variables, and the file that holds them."""
    model = models.create("cifar_resnet", depth=14, width=4)
    made = variables(model, images(1, 8, 8, 3))
    interop.save_variables(tmp_path / "weights.safetensors", made)
    return model, made, tmp_path / "weights.safetensors"


def test_what_is_saved_is_loaded(saved):
    model, made, path = saved
    found = interop.load_variables(path, model, (8, 8, 3))
    assert jax.tree.structure(found) == jax.tree.structure(made)
    jax.tree.map(np.testing.assert_array_equal, found, made)
    names = load_file(path)
    assert names["params/stage1/block/layer2/linear/kernel"].shape == (2, 3, 3, 4, 4)
    assert "batch_stats/stem/norm/mean" in names
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    held = sum(array.size for name, array in names.items() if name.startswith("params/"))
    assert held == parameter_count(made["params"])


def test_others_may_read_it_as_any_file(saved):
    other = saved[2].with_name("other")
    other.touch()
    assert saved[2].stat().st_mode == other.stat().st_mode


def test_narrow_numbers_are_widened(saved):
    model, made, path = saved
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), made)
    interop.save_variables(path, narrow)
    found = interop.load_variables(path, model, (8, 8, 3))
    jax.tree.map(
        np.testing.assert_array_equal, found, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), narrow)
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"num_classes": 7},
            r"this CifarResNet: of another shape than the model's: params/head/linear/bias \(10,\) for \(7,\), "
            r"params/head/linear/kernel \(16, 10\) for \(16, 7\)",
        ),
        ({"norm": None}, "missing: .*/linear/bias.* and 7 more; extra: batch_stats/.* and 40 more$"),
        ({"scan": False}, "missing: .*stage1/block_0.*; extra: .*stage1/block/"),
    ],
)
def test_another_model(options, match, saved):
    model, _, path = saved
    with pytest.raises(ValueError, match=match):
        interop.load_variables(path, model.clone(**options), (8, 8, 3))


def test_files_that_are_none(saved):
    model, _, path = saved
    with pytest.raises(
        FileNotFoundError, match="there is no file .*nothing.safetensors: name one that save_variables"
    ):
        interop.load_variables(path.with_name("nothing.safetensors"), model, (8, 8, 3))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:5], b"", b"\x80\x05something else"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="weights.safetensors is no whole safetensors file"):
            interop.load_variables(path, model, (8, 8, 3))
