"""What every model has in common: its options, and the parts they decide."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from numbers import Integral
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
from cnnjax.nn import NORMS, Activation, Conv, Dense, Layer


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
      dtype: of the computation (None: float32 input, float32 computation).
      precision: of products and convolutions, as in `jax.lax`.
    """

    num_classes: int = 10
    activation: str | F.Activation = "relu"
    initializer: initializers.Choice = "he_normal"
    gain: float | jax.Array = 1.0
    bias_std: float | jax.Array = 0.0
    norm: str | Callable[..., nn.Module] | None = None
    dtype: jnp.dtype | None = None
    precision: lax.PrecisionLike = None

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that no layer could be built from, before anything compiles."""
        for field in dataclasses.fields(self):
            _check_like(field.name, getattr(self, field.name), field.default)
        F.get_activation(self.activation)
        initializers.initializer(self.initializer, activation=self.activation)
        if self.norm is not None and not callable(self.norm):
            lookup(NORMS, self.norm, "norm")
        if self.dtype is not None:
            _check_dtype(self.dtype)

    @nn.nowrap
    def _kernel_init(
        self, activation: str | F.Activation, *, factor: float = 1.0
    ) -> Callable[..., initializers.Initializer]:
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
    def _conv(self, *sizes: Any, factor: float = 1.0, **options: Any) -> Conv:
        """Makes a convolution: `(features, window, stride)`, a factor on its kernel, and the options of `Conv`."""
        kernel_init = self._kernel_init(self.activation, factor=factor)
        return Conv(*sizes, kernel_init=kernel_init, **self._shared(), **options)

    @nn.nowrap
    def _dense(self, features: int, *, activation: str | F.Activation | None = None, **options: Any) -> Dense:
        kernel_init = self._kernel_init(self.activation if activation is None else activation)
        return Dense(features, kernel_init=kernel_init, **self._shared(), **options)

    @nn.nowrap
    def _act(self, **options: Any) -> Activation:
        return Activation(self.activation, **options)

    @nn.nowrap
    def _norm(self) -> Callable[..., nn.Module] | None:
        return NORMS[self.norm] if isinstance(self.norm, str) else self.norm

    @nn.nowrap
    def _conv_layer(self, *sizes: Any, name: str, **options: Any) -> Layer:
        """A convolution with the model's norm and activation."""
        linear = functools.partial(self._conv, *sizes, **options)
        return Layer(linear, self._norm(), self._act, name=name)

    @nn.nowrap
    def _dense_layer(self, features: int, *, name: str | None = None) -> Layer:
        return Layer(functools.partial(self._dense, features), self._norm(), self._act, name=name)

    def _head(self, x: jax.Array) -> jax.Array:
        """The logits of features `(batch, features)`: a layer without norm, followed by the identity."""
        linear = functools.partial(self._dense, self.num_classes, activation="identity")
        head = Layer(linear, None, functools.partial(Activation, "identity"), name="head")
        return head(x).astype(jnp.float32)


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


def is_integer(value: object) -> TypeGuard[int]:
    """Whether `value` is an integer, NumPy's included; a bool is none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_like(name: str, value: object, default: object) -> None:
    """Raises unless `value` is a bool, or a positive integer, where the default is one."""
    if isinstance(default, bool) and not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False; got {value!r}")
    if is_integer(default) and not (is_integer(value) and value > 0):
        raise ValueError(f"{name} must be a positive integer; got {value!r}")


def _check_dtype(dtype: Any) -> None:
    try:
        floating = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise TypeError(
            f"dtype must be a floating-point type such as jnp.bfloat16, or None for the input's; got {dtype!r}"
        )
