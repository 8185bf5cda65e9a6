"""Blocks: a layer with its norm and activation, and the residual blocks built from it.

`linear`, `norm` and `act` are given once, as callables that make a module. `linear` makes a `Conv` or `Dense` and takes
its features, and for a convolution its window and stride.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.nn.activation import Activation
from cnnjax.nn.layers import Conv

ModuleDef = Callable[..., nn.Module]


class Multiplier(nn.Module):
    """The input times one learned number.

    Attributes:
      start: where the number starts.
    """

    start: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`x`: of any shape."""
        factor = self.param("factor", nn.initializers.constant(self.start), (), jnp.float32)
        return x * factor.astype(x.dtype)


class Layer(nn.Module):
    """linear - norm - (+ residual) - activation: one row of a table of gradient flow.

    Attributes:
      linear: makes the convolution or dense layer, all but its bias decided.
      norm: makes the normalization; None for none.
      act: makes the activation.
      use_bias: of the linear part; None gives it one where there is no norm.
      multiplier: where a learned number starts that multiplies all but the residual; None for none.
    """

    linear: ModuleDef
    norm: ModuleDef | None = None
    act: ModuleDef = Activation
    use_bias: bool | None = None
    multiplier: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, residual: jax.Array | None = None, train: bool = False) -> jax.Array:
        """`x`: `(batch, ..., channels)`; `residual`, of the output's shape, is added before the activation."""
        use_bias = self.norm is None if self.use_bias is None else self.use_bias
        z = self.linear(use_bias=use_bias, name="linear")(x)
        if self.norm is not None:
            z = self.norm(name="norm")(z, train=train)
        if self.multiplier is not None:
            z = Multiplier(self.multiplier, name="multiplier")(z)
        if residual is not None:
            z = z + residual
        return self.act(name="act")(z)


class PreActivationLayer(nn.Module):
    """norm - activation - linear: the order of He et al. 2016b.

    Attributes: those of `Layer` but `use_bias`.
    """

    linear: ModuleDef
    norm: ModuleDef | None = None
    act: ModuleDef = Activation
    multiplier: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, ..., channels)`."""
        if self.norm is not None:
            x = self.norm(name="norm")(x, train=train)
        z = self.linear(use_bias=self.norm is None, name="linear")(self.act(name="act")(x))
        return z if self.multiplier is None else Multiplier(self.multiplier, name="multiplier")(z)


def pad_shortcut(x: jax.Array, *, features: int, stride: int) -> jax.Array:
    """The shortcut without parameters (He et al. 2016, option A): every `stride`-th position, new channels zero.

    The new channels are split evenly in front of and behind the old ones.

    Args:
      x: `(batch, *spatial, channels)`.
      features: number of channels of the result, at least as many as there are.
      stride: of the residual branch.

    Raises:
      ValueError: `features` is less than there are channels.
    """
    if features < x.shape[-1]:
        raise ValueError(
            f"a shortcut without parameters cannot go from {x.shape[-1]} channels to {features}: "
            "use more features or skip=False"
        )
    x = x[(slice(None), *[slice(None, None, stride)] * (x.ndim - 2))]
    extra = features - x.shape[-1]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(extra // 2, extra - extra // 2)])


class _Residual(nn.Module):
    """What the residual blocks have in common.

    Attributes:
      features: number of channels of the block.
      stride: of the block.
      skip: whether the input is added; without, the block is its own plain twin, with the same parameters.
      conv, norm, act: make the parts.
      last_conv: makes the last convolution of the branch; None for `conv`.
      multiplier: where a learned number starts that the branch is multiplied by; None for none.
    """

    features: int
    stride: int = 1
    skip: bool = True
    conv: ModuleDef = Conv
    norm: ModuleDef | None = None
    act: ModuleDef = Activation
    last_conv: ModuleDef | None = None
    multiplier: float | None = None

    @nn.nowrap
    def _linear(self, window: int, stride: int = 1) -> ModuleDef:
        return functools.partial(self.conv, self.features, window, stride)

    @nn.nowrap
    def _last(self, window: int, *, features: int | None = None) -> ModuleDef:
        conv = self.conv if self.last_conv is None else self.last_conv
        return functools.partial(conv, self.features if features is None else features, window, 1)

    # Not `nowrap`: interceptors see it (`probes.parts`).
    def _shortcut(self, x: jax.Array, features: int) -> jax.Array | None:
        return pad_shortcut(x, features=features, stride=self.stride) if self.skip else None


class BasicBlock(_Residual):
    """Two 3x3 layers and a shortcut added before the second activation (He et al. 2016, figure 5 left)."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial / stride, features)`."""
        h = Layer(self._linear(3, self.stride), self.norm, self.act, name="layer1")(x, train=train)
        second = Layer(self._last(3), self.norm, self.act, multiplier=self.multiplier, name="layer2")
        return second(h, residual=self._shortcut(x, self.features), train=train)


class PreActivationBlock(_Residual):
    """norm - act - conv twice, the identity from block to block untouched (He et al. 2016b, figure 4e)."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial / stride, features)`."""
        first = PreActivationLayer(self._linear(3, self.stride), self.norm, self.act, name="layer1")
        second = PreActivationLayer(self._last(3), self.norm, self.act, self.multiplier, name="layer2")
        h = second(first(x, train=train), train=train)
        shortcut = self._shortcut(x, self.features)
        return h if shortcut is None else h + shortcut


class BottleneckBlock(_Residual):
    """1x1, 3x3 with the stride, 1x1 to `expansion` times the channels, and a shortcut (He et al. 2016, figure 5 right).

    Attributes:
      expansion: output channels over `features`.
    """

    expansion: int = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial / stride, features * expansion)`."""
        features = self.features * self.expansion
        h = Layer(self._linear(1), self.norm, self.act, name="layer1")(x, train=train)
        h = Layer(self._linear(3, self.stride), self.norm, self.act, name="layer2")(h, train=train)
        linear = self._last(1, features=features)
        last = Layer(linear, self.norm, self.act, multiplier=self.multiplier, name="layer3")
        return last(h, residual=self._shortcut(x, features), train=train)
