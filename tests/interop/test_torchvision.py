import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from cnnjax import interop, models, nn
from cnnjax.functional.shapes import parameter_count
from cnnjax.interop.state_dict import read_state_dict, write_state_dict
from cnnjax.interop.torchvision_names import FAMILIES, families_of, module_names
from cnnjax.interop.torchvision_tensors import tensors
from cnnjax.models.mobilenet_v3 import SMALL as SMALL_BLOCKS

from ..drawn import images, variables

# Written by test_parity.py's `stored` from the torchvision that the file names.
STORED = json.loads(Path(__file__).with_name("state_dicts.json").read_text())

# What makes a model of each kind small.
SMALL = {
    "alexnet": {"widths": (2, 3, 4, 4, 3), "hidden": 5},
    "vgg11_bn": {"width": 2, "hidden": 5},
    "squeezenet1_1": {"width": 4, "squeezes": (2,) * 8},
    "googlenet": {"width": 4, "depths": (1, 4, 1), "aux": True},
    "inception_v3": {"width": 2, "depths": (1, 2, 1)},
    "resnet18": {"width": 2, "depths": (3, 1, 2, 2)},
    "resnext50_32x4d": {"width": 16, "depths": (2, 1, 3, 1)},
    "densenet121": {"width": 4, "growth": 2, "depths": (2, 1, 3, 2)},
    "mobilenet_v2": {"width_multiplier": 0.1, "stages": ((1, 8, 1, 1), (6, 16, 2, 2), (6, 24, 3, 2))},
    "mobilenet_v3_small": {"width_multiplier": 0.1, "blocks": SMALL_BLOCKS[2:6]},
    "shufflenet_v2_x0_5": {"widths": (4, 6, 8), "depths": (2, 3, 1), "last_width": 8},
    "efficientnet_v2_s": {"width_multiplier": 0.1, "depth_multiplier": 0.15},
    "convnext_tiny": {"widths": (2, 3, 4, 5), "depths": (1, 3, 2, 1)},
    "r3d_18": {"width": 2},
}

# Each has a smaller one of its kind in the table.
LARGE = ("resnext50_32x4d", "densenet121", "mobilenet_v3_large", "efficientnet_v2_s", "inception_v3")
# What their files hold is spelled as in those of others here.
ALIKE = ("efficientnet_v2_s", "inception_v3", "mobilenet_v3_small", "resnext50_32x4d")


def small(name, **options):
    return models.create(name, **{"num_classes": 3, **SMALL[name], **options})


def drawn(name, **options):
    """A small model and its variables."""
    model = small(name, **options)
    return model, variables(model, jnp.zeros((1, *models.VARIANTS[name].image)))


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def lines(name):
    """The tensors of a model as torchvision names and shapes them."""
    options = {"aux": True} if name == "googlenet" else {}
    model = models.create(name, **options)
    found = tensors(model, FAMILIES[type(model)], models.VARIANTS[name].image)
    return sorted(f"{tensor.name} {'x'.join(map(str, tensor.theirs.shape))}" for tensor in found)


def counted(stored):
    """Without the number of batches that every batch norm has seen."""
    return [line for line in stored if not line.endswith("num_batches_tracked")]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in STORED["tensors"]],
)
def test_names_and_shapes_are_torchvisions(name):
    assert lines(name) == counted(STORED["tensors"][name])


@pytest.mark.slow
@pytest.mark.parametrize("name", STORED["digests"].keys() - STORED["tensors"].keys())
def test_names_and_shapes_of_every_other_variant(name):
    found = lines(name)
    means = [line.split()[0] for line in found if ".running_mean " in line]
    found += [name.replace("running_mean", "num_batches_tracked") for name in means]
    assert hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest() == STORED["digests"][name]


def test_every_family_that_torchvision_has_is_known():
    known = {name for name, variant in models.VARIANTS.items() if variant.family in FAMILIES}
    assert STORED["digests"].keys() == {
        name for name in known if name not in ("densenet40_12", "densenet_bc100_12")
    }
    assert {models.VARIANTS[name].family for name in SMALL} == set(FAMILIES)
    for name in STORED["tensors"]:
        given = [line.split()[0].rsplit(".", 1)[0] for line in STORED["tensors"][name]]
        assert models.VARIANTS[name].family in families_of(given)
        assert len(families_of(given)) <= 2


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in ALIKE)) for name in SMALL]
)
def test_what_is_saved_is_loaded(name, tmp_path):
    model, made = drawn(name)
    interop.torchvision.save(tmp_path / "weights.safetensors", made, model)
    assert_same(interop.torchvision.load(tmp_path / "weights.safetensors", model), made)
    names = load_file(tmp_path / "weights.safetensors")
    held = [a for key, a in names.items() if not key.endswith(("running_mean", "running_var", "tracked"))]
    assert sum(array.size for array in held) == parameter_count(made["params"])
    assert all(array.dtype == np.float32 for array in held)


