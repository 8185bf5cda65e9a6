import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models, nn

from ..drawn import images, variables
from .traced import inputs, output_shapes, parameters_of

TINY = {"depths": (2, 3), "width": 4, "stem": "cifar", "num_classes": 5}


def image(*shape):
    return jax.ShapeDtypeStruct((1, *shape), jnp.float32)


def test_the_stages_of_the_paper():
    # He et al. 2016, table 1, the column of 50 layers.
    sizes = {"stem": 112, "pool": 56, "stage1": 56, "stage2": 28, "stage3": 14, "stage4": 7}
    channels = {"stem": 64, "pool": 64, "stage1": 256, "stage2": 512, "stage3": 1024, "stage4": 2048}
    found = output_shapes(models.create("resnet50"), inputs("resnet50"))
    assert {part: found[part] for part in sizes} == {
        part: (size, size, channels[part]) for part, size in sizes.items()
    }


def test_a_stem_for_small_images():
    found = output_shapes(models.create("resnet18", stem="cifar"), image(32, 32, 3))
    assert "pool" not in found
    assert [found[part][0] for part in ("stem", "stage1", "stage2", "stage3", "stage4")] == [32, 32, 16, 8, 4]


@pytest.mark.parametrize("shape", [(16, 3), (8, 8, 8, 3)])
def test_images_of_any_rank(shape):
    assert output_shapes(models.create("resnet50", **TINY), image(*shape))["head"] == (5,)


@pytest.mark.parametrize(
    "name, stages",
    [("resnet18", "234"), ("resnet34", "234"), ("resnet50", "1234"), ("resnext50_32x4d", "1234")],
)
def test_projections_are_there_only_where_the_shape_changes(name, stages):
    made = parameters_of(models.create(name), inputs(name))
    shortcuts = {path.split("/")[0]: shape for path, shape in made.items() if "shortcut/linear" in path}
    assert list(shortcuts) == [f"stage{stage}_down" for stage in stages]
    assert {shape[:2] for shape in shortcuts.values()} == {(1, 1)}


def test_the_stride_is_in_the_3x3():
    def run(x):
        model = models.create("resnet50")
        return model.init_with_output(jax.random.key(0), x, capture_intermediates=True)[1]["intermediates"]

    block = jax.eval_shape(run, inputs("resnet50"))["stage2_down"]
    sizes = {
        layer: block[layer]["__call__"][0].shape[1] for layer in ("layer1", "layer2", "layer3", "shortcut")
    }
    assert sizes == {"layer1": 56, "layer2": 28, "layer3": 28, "shortcut": 28}


@pytest.mark.parametrize(
    "name, kernel",
    [
        ("resnet50", (3, 3, 64, 64)),
        # Zagoruyko & Komodakis 2016, section 3: twice the channels in the 3x3.
        ("wide_resnet50_2", (3, 3, 128, 128)),
        # Xie et al. 2017, table 1: 32 groups of 4 channels; table 3: 64 of 4.
        ("resnext50_32x4d", (3, 3, 4, 128)),
        ("resnext101_32x8d", (3, 3, 8, 256)),
        ("resnext101_64x4d", (3, 3, 4, 256)),
    ],
)
def test_the_3x3_of_the_first_stage(name, kernel):
    made = parameters_of(models.create(name), inputs(name))
    assert made["stage1_down/layer2/linear/kernel"] == kernel
    assert made["stage1_down/layer3/linear/kernel"][-1] == 256


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "preact_resnet18", "preact_resnet50"])
def test_the_twin_without_skips_lacks_the_projections_only(name):
    made, twin = (parameters_of(models.create(name, skip=skip), inputs(name)) for skip in (True, False))
    missing = {path: shape for path, shape in made.items() if "/shortcut/" in path}
    assert missing and made == {**twin, **missing}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "preact_resnet18", "preact_resnet50"])
def test_the_unnormalized_twin_has_biases_in_the_place_of_norms(name):
    made, twin = (parameters_of(models.create(name, norm=norm), inputs(name)) for norm in ("batch", None))
    kernels = {path: shape for path, shape in made.items() if path.endswith("kernel")}
    assert {path: shape for path, shape in twin.items() if path.endswith("kernel")} == kernels
    assert set(twin) - set(made) == {path.replace("kernel", "bias") for path in kernels if "head" not in path}


@pytest.mark.parametrize("name", ["resnet50", "preact_resnet18"])
def test_written_out_it_is_the_same_network(name):
    model, x = models.create(name, **TINY), images(2, 8, 8, 3)
    made = variables(model, x)
    apart = {kind: nn.unstack(tree) for kind, tree in made.items()}
    expected, actual = jax.jit(lambda a, b: (model.apply(a, x), model.clone(scan=False).apply(b, x)))(
        made, apart
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_branch_scale_leaves_the_shortcuts_alone():
    model = models.create("resnet50", **TINY, branch_scale="fixup", norm=None, initializer="constant")
    made = jax.jit(model.init)(jax.random.key(0), images(1, 8, 8, 3))["params"]
    values = {
        part: np.unique(tree["linear"]["kernel"])
        for part, tree in made["stage2_down"].items()
        if "linear" in tree
    }
    # Zhang et al. 2019: L^(-1 / (2 m - 2)) with 5 blocks of 3 layers, the last 0.
    np.testing.assert_allclose(values["layer1"], [5**-0.25], rtol=1e-6)
    np.testing.assert_allclose(values["layer2"], [5**-0.25], rtol=1e-6)
    np.testing.assert_array_equal(values["layer3"], [0])
    np.testing.assert_array_equal(values["shortcut"], [1])


@pytest.mark.parametrize(
    "options, error, text",
    [
        ({"block": "botleneck"}, ValueError, "unknown block 'botleneck'; did you mean 'bottleneck'"),
        ({"stem": "cifar10"}, ValueError, "unknown stem 'cifar10'; did you mean 'cifar'"),
        ({"stem": None}, TypeError, "the name of the stem must be a string, got None"),
        (
            {"depths": (2, 0)},
            ValueError,
            r"depths must be a tuple of positive integers such as .*; got \(2, 0\)",
        ),
        ({"depths": 18}, ValueError, "depths must be a tuple of positive integers such as .*; got 18"),
        (
            {"groups": 2},
            ValueError,
            "groups=2 and width_per_group=64 are for bottlenecks: use block='bottleneck'",
        ),
        (
            {"branch_scale": "fixup", "skip": False},
            ValueError,
            "branch_scale='fixup' is for residual branches",
        ),
        (
            {"block": "bottleneck", "width": 8, "width_per_group": 4},
            ValueError,
            "width=8 and width_per_group=4 leave less than one channel a group: their product must be 64 or more",
        ),
    ],
)
def test_errors(options, error, text):
    for name in ("resnet18", "preact_resnet18"):
        with pytest.raises(error, match=text):
            models.create(name, **options)
