"""Three architectures as one writes them in plain `flax.linen`: the other side of bench_models.py."""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

Norm = functools.partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)


class ConvNorm(nn.Module):
    """Convolution, batch norm, activation."""

    features: int
    window: int = 3
    stride: int = 1
    groups: int = 1
    act: Callable[[jax.Array], jax.Array] | None = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        pad = self.window // 2
        x = nn.Conv(
            self.features,
            (self.window,) * 2,
            (self.stride,) * 2,
            [(pad, pad)] * 2,
            feature_group_count=self.groups,
            use_bias=False,
        )(x)
        x = Norm(use_running_average=not train)(x)
        return x if self.act is None else self.act(x)


class Basic(nn.Module):
    """The block of ResNet-18."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = ConvNorm(self.features, 3, self.stride)(x, train=train)
        y = ConvNorm(self.features, act=None)(y, train=train)
        if x.shape != y.shape:
            x = ConvNorm(self.features, 1, self.stride, act=None)(x, train=train)
        return nn.relu(x + y)


class ResNet18(nn.Module):
    """He et al. 2016."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = ConvNorm(64, 7, 2)(x, train=train)
        x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
        for stage in range(4):
            for block in range(2):
                x = Basic(64 * 2**stage, 2 if stage and not block else 1)(x, train=train)
        return nn.Dense(1000)(x.mean((1, 2)))


class Inverted(nn.Module):
    """The block of MobileNetV2, and with squeeze-and-excite that of EfficientNet."""

    features: int
    expansion: int
    window: int
    stride: int
    act: Callable[[jax.Array], jax.Array]
    squeeze: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        channels = x.shape[-1]
        inner = channels * self.expansion
        y = x if self.expansion == 1 else ConvNorm(inner, 1, act=self.act)(x, train=train)
        y = ConvNorm(inner, self.window, self.stride, inner, self.act)(y, train=train)
        if self.squeeze:
            gate = self.act(nn.Conv(max(channels // 4, 1), (1, 1))(y.mean((1, 2), keepdims=True)))
            y = y * nn.sigmoid(nn.Conv(inner, (1, 1))(gate))
        y = ConvNorm(self.features, 1, act=None)(y, train=train)
        return x + y if x.shape == y.shape else y


class InvertedNet(nn.Module):
    """A stem, rows (expansion, window, stride, features, blocks), a last convolution and a head."""

    rows: Sequence[tuple[int, int, int, int, int]]
    act: Callable[[jax.Array], jax.Array]
    squeeze: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = ConvNorm(32, 3, 2, act=self.act)(x, train=train)
        for expansion, window, stride, features, blocks in self.rows:
            for i in range(blocks):
                block = Inverted(features, expansion, window, 1 if i else stride, self.act, self.squeeze)
                x = block(x, train=train)
        x = ConvNorm(1280, 1, act=self.act)(x, train=train)
        return nn.Dense(1000)(x.mean((1, 2)))


MOBILENET_V2 = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 3, 2, 32, 3),
    (6, 3, 2, 64, 4),
    (6, 3, 1, 96, 3),
    (6, 3, 2, 160, 3),
    (6, 3, 1, 320, 1),
)
EFFICIENTNET_B0 = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
MODELS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": ResNet18,
    "mobilenet_v2": functools.partial(InvertedNet, MOBILENET_V2, jax.nn.relu6, False),
    "efficientnet_b0": functools.partial(InvertedNet, EFFICIENTNET_B0, nn.silu, True),
}


def parameters(model: nn.Module) -> int:
    """Their number: that of the paper, or the comparison is none."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    made = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), images)
    return sum(leaf.size for leaf in jax.tree.leaves(made["params"]))