def test_a_model_written_out_has_the_same_file(tmp_path):
    model, made = drawn("resnet18")
    interop.torchvision.save(tmp_path / "scanned.pth", made, model)
    interop.torchvision.save(tmp_path / "written.pth", nn.unstack(made), model.clone(scan=False))
    assert (tmp_path / "scanned.pth").read_bytes() == (tmp_path / "written.pth").read_bytes()
    found = interop.torchvision.load(tmp_path / "scanned.pth", model.clone(scan=False))
    assert_same(found, nn.unstack(made))


def test_batches_are_counted_as_torch_does(tmp_path):
    model, made = drawn("resnet18")
    interop.torchvision.save(tmp_path / "weights.pth", made, model)
    found = read_state_dict(tmp_path / "weights.pth")
    norms = {name.rsplit(".", 1)[0] for name in found if name.endswith("running_mean")}
    counters = {name for name in found if name.endswith("num_batches_tracked")}
    assert counters == {f"{norm}.num_batches_tracked" for norm in norms} and len(norms) == 20
    assert all(found[name].dtype == np.int64 and found[name].shape == () for name in counters)


def test_kernels_by_the_definition(tmp_path):
    """torch: (out, in, height, width), dense (out, in), flattened maps (channels, height, width)."""
    model, made = drawn("alexnet")
    interop.torchvision.save(tmp_path / "weights.pth", made, model)
    found = read_state_dict(tmp_path / "weights.pth")
    kernels = {name: np.asarray(made["params"][name]["linear"]["kernel"]) for name in ("conv2", "fc6", "fc7")}
    assert found["features.3.weight"][2, 1, 4, 3] == kernels["conv2"][4, 3, 1, 2]
    assert found["classifier.4.weight"][2, 3] == kernels["fc7"][3, 2]
    channel, row, column, out = 2, 4, 1, 3
    theirs, ours = (channel * 6 + row) * 6 + column, (row * 6 + column) * 3 + channel
    assert found["classifier.1.weight"][out, theirs] == kernels["fc6"][ours, out]


def test_numbers_in_their_order():
    rows = {
        "<stem|last>": "features.#.[0|1]",
        "<stage*_down|stage*/block_*>/<expand|project>": "features.#.block.#.[0|1]",
        "head/linear": "classifier.1",
    }
    layers = ["stem", "stage2_down/project", "stage2/block_0/expand", "stage2/block_0/project", "last"]
    paths = ["stage2", *(f"{layer}/{part}" for layer in layers for part in ("linear", "norm", "act"))]
    found = module_names(rows, [*paths, "head/linear"])
    assert [found[path] for path in found if path.endswith("linear")] == [
        "features.0.0",
        "features.1.block.0.0",
        "features.2.block.0.0",
        "features.2.block.1.0",
        "features.3.0",
        "classifier.1",
    ]
    assert found["stage2/block_0/project/norm"] == "features.2.block.1.1"
    assert not any(path.endswith("act") or path == "stage2" for path in found)


@pytest.fixture
def saved(tmp_path):
    """A small resnet18, its variables, and the file that holds them."""
    model, made = drawn("resnet18")
    interop.torchvision.save(tmp_path / "weights.safetensors", made, model)
    return model, made, tmp_path / "weights.safetensors"


def test_a_head_of_another_size(saved):
    model, made, path = saved
    other = model.clone(num_classes=4)
    with pytest.raises(
        ValueError,
        match=r"does not hold torchvision's weights of this ResNet: of another shape than the model's: "
        r"fc.bias \(params/head/linear/bias\) \(3,\) for \(4,\), fc.weight \(params/head/linear/kernel\) \(3, 16\) for "
        r"\(4, 16\). Only the head differs: use replace_head=True and a key",
    ):
        interop.torchvision.load(path, other)
    with pytest.raises(ValueError, match=r"replace_head=True draws a new head: pass key=jax.random.key\(0\)"):
        interop.torchvision.load(path, other, replace_head=True)
    found = interop.torchvision.load(path, other, replace_head=True, key=jax.random.key(2))
    head = found["params"].pop("head")
    assert_same(found, {**made, "params": {k: v for k, v in made["params"].items() if k != "head"}})
    fresh = jax.jit(lambda: other.init(jax.random.key(2), images(1, 224, 224, 3))["params"]["head"])()
    assert_same(head, fresh)
    assert head["linear"]["kernel"].shape == (16, 4)


