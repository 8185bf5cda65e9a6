"""What every model has in common: its options, and the parts they decide."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cnnjax import functional as F
from cnnjax import initializers
from cnnjax.functional.names import lookup
from cnnjax.nn import NORMS, Activation, Conv, Dense, Layer

# A dense kernel has no spatial center: its delta-orthogonal kernel is the (semi-)orthogonal one.
_DENSE_INITIALIZERS = {"delta_orthogonal": "orthogonal"}


class Model(nn.Module, kw_only=True):
    """The options that all models share. `activation`, `initializer` and `norm` reach every layer, the stem too.

    A model maps images `(batch, height, width, channels)` to logits `(batch, num_classes)`.

    Attributes:
      num_classes: number of logits.
      activation: a name in `functional.ACTIVATIONS`, or an `Activation`.
      initializer: of kernels, a name in `initializers.INITIALIZERS` or an initializer; he_* takes its gain from the
        activation. The head is followed by no activation, and its gain is that of the identity.
      gain: a factor on every kernel, on top of the initializer's own; may be a traced number.
      bias_std: deviation of normal initial biases; may be a traced number.
      norm: a name in `nn.NORMS`, a callable that makes a module, or None.
      dtype: of the computation (None: float32 input, float32 computation).
      precision: of products and convolutions, as in `jax.lax`.
    """

    num_classes: int = 10
    activation: str | F.Activation = "relu"
    initializer: str | Callable = "he_normal"
    gain: float | jax.Array = 1.0
    bias_std: float | jax.Array = 0.0
    norm: str | Callable[..., nn.Module] | None = None
    dtype: jnp.dtype | None = None
    precision: lax.PrecisionLike = None

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError for options that no layer could be built from, before anything compiles."""
        F.get_activation(self.activation)
        if isinstance(self.initializer, str):
            lookup(initializers.INITIALIZERS, self.initializer, "initializer")
        if isinstance(self.norm, str):
            lookup(NORMS, self.norm, "norm")
        if self.num_classes < 1:
            raise ValueError(f"num_classes must be 1 or more; got {self.num_classes}")

    @nn.nowrap
    def _kernel_init(self, name: str | Callable, activation: str | F.Activation) -> Callable:
        def factory(*, groups: int = 1) -> initializers.Initializer:
            return initializers.initializer(name, activation=activation, groups=groups, gain=self.gain)

        return factory

    @nn.nowrap
    def _bias_init(self, key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        return jnp.asarray(self.bias_std, dtype) * jax.random.normal(key, shape, dtype)

    @nn.nowrap
    def _shared(self) -> dict[str, Any]:
        return dict(bias_init=self._bias_init, dtype=self.dtype, precision=self.precision)

    @nn.nowrap
    def _conv(self, *sizes: Any, **options: Any) -> Conv:
        """Makes a convolution: `(features, window, stride)` and the options of `Conv`."""
        kernel_init = self._kernel_init(self.initializer, self.activation)
        return Conv(*sizes, kernel_init=kernel_init, **self._shared(), **options)

    @nn.nowrap
    def _dense(self, features: int, *, activation: str | F.Activation | None = None, **options: Any) -> Dense:
        name = self.initializer
        if isinstance(name, str):
            name = _DENSE_INITIALIZERS.get(name, name)
        kernel_init = self._kernel_init(name, self.activation if activation is None else activation)
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
    if not isinstance(depth, int) or depth < least:
        raise ValueError(
            f"depth counts the layers with weights and must be an integer >= {least}; got {depth!r}"
        )


def check_width(width: int) -> None:
    """Raises ValueError unless `width` is a positive integer."""
    if not isinstance(width, int) or width < 1:
        raise ValueError(f"width must be a positive integer; got {width!r}")
