"""Layers that own parameters and call a function of `cnnjax.functional`.

`dtype` is the type of the computation (None: that of the input, which must be floating point); parameters are float32.
`kernel_init` is any choice that `initializers.initializer` takes: a name, a factory such as `xavier_normal` or
`partial(he_normal, activation="tanh")`, which is told the layer's number of groups, or an initializer.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cnnjax import functional as F
from cnnjax import initializers
from cnnjax.functional.padding import Padding, per_axis

Sizes = int | Sequence[int]


@contextlib.contextmanager
def located(layer: nn.Module) -> Iterator[None]:
    """Errors of a function say in which layer it was called."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"in layer {'/'.join(layer.path) or type(layer).__name__}: {error}") from None


def operands(
    layer: Any, x: jax.Array, shape: tuple[int, ...], *, groups: int = 1
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """`x`, and the kernel of that shape and the bias that `layer` owns, in the type of its computation.

    Raises:
      TypeError: that type is not decided: `x` is not floating point and `layer.dtype` is None.
      ValueError: the layer has a kernel already, of another shape.
    """
    dtype = x.dtype if layer.dtype is None else layer.dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"the input of {type(layer).__name__} must be floating point; got {x.dtype} with dtype={layer.dtype}: use "
            "x.astype(jnp.float32) / 255, or cnnjax.data.normalize"
        )
    if layer.has_variable("params", "kernel"):
        made = layer.get_variable("params", "kernel").shape
        if made != shape:
            raise ValueError(
                f"its kernel has shape {made}, and an input of {x.shape[-1]} channels takes {shape}: these variables were "
                "made for images of another number of channels or another size"
            )
    kernel_init = initializers.initializer(layer.kernel_init, groups=groups)
    kernel = layer.param("kernel", kernel_init, shape, jnp.float32).astype(dtype)
    if not layer.use_bias:
        return x.astype(dtype), kernel, None
    return (
        x.astype(dtype),
        kernel,
        layer.param("bias", layer.bias_init, shape[-1:], jnp.float32).astype(dtype),
    )


class Dense(nn.Module):
    """x @ kernel + bias over the last axis.

    Attributes:
      features: number of outputs.
      use_bias: whether to add a bias.
      kernel_init: a name, a factory or an initializer, as in `initializers.initializer`.
      bias_init: an initializer.
      dtype: of the computation.
      precision: of the product.
    """

    features: int
    use_bias: bool = True
    kernel_init: initializers.Choice = initializers.lecun_normal
    bias_init: initializers.Initializer = initializers.zeros()
    dtype: jnp.dtype | None = None
    precision: lax.PrecisionLike = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`x`: `(..., in_features)` -> `(..., features)`."""
        with located(self):
            x, kernel, bias = operands(self, x, (x.shape[-1], self.features))
        y = jnp.matmul(x, kernel, precision=self.precision)
        return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


class Conv(nn.Module):
    """`functional.conv` with a kernel and a bias of its own.

    Attributes:
      features: number of output channels.
      window: size of the kernel, one for all spatial axes or one for each; the input's rank says how many there are.
      stride, padding, dilation, groups, precision: as in `functional.conv`.
      use_bias, kernel_init, bias_init, dtype: as in `Dense`.
    """

    features: int
    window: Sizes = 3
    stride: Sizes = 1
    padding: Padding = "SAME"
    dilation: Sizes = 1
    groups: int = 1
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
            return F.conv(
                *operands(self, x, shape, groups=self.groups),
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
                groups=self.groups,
                precision=self.precision,
            )


class DepthwiseConv(nn.Module):
    """`multiplier` filters for each channel: `Conv` with as many groups as input channels.

    Attributes: those of `Conv`, with `multiplier` in the place of `features` and `groups`.
    """

    multiplier: int = 1
    window: Sizes = 3
    stride: Sizes = 1
    padding: Padding = "SAME"
    dilation: Sizes = 1
    use_bias: bool = True
    kernel_init: initializers.Choice = initializers.lecun_normal
    bias_init: initializers.Initializer = initializers.zeros()
    dtype: jnp.dtype | None = None
    precision: lax.PrecisionLike = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *output spatial, channels * multiplier)`."""
        channels = x.shape[-1]
        with located(self):
            shape = (*per_axis(self.window, x.ndim - 2, "window"), 1, channels * self.multiplier)
            return F.depthwise_conv(
                *operands(self, x, shape, groups=channels),
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
                precision=self.precision,
            )