def test_the_auxiliary_heads_may_be_left_out_but_not_be_missing(tmp_path):
    model, made = drawn("googlenet")
    interop.torchvision.save(tmp_path / "weights.pth", made, model)
    found = interop.torchvision.load(tmp_path / "weights.pth", model.clone(aux=False))
    assert made["params"].keys() - found["params"].keys() == {"aux1", "aux2"}
    interop.torchvision.save(tmp_path / "without.pth", found, model.clone(aux=False))
    with pytest.raises(ValueError, match=r"missing: aux1\S+ \(batch_stats/aux1/\S+\), .* more$"):
        interop.torchvision.load(tmp_path / "without.pth", model)


def test_the_names_in_older_files(tmp_path):
    model, made = drawn("densenet121")
    interop.torchvision.save(tmp_path / "weights.pth", made, model)
    # As in densenet121-a639ec97.pth: norm.1 for norm1, and no counters.
    older = {
        name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): array
        for name, array in read_state_dict(tmp_path / "weights.pth").items()
        if not name.endswith("tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in older
    write_state_dict(tmp_path / "older.pth", older)
    assert_same(interop.torchvision.load(tmp_path / "older.pth", model), made)


def test_half_precision_is_widened(saved):
    model, made, path = saved
    half = {name: a.astype(jnp.bfloat16) for name, a in read_state_dict(path).items()}
    write_state_dict(path.with_suffix(".pth"), half)
    found = interop.torchvision.load(path.with_suffix(".pth"), model)
    assert_same(found, jax.tree.map(lambda a: a.astype(jnp.bfloat16).astype(jnp.float32), made))


def test_tensors_that_do_not_fit(saved):
    model, _, path = saved
    found = read_state_dict(path)
    found["extra.weight"] = found.pop("bn1.weight")
    found["conv1.weight"] = found["conv1.weight"][:, :1]
    write_state_dict(path, found)
    with pytest.raises(ValueError) as error:
        interop.torchvision.load(path, model)
    assert str(error.value) == (
        f"{path} does not hold torchvision's weights of this ResNet: missing: bn1.weight (params/stem/norm/scale); extra: "
        "extra.weight; of another shape than the model's: conv1.weight (params/stem/linear/kernel) (2, 1, 7, 7) for "
        "(2, 3, 7, 7)"
    )


def test_weights_of_another_architecture(saved, tmp_path):
    model, _, path = saved
    with pytest.raises(
        ValueError,
        match=r"of this DenseNet: missing: .* and \d+ more; extra: .* names are those of a ResNet$",
    ):
        interop.torchvision.load(path, "densenet121")
    # A whole squeezenet1_1, its numbers left out.
    whole = {line.split()[0]: line.split()[1] for line in STORED["tensors"]["squeezenet1_1"]}
    write_state_dict(
        path, {k: np.zeros([int(n) for n in v.split("x")], np.float16) for k, v in whole.items()}
    )
    with pytest.raises(ValueError, match="It has as many parameters as squeezenet1_1: load it as that$"):
        interop.torchvision.load(path, "squeezenet1_0")
    with pytest.raises(TypeError, match="torchvision has no MobileNetV1. It has: AlexNet, ConvNeXt"):
        interop.torchvision.load(path, "mobilenet_v1")
    with pytest.raises(ValueError, match="unknown model 'resnet17'; did you mean"):
        interop.torchvision.load(path, "resnet17")


def test_models_that_torchvision_has_no_names_for(tmp_path):
    model, made = drawn("resnet18", activation="prelu")
    with pytest.raises(
        ValueError, match="torchvision has no name for params/.*/act/slope: use cnnjax.interop.save_v"
    ):
        interop.torchvision.save(tmp_path / "weights.pth", made, model)
    with pytest.raises(ValueError, match="not the variables of this ResNet: missing: batch_stats/"):
        interop.torchvision.save(tmp_path / "weights.pth", {"params": made["params"]}, small("resnet18"))
    assert not list(tmp_path.iterdir())
