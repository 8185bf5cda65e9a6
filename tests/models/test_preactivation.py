from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import functional as F
from cnnjax import models
from cnnjax.nn import unstack

from ..drawn import images, shapes, variables

SMALL = {
    "wide_resnet28_10": {"depth": 16, "width": 2, "width_factor": 2},
    "cifar_preact_resnet164": {"depth": 20, "width": 2},
}
IMAGES = images(3, 8, 8, 3)
both = pytest.mark.parametrize("name", SMALL)


def small(name, **options):
    return models.create(name, **{**SMALL[name], "num_classes": 5, **options})


def flat(tree):
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path): leaf for path, leaf in found}


def stages(name):
    """The shapes of the stages at the paper's resolution."""
    model, x = models.create(name), jnp.zeros((2, 32, 32, 3))
    made = shapes(model, x)
    captured = jax.eval_shape(lambda v: model.apply(v, x, capture_intermediates=True)[1], made)
    captured = captured["intermediates"]
    return {part: captured[part]["__call__"][0].shape[1:] for part in ("stem", "stage1", "stage2", "stage3")}


def test_stages_at_the_resolution_of_cifar():
    assert stages("wide_resnet28_10") == {
        "stem": (32, 32, 16),
        "stage1": (32, 32, 160),
        "stage2": (16, 16, 320),
        "stage3": (8, 8, 640),
    }
    assert stages("cifar_preact_resnet164") == {
        "stem": (32, 32, 16),
        "stage1": (32, 32, 64),
        "stage2": (16, 16, 128),
        "stage3": (8, 8, 256),
    }


@both
def test_the_twin_without_skips_lacks_the_projections_only(name):
    whole, twin = (flat(shapes(small(name, skip=skip), IMAGES)) for skip in (True, False))
    assert {path for path in whole if path not in twin} == {
        f"params/stage{stage}_down/shortcut/linear/kernel" for stage in (1, 2, 3)
    }
    assert all(whole[path] == leaf for path, leaf in twin.items())


@both
def test_the_twin_without_norms_has_biases_in_their_place(name):
    normed, bare = (flat(shapes(small(name, norm=norm), IMAGES)) for norm in ("batch", None))
    kernels = {path for path in normed if path.endswith("/kernel")}
    assert kernels == {path for path in bare if path.endswith("/kernel")}
    assert set(bare) - kernels == {path.replace("/kernel", "/bias") for path in kernels}
    # A projection reads what the first norm of its block puts out, and has none of its own.
    assert {path for path in normed if "/shortcut/" in path} == {
        path for path in kernels if "/shortcut/" in path
    }


def conv(x, made, stride=1):
    kernel = made["linear"]["kernel"]
    padding = (kernel.shape[0] - 1) // 2
    return F.conv(x, kernel, made["linear"]["bias"], stride=stride, padding=padding)


def by_hand(params, x, strides):
    """Without norms: each block act - conv ..., the projection behind the first activation (He et al. 2016b)."""
    x = conv(x, params["stem"])
    for stage in (1, 2, 3):
        blocks = [params[f"stage{stage}_down"], *params.get(f"stage{stage}", {}).values()]
        for i, block in enumerate(blocks):
            stride = 2 if i == 0 and stage > 1 else 1
            activated = F.relu(x)
            shortcut = conv(activated, block["shortcut"], stride) if i == 0 else x
            h = activated
            for layer, has_stride in enumerate(strides, 1):
                h = conv(h if layer == 1 else F.relu(h), block[f"layer{layer}"], stride if has_stride else 1)
            x = h + shortcut
    head = params["head"]["linear"]
    return F.relu(x).mean((1, 2)) @ head["kernel"] + head["bias"].reshape(1, -1)


@pytest.mark.parametrize(
    # The stride is in the first convolution of both: 3x3 in the one, 1x1 in the other.
    "name, strides",
    [("wide_resnet28_10", (True, False)), ("cifar_preact_resnet164", (True, False, False))],
)
def test_scanned_and_written_out_it_is_what_its_parts_compose_to(name, strides):
    model = small(name, norm=None)
    made = variables(model, IMAGES)
    apart = unstack(made)
    unrolled = model.clone(scan=False)
    assert jax.tree.structure(shapes(unrolled, IMAGES)) == jax.tree.structure(apart)
    scanned, written, expected = jax.jit(
        lambda made, apart, x: (
            model.apply(made, x),
            unrolled.apply(apart, x),
            by_hand(apart["params"], x, strides),
        )
    )(made, apart, IMAGES)
    np.testing.assert_allclose(scanned, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(written, expected, rtol=1e-4, atol=1e-5)


@both
def test_a_branch_scale_adds_one_number_a_block(name):
    counts = [
        F.parameter_count(shapes(small(name, norm=None, branch_scale=scale), IMAGES)["params"])
        for scale in (None, "skipinit")
    ]
    assert counts[1] - counts[0] == 6


@both
def test_depth_does_not_lengthen_the_program(name):
    def program(depth):
        model = small(name, depth=depth)
        return str(jax.make_jaxpr(partial(model.apply, train=False))(shapes(model, IMAGES), IMAGES)).count(
            "="
        )

    shallow, deep = {"wide_resnet28_10": (16, 1000), "cifar_preact_resnet164": (20, 1001)}[name]
    assert program(shallow) == program(deep)


@both
def test_errors(name):
    with pytest.raises(ValueError, match="branch_scale='fixup' is for residual branches"):
        small(name, branch_scale="fixup", skip=False)
    with pytest.raises(ValueError, match="unknown branch_scale 'fixupp'; did you mean 'fixup'"):
        small(name, branch_scale="fixupp")
    with pytest.raises(ValueError, match="width must be a positive integer; got 0"):
        small(name, width=0)
