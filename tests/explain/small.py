"""Networks whose maps are known."""

from functools import partial

import flax.linen as linen
import jax.numpy as jnp

from cnnjax import functional as F
from cnnjax import models, nn

from ..drawn import images, variables


class OneConv(linen.Module):
    """A circular convolution, ReLU, global average pooling, and a dense layer: the network of Zhou et al. 2016."""

    features: int = 4
    classes: int = 3

    @linen.compact
    def __call__(self, x, *, train=False):
        conv = partial(nn.Conv, self.features, 3, padding="CIRCULAR")
        x = F.global_avg_pool(nn.Layer(conv, name="conv")(x, train=train))
        return nn.Layer(
            partial(nn.Dense, self.classes), None, partial(nn.Activation, "identity"), name="head"
        )(x)


class Linear(linen.Module):
    """One dense layer of the flattened image."""

    classes: int = 2

    @linen.compact
    def __call__(self, x, *, train=False):
        x = x.reshape(len(x), -1)
        return nn.Layer(
            partial(nn.Dense, self.classes), None, partial(nn.Activation, "identity"), name="head"
        )(x)


def one_conv():
    """The network, its variables, and two images."""
    model, x = OneConv(), images(2, 6, 5, 3)
    return model, variables(model, x), x


def residual(**options):
    """A scanned stack of three residual layers, and its variables and images."""
    shared = dict(depth=5, width=4, num_classes=5, skip=True)
    model, x = models.create("plain", **{**shared, **options}), images(2, 6, 6, 3)
    return model, variables(model, x), x


def dense(**options):
    """A multilayer perceptron, its variables, and images."""
    model, x = models.create("mlp", **{"depth": 3, "width": 16, **options}), images(3, 4, 2, 1)
    return model, variables(model, x), x


def pixel_weight(row, column, size, weight):
    """The variables of `Linear` whose second score is `weight` times one pixel of a gray image."""
    kernel = jnp.zeros((size * size, 2)).at[row * size + column, 1].set(weight)
    return {"params": {"head": {"linear": {"kernel": kernel, "bias": jnp.zeros(2)}}}}
