import flax
import flax.linen as linen
import jax
import numpy as np
import pytest

from cnnjax import models, nn
from cnnjax.probes import probe_points

from ..drawn import images, shapes, variables
from .traced import inputs, output_shapes, parameters

SMALL = {
    "stages": ((True, 2, 3, 1, 8, 2), (False, 2, 3, 2, 16, 3)),
    "stem_width": 8,
    "last_width": 16,
    "stem": "cifar",
    "num_classes": 5,
}


def test_sizes_of_b0_are_those_of_table_1():
    found = output_shapes(models.create("efficientnet_b0"), inputs("efficientnet_b0"))
    assert [found[name] for name in ("stem", *(f"stage{i}" for i in range(1, 8)), "last")] == [
        (112, 112, 32),
        (112, 112, 16),
        (56, 56, 24),
        (28, 28, 40),
        (14, 14, 80),
        (14, 14, 112),
        (7, 7, 192),
        (7, 7, 320),
        (7, 7, 1280),
    ]


def test_sizes_of_v2_s_are_those_of_table_4():
    found = output_shapes(models.create("efficientnet_v2_s"), inputs("efficientnet_v2_s"))
    assert [found[name] for name in ("stem", *(f"stage{i}" for i in range(1, 7)), "last")] == [
        (192, 192, 24),
        (192, 192, 24),
        (96, 96, 48),
        (48, 48, 64),
        (24, 24, 128),
        (24, 24, 160),
        (12, 12, 256),
        (12, 12, 1280),
    ]


@pytest.mark.parametrize(
    "name, depths",
    # 1.8 and 3.1 times 1, 2, 2, 3, 3, 4, 1, rounded up.
    [("efficientnet_b4", [2, 4, 4, 6, 6, 8, 2]), ("efficientnet_b7", [4, 7, 7, 10, 10, 13, 4])],
)
def test_depths_are_scaled_and_rounded_up(name, depths):
    assert [stage.blocks for stage, _ in models.create(name)._scaled_stages()] == depths


def test_squeezes_have_a_quarter_of_the_channels_in_front_of_the_block():
    found = parameters("efficientnet_b0")
    assert found["stage2_first/squeeze/reduce/linear/kernel"] == (1, 1, 96, 4)
    assert found["stage6/block/squeeze/reduce/linear/kernel"] == (3, 1, 1, 1152, 48)
    assert found["stage6/block/squeeze/expand/linear/bias"] == (3, 1152)


def test_fused_blocks_have_a_full_convolution_and_no_squeeze():
    found = parameters("efficientnet_v2_s")
    assert found["stage1_first/layer/linear/kernel"] == (3, 3, 24, 24)
    assert found["stage2/block/expand/linear/kernel"] == (3, 3, 3, 48, 192)
    squeezed = {path.split("/")[0].removesuffix("_first") for path in found if "squeeze" in path}
    assert squeezed == {"stage4", "stage5", "stage6"}


def rates(model, **options):
    """What each inverted residual block is called with."""
    x, found = images(1, 8, 8, 3), []
    made = shapes(model, x)

    def note(next_function, args, kwargs, context):
        blocks = (nn.InvertedResidual, nn.FusedInvertedResidual)
        if isinstance(context.module, blocks) and context.method_name == "__call__":
            found.append(kwargs.get("rate"))
        return next_function(*args, **kwargs)

    with linen.intercept_methods(note):
        jax.eval_shape(
            lambda made: model.apply(made, x, rngs={"dropout": jax.random.key(0)}, **options), made
        )
    return found


def test_the_rates_grow_linearly():
    model = models.create("efficientnet_b0", **SMALL, drop_path=0.3, scan=False)
    assert rates(model, train=True) == pytest.approx([0.3 * i / 5 for i in range(5)])
    assert rates(model, train=False) == [None] * 5


def test_stochastic_depth_needs_a_key_in_training_alone():
    model = models.create("efficientnet_b0", **SMALL, norm=None, dropout=0.0)
    x = images(1, 8, 8, 3)
    made = shapes(model, x)
    jax.eval_shape(lambda made: model.apply(made, x), made)
    with pytest.raises(flax.errors.InvalidRngError, match='needs PRNG for "dropout"'):
        jax.eval_shape(lambda made: model.apply(made, x, train=True), made)
    without = model.clone(drop_path=0.0)
    jax.eval_shape(lambda made: without.apply(made, x, train=True), made)


def test_a_given_activation_is_everywhere_but_in_gates_and_at_ends():
    model = models.create("efficientnet_v2_s", **SMALL, activation="tanh")
    x = images(1, 8, 8, 3)
    found = {"/".join(p.path): p.activation for p in probe_points(model, shapes(model, x), x)}
    others = {path for path, name in found.items() if name != "tanh"}
    assert all(path.endswith(("squeeze/expand/act", "project/act", "head/act")) for path in others)
    assert {found[path] for path in others} == {"sigmoid", "identity"}


@pytest.mark.parametrize(
    "name, norm", [("b4", (1e-5, 0.9)), ("b5", (1e-3, 0.99)), ("b7", (1e-3, 0.99)), ("v2_s", (1e-3, 0.9))]
)
def test_norms_are_those_of_torchvision(name, norm):
    made = models.create(f"efficientnet_{name}")._norm()()
    assert (made.epsilon, made.momentum) == norm


def test_the_twin_without_shortcuts_has_the_same_parameters():
    assert parameters("efficientnet_b0", **SMALL, skip=False) == parameters("efficientnet_b0", **SMALL)


def test_without_norms_biases_are_there():
    found, twin = (parameters("efficientnet_b0", **SMALL, norm=norm) for norm in ("batch", None))
    added = {path.replace("norm/scale", "linear/bias") for path in found if path.endswith("norm/scale")}
    assert twin.keys() - found.keys() == added
    assert not any("norm" in path for path in twin)


def test_scanned_and_written_out_agree():
    x = images(2, 8, 8, 3)
    model = models.create("efficientnet_v2_s", **SMALL)
    made = variables(model, x)
    scanned, unrolled = jax.jit(
        lambda made: (model.apply(made, x), model.clone(scan=False).apply(nn.unstack(made), x))
    )(made)
    np.testing.assert_allclose(unrolled, scanned, rtol=1e-4, atol=1e-5)
