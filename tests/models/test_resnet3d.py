import jax
import jax.numpy as jnp
import pytest

from cnnjax import models

from .traced import inputs, output_shapes, parameters_of


def test_the_stages_of_the_paper():
    # Tran et al. 2018, table 1.
    found = output_shapes(models.create("r3d_18"), inputs("r3d_18"))
    assert {part: found[part] for part in ("stem", "stage1", "stage2", "stage3", "stage4", "head")} == {
        "stem": (16, 56, 56, 64),
        "stage1": (16, 56, 56, 64),
        "stage2": (8, 28, 28, 128),
        "stage3": (4, 14, 14, 256),
        "stage4": (2, 7, 7, 512),
        "head": (400,),
    }


def test_all_kernels_reach_through_time_but_the_projections():
    made = parameters_of(models.create("r3d_18"), inputs("r3d_18"))
    assert made["stem/linear/kernel"] == (3, 7, 7, 3, 64)
    assert made["stage2_down/layer1/linear/kernel"] == (3, 3, 3, 64, 128)
    assert made["stage2_down/shortcut/linear/kernel"] == (1, 1, 1, 64, 128)


def test_bottlenecks_in_three_dimensions():
    options = dict(block="bottleneck", depths=(1, 1), width=4, groups=2, width_per_group=64, num_classes=3)
    x = jax.ShapeDtypeStruct((1, 4, 8, 8, 3), jnp.float32)
    assert output_shapes(models.create("r3d_18", **options), x)["stage2"] == (2, 2, 2, 32)


def test_a_video_is_expected():
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    with pytest.raises(ValueError, match="in layer stem/linear: .* one entry per spatial axis"):
        parameters_of(models.create("r3d_18"), x)
