"""Blocks: a layer with its norm and activation, and the residual blocks built from it.

`linear`, `norm` and `act` are given once, as callables that make a module. `linear` makes a `Conv` or `Dense` and takes
its features, and for a convolution its window and stride.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax import functional as F
from cnnjax.nn.activation import Activation
from cnnjax.nn.layers import Conv, Dropout

ModuleDef = Callable[..., nn.Module]
_IDENTITY = functools.partial(Activation, "identity")


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
    def __call__(
        self,
        x: jax.Array,
        *,
        residual: jax.Array | None = None,
        rate: float | jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """`x`: `(batch, ..., channels)`; `residual`, of the output's shape, is added before the activation.

        While training all but the residual is dropped with probability `rate` (see `functional.drop_path`; None: never).
        """
        use_bias = self.norm is None if self.use_bias is None else self.use_bias
        z = self.linear(use_bias=use_bias, name="linear")(x)
        if self.norm is not None:
            z = self.norm(name="norm")(z, train=train)
        if self.multiplier is not None:
            z = Multiplier(self.multiplier, name="multiplier")(z)
        if train and rate is not None:
            z = F.drop_path(z, self.make_rng("dropout"), rate=rate)
        if residual is not None:
            z = z + residual
        return self.act(name="act")(z)


class PreActivationLayer(nn.Module):
    """norm - activation - linear: the order of He et al. 2016b.

    Attributes: those of `Layer`, and `dropout`, the rate of zeros behind the activation in training.
    """

    linear: ModuleDef
    norm: ModuleDef | None = None
    act: ModuleDef = Activation
    multiplier: float | None = None
    use_bias: bool | None = None
    dropout: float = 0.0

    @nn.compact
    def with_activated(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """The output, and the activation that the linear part was applied to."""
        use_bias = self.norm is None if self.use_bias is None else self.use_bias
        if self.norm is not None:
            x = self.norm(name="norm")(x, train=train)
        activated = self.act(name="act")(x)
        if self.dropout:
            activated = Dropout(self.dropout, name="dropout")(activated, train=train)
        z = self.linear(use_bias=use_bias, name="linear")(activated)
        if self.multiplier is not None:
            z = Multiplier(self.multiplier, name="multiplier")(z)
        return z, activated

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, ..., channels)`."""
        return self.with_activated(x, train=train)[0]


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
      projection: makes the 1x1 convolution of a shortcut that changes the shape (He et al. 2016, option B), without an
        activation; None pads with zeros (`pad_shortcut`). A shortcut that keeps the shape is the identity.
    """

    features: int
    stride: int = 1
    skip: bool = True
    conv: ModuleDef = Conv
    norm: ModuleDef | None = None
    act: ModuleDef = Activation
    last_conv: ModuleDef | None = None
    multiplier: float | None = None
    projection: ModuleDef | None = None

    @nn.nowrap
    def _linear(self, window: int, stride: int = 1) -> ModuleDef:
        return functools.partial(self.conv, self.features, window, stride)

    @nn.nowrap
    def _last(self, window: int, *, features: int | None = None) -> ModuleDef:
        conv = self.conv if self.last_conv is None else self.last_conv
        return functools.partial(conv, self.features if features is None else features, window, 1)

    # Not `nowrap`: interceptors see it (`probes.parts`).
    def _shortcut(
        self, x: jax.Array, features: int, *, activated: jax.Array | None = None, train: bool = False
    ) -> jax.Array | None:
        """A projection reads `activated` where the block activates before it convolves, and is then followed by no norm."""
        if not self.skip:
            return None
        if self.projection is None or (self.stride == 1 and x.shape[-1] == features):
            return pad_shortcut(x, features=features, stride=self.stride)
        linear = functools.partial(self.projection, features, 1, self.stride)
        norm = self.norm if activated is None else None
        layer = Layer(linear, norm, _IDENTITY, use_bias=self.norm is None, name="shortcut")
        return layer(x if activated is None else activated, train=train)


class BasicBlock(_Residual):
    """Two 3x3 layers and a shortcut added before the second activation (He et al. 2016, figure 5 left)."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial / stride, features)`."""
        h = Layer(self._linear(3, self.stride), self.norm, self.act, name="layer1")(x, train=train)
        second = Layer(self._last(3), self.norm, self.act, multiplier=self.multiplier, name="layer2")
        return second(h, residual=self._shortcut(x, self.features, train=train), train=train)


