"""Inverted residual blocks: wide inside, narrow at both ends, and linear where they end.

The shortcut joins two narrow ends of the same shape; blocks that change the shape have none.
"""

import functools

import flax.linen as nn
import jax

from cnnjax import functional as F
from cnnjax.nn.activation import Activation
from cnnjax.nn.blocks import Layer, ModuleDef
from cnnjax.nn.layers import Conv, DepthwiseConv

Rate = float | jax.Array | None


class _Inverted(nn.Module):
    """What the inverted residual blocks have in common.

    Attributes:
      features: number of channels of the output.
      expanded: number of channels inside. Where the input has as many, the layer that expands it is left out.
      window, stride: of the layer with a window.
      skip: whether the input is added where it has the shape of the output; it has no parameters.
      conv, norm, act: make the parts.
      last_conv: makes the convolution whose output stays linear; None for `conv`.
    """

    features: int
    expanded: int
    window: int = 3
    stride: int = 1
    skip: bool = True
    conv: ModuleDef = Conv
    norm: ModuleDef | None = None
    act: ModuleDef = Activation
    last_conv: ModuleDef | None = None

    def _shortcut(self, x: jax.Array) -> jax.Array | None:
        stays = self.stride == 1 and self.features == x.shape[-1]
        return x if self.skip and stays else None

    def _project(self, h: jax.Array, x: jax.Array, rate: Rate, train: bool) -> jax.Array:
        """The linear end of the branch, beside the shortcut from the block's input `x`."""
        conv = self.conv if self.last_conv is None else self.last_conv
        linear = functools.partial(conv, self.features, 1)
        project = Layer(linear, self.norm, functools.partial(Activation, "identity"), name="project")
        shortcut = self._shortcut(x)
        return project(h, residual=shortcut, rate=None if shortcut is None else rate, train=train)


class InvertedResidual(_Inverted):
    """1x1 to `expanded` channels, depthwise, 1x1 to `features` without activation (Sandler et al. 2018, section 3.3).

    Attributes:
      depthwise: makes the depthwise convolution, called as `depthwise(window, stride)`.
      squeeze: makes what scales the channels inside, `SqueezeExcite` (Howard et al. 2019, section 5.3); None for nothing.
    """

    depthwise: ModuleDef = functools.partial(DepthwiseConv, 1)
    squeeze: ModuleDef | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, rate: Rate = None, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial / stride, features)`.

        While training a branch beside a shortcut is dropped with probability `rate`.
        """
        h = x
        if self.expanded != x.shape[-1]:
            expand = functools.partial(self.conv, self.expanded, 1)
            h = Layer(expand, self.norm, self.act, name="expand")(h, train=train)
        depthwise = functools.partial(self.depthwise, self.window, self.stride)
        h = Layer(depthwise, self.norm, self.act, name="depthwise")(h, train=train)
        if self.squeeze is not None:
            h = self.squeeze(name="squeeze")(h)
        return self._project(h, x, rate, train)


class FusedInvertedResidual(_Inverted):
    """A full convolution to `expanded` channels, and 1x1 to `features` without activation (Tan & Le 2021, figure 2).

    Where nothing is expanded it is one convolution to `features` with an activation.
    """

    @nn.compact
    def __call__(self, x: jax.Array, *, rate: Rate = None, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial / stride, features)`, as in `InvertedResidual`."""
        if self.expanded == x.shape[-1]:
            return self._unexpanded(x, rate, train)
        linear = functools.partial(self.conv, self.expanded, self.window, self.stride)
        h = Layer(linear, self.norm, self.act, name="expand")(x, train=train)
        return self._project(h, x, rate, train)

    def _unexpanded(self, x: jax.Array, rate: Rate, train: bool) -> jax.Array:
        linear = functools.partial(self.conv, self.features, self.window, self.stride)
        h = Layer(linear, self.norm, self.act, name="layer")(x, train=train)
        shortcut = self._shortcut(x)
        if shortcut is None:
            return h
        if train and rate is not None:
            h = F.drop_path(h, self.make_rng("dropout"), rate=rate)
        return h + shortcut
