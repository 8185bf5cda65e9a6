"""What every model has in common: its options, and the parts they decide."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeGuard

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax import functional as F
from cnnjax import initializers
from cnnjax.functional.names import lookup
from cnnjax.functional.padding import Padding, resolve_padding
from cnnjax.nn import NORMS, Activation, Conv, Dense, DepthwiseConv, Layer


class Model(nn.Module, kw_only=True):
    """The options that all models share. `activation`, `initializer` and `norm` reach every layer, the stem too.

    A model maps images `(batch, height, width, channels)` to logits `(batch, num_classes)`.

    Attributes:
      num_classes: number of logits.
      activation: a name in `functional.ACTIVATIONS`, or an `Activation`.
      initializer: of kernels, a name, a factory or an initializer, as in `initializers.initializer`; he_* takes its gain
        from the activation. The head is followed by no activation, and its gain is that of the identity.
      gain: a factor on every kernel, on top of the initializer's own; may be a traced number.
      bias_std: deviation of normal initial biases; may be a traced number.
      norm: a name in `nn.NORMS`, a callable that makes a module, or None.
      norm_epsilon: what a norm given by name adds to the variance.
      norm_momentum: weight of the OLD running statistics of batch norm given by name (torch's 0.1 is 0.9 here).
      dtype: of the computation (None: float32 input, float32 computation).
      precision: of products and convolutions, as in `jax.lax`.
    """

    num_classes: int = 10
    activation: str | F.Activation = "relu"
    initializer: initializers.Choice = "he_normal"
    gain: float | jax.Array = 1.0
    bias_std: float | jax.Array = 0.0
    norm: str | Callable[..., nn.Module] | None = None
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.9
    dtype: jnp.dtype | None = None
    precision: lax.PrecisionLike = None

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that no layer could be built from, before anything compiles."""
        for field in dataclasses.fields(self):
            _check_like(field.name, getattr(self, field.name), field.default)
        for activation in self._activations():
            F.get_activation(activation)
            initializers.initializer(self.initializer, activation=activation)
        if self.norm is not None and not callable(self.norm):
            lookup(NORMS, self.norm, "norm")
        if self.dtype is not None:
            _check_dtype(self.dtype)

    @nn.nowrap
    def calibrated(self, variables: Mapping[str, Any], images: jax.Array) -> Mapping[str, Any]:
        """The variables, fitted to training images where the model's initialization looks at data.

        Args:
          variables: of `init`, before the first step.
          images: `(batch, height, width, channels)`, normalized as in training.
        """
        return variables

    @nn.nowrap
    def _activations(self) -> Sequence[str | F.Activation]:
        """Those that the layers have."""
        return (self.activation,)

    @nn.nowrap
    def _kernel_init(
        self, activation: str | F.Activation | None = None, *, factor: float = 1.0
    ) -> Callable[..., initializers.Initializer]:
        """With the gain of `activation`, by default the model's, which belongs behind the kernel."""
        activation = self.activation if activation is None else activation
        chosen = functools.partial(initializers.initializer, self.initializer)
        return functools.partial(chosen, activation=activation, gain=self.gain * factor)

    @nn.nowrap
    def _bias_init(self, key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        # A draw takes a while to compile.
        if isinstance(self.bias_std, int | float) and self.bias_std == 0:
            return jnp.zeros(shape, dtype)
        return jnp.asarray(self.bias_std, dtype) * jax.random.normal(key, shape, dtype)

    @nn.nowrap
    def _shared(self) -> dict[str, Any]:
        return dict(bias_init=self._bias_init, dtype=self.dtype, precision=self.precision)

    @nn.nowrap
    def _conv(
        self,
        *sizes: Any,
        factor: float = 1.0,
        activation: str | F.Activation | None = None,
        **options: Any,
    ) -> Conv:
        """Makes a convolution: `(features, window, stride)`, a factor on its kernel, the activation behind it where it is
        not the model's, and the options of `Conv`."""
        kernel_init = self._kernel_init(activation, factor=factor)
        return Conv(*sizes, kernel_init=kernel_init, **self._shared(), **options)

    @nn.nowrap
    def _symmetric_conv(
        self, features: int, window: int = 3, stride: int = 1, *, dilation: int = 1, **options: Any
    ) -> Conv:
        """`_conv` with as much padding in front as behind, as papers before TensorFlow and torchvision have it.

        It differs from "SAME" where a stride of 2 meets an even size.
        """
        padding = dilation * (window - 1) // 2
        return self._conv(features, window, stride, padding=padding, dilation=dilation, **options)

    @nn.nowrap
    def _depthwise(
        self, window: int, stride: int = 1, *, activation: str | F.Activation | None = None, **options: Any
    ) -> DepthwiseConv:
        """A filter for each channel, padded as in `_symmetric_conv`."""
        kernel_init = self._kernel_init(activation)
        padding = (window - 1) // 2
        return DepthwiseConv(
            1, window, stride, padding=padding, kernel_init=kernel_init, **self._shared(), **options
        )

    @nn.nowrap
    def _dense(self, features: int, *, activation: str | F.Activation | None = None, **options: Any) -> Dense:
        return Dense(features, kernel_init=self._kernel_init(activation), **self._shared(), **options)

    @nn.nowrap
    def _act(self, **options: Any) -> Activation:
        return Activation(self.activation, **options)

    @nn.nowrap
    def _act_of(self, activation: str | F.Activation | None) -> Callable[..., Activation]:
        return self._act if activation is None else functools.partial(Activation, activation)

    @nn.nowrap
    def _norm(self) -> Callable[..., nn.Module] | None:
        if not isinstance(self.norm, str):
            return self.norm
        momentum = dict(momentum=self.norm_momentum) if self.norm == "batch" else {}
        return functools.partial(NORMS[self.norm], epsilon=self.norm_epsilon, **momentum)

    @nn.nowrap
    def _conv_layer(self, *sizes: Any, name: str, **options: Any) -> Layer:
        """A convolution with the model's norm, and its activation where the options of `_conv` name no other."""
        linear = functools.partial(self._conv, *sizes, **options)
        return Layer(linear, self._norm(), self._act_of(options.get("activation")), name=name)

    @nn.nowrap
    def _dense_layer(self, features: int, *, name: str | None = None) -> Layer:
        return Layer(functools.partial(self._dense, features), self._norm(), self._act, name=name)

    @nn.nowrap
    def _head_layer(self, *, name: str = "head") -> Layer:
        """Makes a dense layer to the classes: without norm, followed by the identity."""
        linear = functools.partial(self._dense, self.num_classes, activation="identity")
        return Layer(linear, None, functools.partial(Activation, "identity"), name=name)

    def _head(self, x: jax.Array) -> jax.Array:
        """The logits of features `(batch, features)`."""
        return self._head_layer()(x).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Variant:
    """A model that has a name: a row of the table at the end of its file.

    Attributes:
      family: its class.
      options: those that make this variant, in the place of the class's defaults.
      image: shape of one input, as in the paper, `(*spatial, channels)`.
      paper: authors, year and identifier.
      dtype: of its inputs.
    """

    family: type[Model]
    options: Mapping[str, Any]
    _: dataclasses.KW_ONLY
    image: tuple[int, ...]
    paper: str
    dtype: str = "float32"


def flatten(x: jax.Array) -> jax.Array:
    """`(batch, ...)` -> `(batch, features)`."""
    return x.reshape(x.shape[0], -1)


def check_depth(depth: int, *, least: int) -> None:
    """Raises ValueError unless `depth` is an integer of `least` or more."""
    if not is_integer(depth) or depth < least:
        raise ValueError(
            f"depth counts the layers with weights and must be an integer >= {least}; got {depth!r}"
        )


def check_padding(padding: Padding) -> None:
    """Raises ValueError or TypeError for a padding that suits images of no rank."""
    ones = (1,) * (len(padding) if isinstance(padding, Sequence) and not isinstance(padding, str) else 1)
    resolve_padding(padding, ones, ones, stride=ones, dilation=ones)


def check_rate(name: str, rate: float) -> None:
    """Raises TypeError or ValueError unless `rate`, a probability of dropping, is a number in [0, 1)."""
    if not isinstance(rate, Real) or isinstance(rate, bool):
        raise TypeError(f"{name} must be a number in [0, 1); got {rate!r}")
    if not 0 <= rate < 1:
        raise ValueError(f"{name} is a probability of dropping and must lie in [0, 1); got {rate!r}")


def check_choice(name: str, choice: str, known: Iterable[str]) -> None:
    """Raises TypeError or ValueError unless `choice` is one of the known values of the option `name`."""
    lookup(dict.fromkeys(known), choice, name)


def is_integer(value: object) -> TypeGuard[int]:
    """Whether `value` is an integer, NumPy's included; a bool is none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_like(name: str, value: object, default: object) -> None:
    """Raises unless `value` is a bool, a positive integer or a tuple of these, where the default is one."""
    if isinstance(default, bool) and not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False; got {value!r}")
    if is_integer(default) and not (is_integer(value) and value > 0):
        raise ValueError(f"{name} must be a positive integer; got {value!r}")
    if isinstance(default, tuple) and all(map(is_integer, default)) and not _are_counts(value):
        raise ValueError(f"{name} must be a tuple of positive integers such as {default}; got {value!r}")


def _are_counts(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(is_integer(v) and v > 0 for v in value)


def _check_dtype(dtype: Any) -> None:
    try:
        floating = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise TypeError(
            f"dtype must be a floating-point type such as jnp.bfloat16, or None for the input's; got {dtype!r}"
        )
