"""Squeeze-and-excitation: channels that scale each other."""

import functools

import flax.linen as nn
import jax

from cnnjax import functional as F
from cnnjax.nn.activation import Activation
from cnnjax.nn.blocks import Layer, ModuleDef
from cnnjax.nn.layers import Conv


class SqueezeExcite(nn.Module):
    """Multiplies each channel by a gate, computed from the means of all channels (Hu et al. 2018, section 3).

    The two dense layers between the means and the gates are 1x1 convolutions with a bias and without norm.

    Attributes:
      features: number of channels between the two.
      conv: makes the convolutions.
      act: makes the activation between the two.
      gate: the activation behind the second, a bounded one. It is part of the design and no option of a model.
    """

    features: int
    conv: ModuleDef = Conv
    act: ModuleDef = Activation
    gate: str | F.Activation = "sigmoid"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> the same shape."""
        means = F.adaptive_avg_pool(x, 1)
        reduce = Layer(functools.partial(self.conv, self.features, 1), None, self.act, name="reduce")
        gate = functools.partial(Activation, self.gate)
        expand = Layer(functools.partial(self.conv, x.shape[-1], 1), None, gate, name="expand")
        return x * expand(reduce(means))