class SeparableConv(nn.Module):
    """A `DepthwiseConv` without bias, then a 1x1 `Conv` that mixes the channels.

    Attributes: those of `Conv` but `groups`, and `multiplier`, the filters for each channel of the depthwise part.
    """

    features: int
    window: Sizes = 3
    stride: Sizes = 1
    padding: Padding = "SAME"
    dilation: Sizes = 1
    multiplier: int = 1
    use_bias: bool = True
    kernel_init: initializers.Choice = initializers.lecun_normal
    bias_init: initializers.Initializer = initializers.zeros()
    dtype: jnp.dtype | None = None
    precision: lax.PrecisionLike = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`x`: `(batch, *spatial, in_channels)` -> `(batch, *output spatial, features)`."""
        shared: dict[str, Any] = dict(
            kernel_init=self.kernel_init, dtype=self.dtype, precision=self.precision
        )
        depthwise = DepthwiseConv(
            self.multiplier, self.window, self.stride, self.padding, self.dilation, use_bias=False, **shared
        )
        pointwise = Conv(self.features, 1, use_bias=self.use_bias, bias_init=self.bias_init, **shared)
        return pointwise(depthwise(x))


class ConvTranspose(nn.Module):
    """`functional.conv_transpose` with a kernel and a bias of its own.

    Attributes: those of `Conv` but `groups`; `stride` is the factor of upsampling.
    """

    features: int
    window: Sizes = 2
    stride: Sizes = 2
    padding: Padding = "SAME"
    dilation: Sizes = 1
    use_bias: bool = True
    kernel_init: initializers.Choice = initializers.lecun_normal
    bias_init: initializers.Initializer = initializers.zeros()
    dtype: jnp.dtype | None = None
    precision: lax.PrecisionLike = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`x`: `(batch, *spatial, in_channels)` -> `(batch, *upsampled spatial, features)`."""
        with located(self):
            shape = (*per_axis(self.window, x.ndim - 2, "window"), x.shape[-1], self.features)
            return F.conv_transpose(
                *operands(self, x, shape),
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
                precision=self.precision,
            )


class Pool(nn.Module):
    """A pooling with a name of its own, for errors and for `probes.features`; it has no parameters.

    Attributes:
      window, stride, padding: as in `functional.max_pool`.
      ceil: whether a last window that reaches over the end counts (see `functional.ceil_padding`); `padding` is an int then.
      function: `functional.max_pool`, `avg_pool` or `lp_pool`.
    """

    window: Sizes
    stride: Sizes | None = None
    padding: Padding = "VALID"
    ceil: bool = False
    function: Callable[..., jax.Array] = F.max_pool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *output spatial, channels)`."""
        stride = self.window if self.stride is None else self.stride
        with located(self):
            padding = self.padding
            if self.ceil:
                amount = padding if isinstance(padding, int) else 0
                padding = F.ceil_padding(x.shape[1:-1], self.window, stride=stride, padding=amount)
            return self.function(x, self.window, stride=stride, padding=padding)


class Dropout(nn.Module):
    """Sets entries to zero with probability `rate` while training and scales the rest by 1 / (1 - rate).

    The key comes from the random stream "dropout".

    Attributes:
      rate: probability of a zero.
      function: `functional.dropout`, `dropout_channels` (whole maps) or `drop_path` (whole examples).
    """

    rate: float
    function: Callable[..., jax.Array] = F.dropout

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, ..., channels)`; returns `x` itself unless `train`."""
        if not train or self.rate == 0:
            return x
        return self.function(x, self.make_rng("dropout"), rate=self.rate)
