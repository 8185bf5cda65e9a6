"""The convolution of normalizer-free networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cnnjax import functional as F
from cnnjax import initializers
from cnnjax.functional.padding import Padding, per_axis
from cnnjax.nn.layers import Sizes, located, operands


class WSConv(nn.Module):
    """`functional.conv` with a kernel standardized in every call (Brock et al. 2021a, section 4.3).

    The weights of an output channel have mean 0 and variance (scale gain)^2 / fan_in, with a learned gain that starts at
    1, whatever the mean and the deviation of the parameter `kernel` (`functional.weight_standardize`).

    Attributes:
      scale: factor on the standardized kernel; `Activation.variance_gain` of the activation in front of it.
      the others: as in `Conv`.
    """

    features: int
    window: Sizes = 3
    stride: Sizes = 1
    padding: Padding = "SAME"
    dilation: Sizes = 1
    groups: int = 1
    scale: float = 1.0
    use_bias: bool = True
    kernel_init: initializers.Choice = initializers.lecun_normal
    bias_init: initializers.Initializer = initializers.zeros()
    dtype: jnp.dtype | None = None
    precision: lax.PrecisionLike = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`x`: `(batch, *spatial, in_channels)` -> `(batch, *output spatial, features)`."""
        with located(self):
            if x.shape[-1] % self.groups:
                raise ValueError(f"{x.shape[-1]} input channels do not divide into {self.groups} groups")
            window = per_axis(self.window, x.ndim - 2, "window")
            shape = (*window, x.shape[-1] // self.groups, self.features)
            x, kernel, bias = operands(self, x, shape, groups=self.groups)
            gain = self.scale * self.param("gain", nn.initializers.ones, (self.features,), jnp.float32)
            return F.conv(
                x,
                F.weight_standardize(kernel, gain=gain),
                bias,
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
                groups=self.groups,
                precision=self.precision,
            )
