"""Normalization layers. All are called as `norm(x, train=...)`, so that a block need not know which it holds."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax import functional as F


def _scale_and_bias(module: nn.Module, channels: int) -> tuple[jax.Array, jax.Array]:
    scale = module.param("scale", nn.initializers.ones, (channels,), jnp.float32)
    return scale, module.param("bias", nn.initializers.zeros, (channels,), jnp.float32)


class BatchNorm(nn.Module):
    """`functional.batch_norm` (Ioffe & Szegedy 2015) with running statistics in the collection "batch_stats".

    Attributes:
      momentum: weight of the OLD running value (torch's 0.1 is 0.9 here).
      epsilon: added to the variance.
      axis_name: a named axis to synchronize the statistics over.
      unbiased: whether the running variance is the unbiased one (torch: yes, Flax: no).
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None
    unbiased: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, ..., channels)`."""
        channels = x.shape[-1]
        scale, bias = _scale_and_bias(self, channels)
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        variance = self.variable("batch_stats", "variance", jnp.ones, (channels,), jnp.float32)
        y, statistics = F.batch_norm(
            x,
            mean.value,
            variance.value,
            scale,
            bias,
            train=train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            axis_name=None if self.is_initializing() else self.axis_name,
            unbiased=self.unbiased,
        )
        if train and not self.is_initializing() and self.is_mutable_collection("batch_stats"):
            mean.value, variance.value = statistics
        return y


class GroupNorm(nn.Module):
    """`functional.group_norm` (Wu & He 2018).

    Attributes:
      groups: number of groups; None takes 8, or the greatest divisor that 8 shares with the channels.
      epsilon: added to the variance.
    """

    groups: int | None = None
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, ..., channels)`; `train` changes nothing."""
        groups = math.gcd(8, x.shape[-1]) if self.groups is None else self.groups
        return F.group_norm(x, *_scale_and_bias(self, x.shape[-1]), groups=groups, epsilon=self.epsilon)


class LayerNorm(nn.Module):
    """`functional.layer_norm` over everything but the batch (Ba et al. 2016).

    Attributes:
      epsilon: added to the variance.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, ..., channels)`; `train` changes nothing."""
        return F.layer_norm(x, *_scale_and_bias(self, x.shape[-1]), epsilon=self.epsilon)


class ChannelNorm(nn.Module):
    """`functional.layer_norm` over the channels of each position by itself (Ba et al. 2016, as Liu et al. 2022 use it).

    Attributes:
      epsilon: added to the variance.
    """

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, ..., channels)`; `train` changes nothing."""
        return F.layer_norm(x, *_scale_and_bias(self, x.shape[-1]), axes=-1, epsilon=self.epsilon)


class InstanceNorm(nn.Module):
    """`functional.instance_norm` (Ulyanov et al. 2016).

    Attributes:
      epsilon: added to the variance.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)`; `train` changes nothing."""
        return F.instance_norm(x, *_scale_and_bias(self, x.shape[-1]), epsilon=self.epsilon)


NORMS: Mapping[str, type[nn.Module]] = MappingProxyType(
    {
        "batch": BatchNorm,
        "group": GroupNorm,
        "layer": LayerNorm,
        "channel": ChannelNorm,
        "instance": InstanceNorm,
    }
)
"""The normalizations that a model's option `norm` knows by name; None is none."""
