import jax
import jax.numpy as jnp
import pytest

from cnnjax import models

from ..drawn import shapes

IMAGES = jnp.zeros((1, 8, 8, 3))


def test_depth_counts_the_layers_but_the_projections():
    for depth in (11, 29, 164):
        made = shapes(models.create("cifar_preact_resnet164", depth=depth, width=2), IMAGES)["params"]
        kernels = [
            (leaf.shape[0] if any(key.key == "block" for key in path) else 1, "shortcut" in str(path))
            for path, leaf in jax.tree_util.tree_leaves_with_path(made)
            if path[-1].key == "kernel"
        ]
        assert sum(count for count, shortcut in kernels if not shortcut) == depth
        assert sum(count for count, shortcut in kernels if shortcut) == 3


def test_the_first_convolution_of_a_block_has_the_stride():
    model = models.create("cifar_preact_resnet164", depth=20, width=2)
    seen = jax.eval_shape(
        lambda v: model.apply(v, IMAGES, capture_intermediates=True)[1], shapes(model, IMAGES)
    )["intermediates"]["stage2_down"]
    sizes = {part: seen[part]["linear"]["__call__"][0].shape[1:] for part in ("layer1", "layer2", "layer3")}
    assert sizes == {"layer1": (4, 4, 4), "layer2": (4, 4, 4), "layer3": (4, 4, 16)}


@pytest.mark.parametrize("depth", [111, 2, 11.0, True])
def test_errors(depth):
    with pytest.raises(ValueError, match=rf"depth 9n \+ 2 with n >= 1 .*; got {depth}"):
        models.create("cifar_preact_resnet164", depth=depth)
