"""The first models, made small, and how their parameters are looked through."""

import jax

from cnnjax import models

from ..drawn import images

# What makes each model small; a new one needs its line here.
SMALL = {
    "keras_cifar_cnn": {"padding": "SAME"},
    "lenet5": {"padding": "SAME"},
    "mlp": {"depth": 4, "width": 8},
    "plain": {"depth": 4, "width": 4},
    "cifar_preact_resnet": {"depth": 8, "width": 4},
    "cifar_resnet": {"depth": 8, "width": 4},
}
DEEP = {"mlp": 7, "plain": 7, "cifar_preact_resnet": 14, "cifar_resnet": 14}
IMAGES = images(3, 8, 8, 3)


def small(name, **options):
    return models.create(name, **{**SMALL[name], "num_classes": 5, **options})


def leaves(tree, last):
    """The arrays of that name, with their paths."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return [("/".join(k.key for k in path), leaf) for path, leaf in found if path[-1].key == last]


def layers(found):
    """How many layers they belong to: stacked ones count each."""
    return sum(leaf.shape[0] if "/block/" in path else 1 for path, leaf in found)
