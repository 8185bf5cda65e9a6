"""Exported networks give the logits of the model that they were made of, at any batch size, and without its code."""

import importlib.util
import json
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cnnjax import interop, models
from cnnjax.data import normalize
from cnnjax.training import exported
from cnnjax.training.export import export, load

from ..drawn import variables
from ..models.test_families import SMALL, small

IMAGES = np.random.default_rng(0).integers(0, 256, (17, 8, 8, 3), np.uint8)
MEAN, STD = np.asarray([0.5, 0.4, 0.3], np.float32), np.asarray([0.2, 0.25, 0.3], np.float32)
CLASSES = ("ant", "bee", "cat", "dog", "elk")
# Every family that takes images and gives a vector of logits: convolutions of every kind.
NAMES = [name for name, case in SMALL.items() if len(case.input) == 3 and not case.map]
QUICK = ("lenet5", "cifar_resnet", "mobilenet_v2", "resnext50_32x4d")


def export_to(folder, model, made, **options):
    settings = dict(image_shape=(8, 8, 3), mean=MEAN, std=STD, class_names=CLASSES, folder=folder)
    export(model, made, **{**settings, **options})


@pytest.fixture(scope="module")
def lenet():
    model = small("lenet5")
    return model, variables(model, jnp.zeros((1, 8, 8, 3)))


@pytest.fixture
def folder(lenet, tmp_path):
    export_to(tmp_path / "export", *lenet, about={"model": "lenet5", "options": {"padding": "SAME"}})
    return tmp_path / "export"


def logits_of(model, made, images):
    seen = normalize(jnp.asarray(images), jnp.asarray(MEAN), jnp.asarray(STD))
    return jax.jit(model.apply)(made, seen)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_every_family_gives_the_logits_of_the_model_at_any_batch_size(name, tmp_path):
    height, width, _ = SMALL[name].input
    images = np.random.default_rng(0).integers(0, 256, (17, height, width, 3), np.uint8)
    model = small(name)
    made = variables(model, jnp.zeros((1, height, width, 3)))
    export_to(tmp_path, model, made, image_shape=(height, width, 3))
    run = load(tmp_path)
    expected = logits_of(model, made, images)
    assert np.std(expected) > 1e-3
    for batch in (1, 3, 17):
        found = run(images[:batch])
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected[:batch], rtol=1e-5, atol=1e-5)


def test_the_folder_tells_what_it_holds(folder, lenet):
    run = load(folder)
    assert (run.image_shape, run.class_names) == ((8, 8, 3), CLASSES)
    assert run.platforms == ("cpu", "cuda", "tpu") == run.program.platforms
    assert run.about == {"model": "lenet5", "options": {"padding": "SAME"}}
    np.testing.assert_array_equal(np.asarray([run.mean, run.std], np.float32), [MEAN, STD])
    told = json.loads((folder / "model.json").read_text())
    assert told["format"] == 1 and {"cnnjax", "jax"} <= told["versions"].keys()
    # The weights lie beside it under their names.
    model, made = lenet
    found = interop.load_variables(folder / "weights.safetensors", model, (8, 8, 3))
    jax.tree.map(np.testing.assert_array_equal, found, made)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["model.json", "model.stablehlo", "weights.safetensors"]
    )


ALONE = """
import pathlib, sys, importlib.util
sys.modules["cnnjax"] = sys.modules["flax"] = None
import jax, jax.export, numpy
spec = importlib.util.spec_from_file_location("exported", sys.argv[1])
exported = importlib.util.module_from_spec(spec)
sys.modules["exported"] = exported
spec.loader.exec_module(exported)
images = numpy.load(sys.argv[3])
program = jax.export.deserialize(bytearray((pathlib.Path(sys.argv[2]) / "model.stablehlo").read_bytes()))
numpy.save(sys.argv[4], [exported.load(sys.argv[2])(images), program.call(images)])
"""