class _Bottleneck(_Residual):
    """What the blocks of three layers have in common: 1x1, 3x3 with the stride, 1x1.

    Attributes:
      features: number of channels of the block, over `expansion`.
      expansion: output channels over `features`.
      inner: channels of the 3x3 convolution; None for `features`.
      groups: of the 3x3 convolution.
      stride_first: whether the first 1x1 convolution has the stride, as in the papers, in the place of the 3x3.
    """

    expansion: int = 4
    inner: int | None = None
    groups: int = 1
    stride_first: bool = False

    @nn.nowrap
    def _linears(self) -> tuple[ModuleDef, ModuleDef, ModuleDef]:
        inner = self.features if self.inner is None else self.inner
        first, second = (self.stride, 1) if self.stride_first else (1, self.stride)
        return (
            functools.partial(self.conv, inner, 1, first),
            functools.partial(self.conv, inner, 3, second, groups=self.groups),
            self._last(1, features=self.features * self.expansion),
        )


class BottleneckBlock(_Bottleneck):
    """1x1, 3x3 with the stride, 1x1 to `expansion` times the channels, and a shortcut (He et al. 2016, figure 5 right).

    With groups it is the aggregated block of Xie et al. 2017, figure 3c.
    """

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial / stride, features * expansion)`."""
        first, second, third = self._linears()
        h = Layer(first, self.norm, self.act, name="layer1")(x, train=train)
        h = Layer(second, self.norm, self.act, name="layer2")(h, train=train)
        last = Layer(third, self.norm, self.act, multiplier=self.multiplier, name="layer3")
        shortcut = self._shortcut(x, self.features * self.expansion, train=train)
        return last(h, residual=shortcut, train=train)


class _PreActivation(_Residual):
    """What the blocks have in common that activate before they convolve, and leave the identity untouched.

    A projection reads the first activation, which it shares with the branch (He et al. 2016b, appendix).

    Attributes:
      activated: whether the input is activated already: the first layer then has neither norm nor activation.
    """

    activated: bool = False

    @nn.nowrap
    def _first(self, linear: ModuleDef) -> PreActivationLayer:
        norm, act = (None, _IDENTITY) if self.activated else (self.norm, self.act)
        return PreActivationLayer(linear, norm, act, use_bias=self.norm is None, name="layer1")


class PreActivationBlock(_PreActivation):
    """norm - act - conv twice, the identity from block to block untouched (He et al. 2016b, figure 4e).

    Attributes:
      dropout: rate of zeros between the two convolutions in training (Zagoruyko & Komodakis 2016, figure 1d).
    """

    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial / stride, features)`."""
        h, activated = self._first(self._linear(3, self.stride)).with_activated(x, train=train)
        second = PreActivationLayer(
            self._last(3), self.norm, self.act, self.multiplier, dropout=self.dropout, name="layer2"
        )
        h = second(h, train=train)
        shortcut = self._shortcut(x, self.features, activated=activated, train=train)
        return h if shortcut is None else h + shortcut


class PreActivationBottleneckBlock(_Bottleneck, _PreActivation):
    """norm - act - conv three times, 1x1, 3x3 with the stride, 1x1 (He et al. 2016b, section 4)."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial / stride, features * expansion)`."""
        first, second, third = self._linears()
        h, activated = self._first(first).with_activated(x, train=train)
        h = PreActivationLayer(second, self.norm, self.act, name="layer2")(h, train=train)
        h = PreActivationLayer(third, self.norm, self.act, self.multiplier, name="layer3")(h, train=train)
        shortcut = self._shortcut(x, self.features * self.expansion, activated=activated, train=train)
        return h if shortcut is None else h + shortcut
