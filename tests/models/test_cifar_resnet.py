"""The residual networks for CIFAR: their shapes, the clean identity, and how branches start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import functional as F
from cnnjax import models
from cnnjax.functional.shapes import parameter_count

from ..drawn import shapes, variables
from .small import IMAGES, leaves, small


def test_resnet_halves_the_image_twice_and_doubles_its_channels():
    model = models.create("cifar_resnet", depth=14)
    made = shapes(model, jnp.zeros((2, 32, 32, 3)))
    captured = jax.eval_shape(
        lambda made: model.apply(made, jnp.zeros((2, 32, 32, 3)), capture_intermediates=True)[1], made
    )["intermediates"]
    assert {
        stage: captured[stage]["__call__"][0].shape for stage in ("stem", "stage1", "stage2", "stage3")
    } == {
        "stem": (2, 32, 32, 16),
        "stage1": (2, 32, 32, 16),
        "stage2": (2, 16, 16, 32),
        "stage3": (2, 8, 8, 64),
    }


def test_a_preactivation_net_keeps_the_identity_clean():
    # With branches of zeros only the stem and the shortcuts are left: option A pads with zeros.
    model = small("cifar_preact_resnet", norm=None, activation="identity")
    made = variables(model, IMAGES)
    params = {
        part: tree if part in ("stem", "head") else jax.tree.map(jnp.zeros_like, tree)
        for part, tree in made["params"].items()
    }
    features, head = jax.jit(
        lambda params: (
            F.conv(IMAGES, params["stem"]["linear"]["kernel"], params["stem"]["linear"]["bias"]),
            model.apply({"params": params}, IMAGES),
        )
    )(params)
    pooled = features[:, ::4, ::4].mean((1, 2))
    # 4 channels become 8, then 16: 2 and then 4 new ones in front.
    kernel = params["head"]["linear"]["kernel"][6:10]
    np.testing.assert_allclose(
        head, pooled @ kernel + params["head"]["linear"]["bias"].reshape(1, -1), rtol=1e-4
    )


# How the residual branches start.

residual_models = pytest.mark.parametrize("name", ["cifar_preact_resnet", "cifar_resnet"])


@residual_models
@pytest.mark.parametrize("branch_scale", ["skipinit", "fixup"])
def test_a_network_that_starts_as_its_skips_has_branches_of_zero(name, branch_scale):
    model = small(name, norm=None, depth=14, branch_scale=branch_scale)

    @jax.jit
    def compute():
        made = model.init(jax.random.key(0), IMAGES)["params"]
        without = {
            part: jax.tree.map(jnp.zeros_like, tree) if part.startswith("stage") else tree
            for part, tree in made.items()
        }
        return made, model.apply({"params": made}, IMAGES), model.apply({"params": without}, IMAGES)

    made, logits, without = compute()
    assert np.all(np.any(logits != 0, axis=0))
    np.testing.assert_array_equal(logits, without)
    # The branches are there: their first kernels are not zero.
    assert all(np.all(leaf.std() > 0.01) for path, leaf in leaves(made, "kernel") if "layer1" in path)


def test_with_fixup_a_step_changes_the_function_as_much_at_any_depth():
    # Zhang et al. 2019, section 3: without it, the change is 200 times as large in the deeper network.
    def change(depth):
        model = small("cifar_resnet", norm=None, depth=depth, branch_scale="fixup")
        params = model.init(jax.random.key(0), IMAGES)["params"]

        def logits(params):
            return model.apply({"params": params}, IMAGES)

        gradient = jax.grad(lambda params: logits(params).sum())(params)
        # The derivative along the step: the change per learning rate as that goes to 0.
        return jnp.linalg.norm(jax.jvp(logits, (params,), (gradient,))[1])

    shallow, deep = jax.jit(lambda: (change(8), change(32)))()
    assert 0.5 < deep / shallow < 2


@residual_models
def test_a_branch_scale_adds_one_number_a_block(name):
    counts = [
        parameter_count(shapes(small(name, depth=20, branch_scale=scale), IMAGES)["params"])
        for scale in (None, "skipinit")
    ]
    assert counts[1] - counts[0] == 9