def test_jax_alone_runs_it(folder, lenet, tmp_path):
    source, images, out = (
        importlib.util.find_spec(exported.__name__).origin,
        tmp_path / "x.npy",
        tmp_path / "y.npy",
    )
    np.save(images, IMAGES[:3])
    subprocess.run([sys.executable, "-c", ALONE, source, folder, images, out], check=True)
    expected = logits_of(*lenet, IMAGES[:3])
    for found in np.load(out):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_variables_that_lie_on_all_devices_make_a_program_for_one(lenet, tmp_path):
    model, made = lenet
    everywhere = NamedSharding(Mesh(np.asarray(jax.devices()), ("data",)), PartitionSpec())
    export_to(tmp_path, model, jax.device_put(made, everywhere))
    run = load(tmp_path)
    assert run.program.nr_devices == 1
    np.testing.assert_allclose(run(IMAGES), logits_of(model, made, IMAGES), rtol=1e-5, atol=1e-5)


def test_low_precision_inside_gives_float32_outside(tmp_path):
    model = small("plain", dtype=jnp.bfloat16)
    made = variables(model, jnp.zeros((1, 8, 8, 3)))
    export_to(tmp_path, model, made)
    found = load(tmp_path)(IMAGES)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, logits_of(model, made, IMAGES), rtol=0.05, atol=0.05)


def test_another_export_replaces_the_first(folder, lenet):
    model, made = lenet
    export_to(folder, model, jax.tree.map(lambda leaf: 2 * leaf, made), class_names=CLASSES[::-1])
    run = load(folder)
    assert run.class_names == CLASSES[::-1] and run.about == {}
    expected = logits_of(model, jax.tree.map(lambda leaf: 2 * leaf, made), IMAGES)
    np.testing.assert_allclose(run(IMAGES), expected, rtol=1e-5, atol=1e-5)


def test_images_of_another_kind(folder):
    run = load(folder)
    with pytest.raises(
        ValueError, match=r"expected one or more images \(batch, 8, 8, 3\); got \(2, 9, 8, 3\)"
    ):
        run(np.zeros((2, 9, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"got \(8, 8, 3\)"):
        run(IMAGES[0])
    with pytest.raises(ValueError, match=r"got \(0, 8, 8, 3\)"):
        run(IMAGES[:0])
    with pytest.raises(TypeError, match="expected uint8 images on the scale 0..255, .* got float32"):
        run(IMAGES.astype(np.float32))


def test_what_cannot_be_exported_leaves_nothing(lenet, tmp_path):
    target = tmp_path / "export"
    with pytest.raises(ValueError, match="a number for each of 3 channels; got shapes .1,. and .3,."):
        export_to(target, *lenet, mean=[0.5])
    with pytest.raises(ValueError, match="a name for each logit of LeNet5, which gives .*5.*; got 2 names"):
        export_to(target, *lenet, class_names=["a", "b"])
    unet = models.create("unet_padded", depth=1, width=4, num_classes=5)
    with pytest.raises(ValueError, match="a name for each logit of UNet, which gives .*8, 8, 5"):
        export_to(target, unet, variables(unet, jnp.zeros((1, 8, 8, 3))))
    assert not target.exists()


def test_files_that_are_missing_damaged_or_newer(folder):
    program, description = folder / "model.stablehlo", folder / "model.json"
    whole, told = program.read_bytes(), json.loads(description.read_text())
    program.write_bytes(whole[:-9])
    with pytest.raises(
        ValueError, match="model.stablehlo is not the program that model.json describes: it was cut"
    ):
        load(folder)
    program.unlink()
    with pytest.raises(
        FileNotFoundError, match="there is no file .*model.stablehlo: name a folder that `cnnjax export`"
    ):
        load(folder)
    description.write_text(json.dumps({**told, "format": 2}))
    with pytest.raises(
        ValueError, match="has format 2, and this code reads up to 1: use the cnnjax that wrote it"
    ):
        load(folder)
    description.write_text("{")
    with pytest.raises(ValueError, match="model.json is damaged: it is no JSON"):
        load(folder)
    with pytest.raises(FileNotFoundError, match="there is no file .*model.json"):
        load(folder / "elsewhere")
