"""Initializers: what each draws, what it preserves, and the paper.

A factory such as `he_normal(activation="tanh", groups=4)` returns a function of `(key, shape, dtype)`, as JAX
and Flax take it. A kernel has shape `(*spatial, in_channels // groups, out_channels)`, without spatial axes for a
dense layer. Keys and gains may be traced, so all of it runs inside jit, vmap and scan.

An initializer that looks at the data, layer-sequential unit variance, is `lsuv`.

Options that the factories share:
  groups: of the convolution; `out_channels` of a depthwise one with a filter for each channel.
  gain: factor on the kernel.
  truncated: draw the normal distribution within two deviations, widened so that its deviation is as stated.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from cnnjax.functional.activation import Activation, get_activation
from cnnjax.functional.names import lookup
from cnnjax.lsuv import lsuv as lsuv

Initializer = Callable[..., jax.Array]
Choice = str | Initializer | Callable[..., Initializer]
"""What `initializer` takes: a name in `INITIALIZERS`, a factory, or an initializer that is already made."""
Gain = float | jax.Array

# sqrt(1 - 4 phi(2) / (2 Phi(2) - 1)): the deviation of a standard normal variable within +-2.
_TRUNCATED_DEVIATION = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))


def fans(shape: Sequence[int], *, groups: int = 1) -> tuple[int, int]:
    """Return (fan_in, fan_out): how many inputs an output sums, and how many outputs an input reaches.

    fan_in = spatial * in_channels // groups and fan_out = spatial * out_channels // groups for a kernel of shape
    `(*spatial, in_channels // groups, out_channels)`, where spatial is the product of those axes.

    Raises ValueError if the shape is no kernel's or its outputs do not divide into groups.
    """
    if len(shape) < 2:
        raise ValueError(
            f"a kernel has shape (*spatial, in_channels // groups, out_channels), got {tuple(shape)}"
        )
    *spatial, group_in, out_channels = shape
    if groups < 1 or out_channels % groups:
        raise ValueError(f"{out_channels} output channels do not divide into {groups} groups")
    taps = math.prod(spatial)
    return taps * group_in, taps * out_channels // groups


def zeros() -> Initializer:
    """All zeros."""
    return constant(0.0)


def constant(value: Gain = 1.0, *, gain: Gain = 1.0) -> Initializer:
    """Every entry gain * value: units that start equal and stay equal."""

    def initialize(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        return jnp.full(shape, value * gain, dtype)

    return initialize


def gaussian(
    sigma_w: Gain = 1.0, *, groups: int = 1, gain: Gain = 1.0, truncated: bool = False
) -> Initializer:
    """Normal of variance (gain sigma_w)^2 / fan_in: the ensemble of mean field theory (Poole et al. 2016).

    With biases of variance sigma_b^2, the pre-activations' second moment q goes from layer to layer as
    sigma_w^2 E[phi(sqrt(q) z)^2] + sigma_b^2.
    """
    sample = _truncated_normal if truncated else jax.random.normal
    return _scaled(sample, lambda fan_in, fan_out: sigma_w / math.sqrt(fan_in), groups, gain)


def lecun_normal(*, groups: int = 1, gain: Gain = 1.0, truncated: bool = False) -> Initializer:
    """Normal of variance gain^2 / fan_in (LeCun et al. 1998, section 4.6).

    Preserves the forward variance of linear layers, and of SELU networks (Klambauer et al. 2017).
    """
    return gaussian(groups=groups, gain=gain, truncated=truncated)


def lecun_uniform(*, groups: int = 1, gain: Gain = 1.0) -> Initializer:
    """As `lecun_normal`, from the uniform distribution of the same variance."""
    return _scaled(_uniform, lambda fan_in, fan_out: 1 / math.sqrt(fan_in), groups, gain)


def he_normal(
    *,
    activation: str | Activation = "relu",
    groups: int = 1,
    gain: Gain = 1.0,
    truncated: bool = False,
) -> Initializer:
    """Normal of variance (gain activation.gain)^2 / fan_in; for ReLU 2 / fan_in (He et al. 2015, equation 10).

    Preserves the second moment of the pre-activations forward when `activation` comes before the layer. It is truncated
    only where asked for; `jax.nn.initializers.he_normal` always is.
    """
    return lecun_normal(groups=groups, gain=gain * get_activation(activation).gain, truncated=truncated)


def he_uniform(*, activation: str | Activation = "relu", groups: int = 1, gain: Gain = 1.0) -> Initializer:
    """As `he_normal`, from the uniform distribution of the same variance."""
    return lecun_uniform(groups=groups, gain=gain * get_activation(activation).gain)


def xavier_normal(*, groups: int = 1, gain: Gain = 1.0, truncated: bool = False) -> Initializer:
    """Normal of variance 2 gain^2 / (fan_in + fan_out) (Glorot & Bengio 2010, equation 12).

    A compromise between the variance forward (1 / fan_in) and backward (1 / fan_out) where the network is
    linear, as tanh is near 0; both hold if the fans are equal.
    """
    return _scaled(_truncated_normal if truncated else jax.random.normal, _xavier_deviation, groups, gain)


def xavier_uniform(*, groups: int = 1, gain: Gain = 1.0) -> Initializer:
    """Uniform in +-gain sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, equation 16), see `xavier_normal`."""
    return _scaled(_uniform, _xavier_deviation, groups, gain)


def orthogonal(*, groups: int = 1, gain: Gain = 1.0) -> Initializer:
    """gain times a random (semi-)orthogonal matrix (fan_in, out_channels), for each group (Saxe et al. 2014).

    With fan_in <= out_channels the rows are orthonormal and |x W| = gain |x| for a patch x; with fan_in >
    out_channels the columns are: |W y| = gain |y| backward, and forward a white x keeps its second moment
    times gain^2. A kernel with spatial axes is no orthogonal map of images: `delta_orthogonal` is.
    """

    def initialize(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        fan_in, _ = fans(shape, groups=groups)
        return _orthogonal_matrix(key, fan_in, shape[-1], groups, gain, dtype).reshape(shape)

    return initialize


def delta_orthogonal(*, groups: int = 1, gain: Gain = 1.0) -> Initializer:
    """A kernel that is 0 but for its center, an orthogonal matrix (Xiao et al. 2018, algorithm 2).

    Preserves the norm, |conv(x)| = gain |x|, at stride 1 with SAME or CIRCULAR padding: all singular values of
    the convolution are `gain`. A dense kernel has no center and gets `orthogonal`.

    Raises ValueError if a convolution has fewer outputs than inputs (in a group).
    """

    def initialize(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        fans(shape, groups=groups)
        *spatial, group_in, out_channels = shape
        if spatial and out_channels // groups < group_in:
            raise ValueError(
                f"delta_orthogonal needs at least as many outputs as inputs, got {group_in} inputs and "
                f"{out_channels // groups} outputs a group (kernel {tuple(shape)}): widen the layer or use "
                "orthogonal"
            )
        matrix = _orthogonal_matrix(key, group_in, out_channels, groups, gain, dtype)
        # SAME padding has (size - 1) // 2 entries at the low end.
        center = tuple((size - 1) // 2 for size in spatial)
        return jnp.zeros(shape, dtype).at[center].set(matrix)

    return initialize


INITIALIZERS: Mapping[str, Callable[..., Initializer]] = MappingProxyType(
    {
        factory.__name__: factory
        for factory in (
            xavier_normal,
            xavier_uniform,
            he_normal,
            he_uniform,
            lecun_normal,
            lecun_uniform,
            orthogonal,
            delta_orthogonal,
            gaussian,
            constant,
            zeros,
        )
    }
)


def initializer(
    choice: Choice,
    *,
    activation: str | Activation = "relu",
    groups: int = 1,
    gain: Gain = 1.0,
    truncated: bool = False,
) -> Initializer:
    """Return the initializer of a choice, each of its kernels multiplied by `gain`.

    A choice is a name in `INITIALIZERS`; a factory such as `he_normal`, `partial(he_normal, truncated=True)` or
    `jax.nn.initializers.he_normal`; or an initializer that is already made, such as `he_normal()`, or
    `jax.nn.initializers.ones`. What takes an argument without a default by position, the key, is an initializer; what can
    be called without is a factory. A factory is given those of `activation`, `groups` and `truncated` that it names; what a
    `functools.partial` has decided stays.

    Raises ValueError for an unknown name (with the nearest one) and for `truncated` where it is no option, TypeError
    for what is no choice.
    """
    maker: Callable[..., Any] = choice if callable(choice) else lookup(INITIALIZERS, choice, "initializer")
    names = inspect.signature(maker).parameters
    if truncated and "truncated" not in names:
        able = [name for name, factory in INITIALIZERS.items() if _takes_truncated(factory)]
        raise ValueError(
            f"truncated is no option of the initializer {choice!r}: use one of {', '.join(able)}"
        )
    if _takes_key(names.values()):
        return _multiplied(maker, gain)
    decided = getattr(maker, "keywords", {})
    options = {"activation": activation, "groups": groups, "truncated": truncated, **decided}
    made: Initializer = maker(**{name: value for name, value in options.items() if name in names})
    if not callable(made):
        raise TypeError(
            f"a factory must return a function of (key, shape, dtype); {choice!r} returned {made!r}: "
            "use a name, a factory of cnnjax.initializers, or an initializer"
        )
    return _multiplied(made, gain)


class BranchScale(NamedTuple):
    """How a residual branch starts.

    Attributes:
      multiplier: where the learned number starts that the branch is multiplied by.
      kernels: factor on its kernels but the last.
      last_kernel: factor on the last one.
    """

    multiplier: float = 1.0
    kernels: float = 1.0
    last_kernel: float = 1.0


def fixup_scale(num_blocks: int, layers_per_block: int) -> BranchScale:
    """Kernels times L^(-1 / (2 m - 2)), L blocks of m layers, and the last one 0 (Zhang et al. 2019).

    An update then changes the network's function by an amount that does not depend on depth. The paper starts the
    classifier at zero, too, which is left to the model.

    Raises ValueError for fewer than two layers: the only kernel is that zero one.
    """
    if layers_per_block < 2:
        raise ValueError(f"fixup needs at least 2 layers in a residual branch, got {layers_per_block}")
    return BranchScale(kernels=num_blocks ** (-1 / (2 * layers_per_block - 2)), last_kernel=0.0)


def zero_scale(num_blocks: int, layers_per_block: int) -> BranchScale:
    """A multiplier of 0: a block starts as its skip (SkipInit, De & Smith 2020; ReZero, Bachlechner et al. 2021)."""
    return BranchScale(multiplier=0.0)


def inverse_sqrt_scale(num_blocks: int, layers_per_block: int) -> BranchScale:
    """A multiplier of 1 / sqrt(L) (Hayou et al. 2021, Stable ResNet, uniform scaling).

    With branches that preserve the variance it grows by (1 + 1 / L)^L < e through all L blocks.
    """
    return BranchScale(multiplier=1 / math.sqrt(num_blocks))


RESIDUAL_SCALES: Mapping[str, Callable[[int, int], BranchScale]] = MappingProxyType(
    {
        "fixup": fixup_scale,
        "skipinit": zero_scale,
        "rezero": zero_scale,
        "inverse_sqrt": inverse_sqrt_scale,
    }
)
"""(num_blocks, layers_per_block) -> how each residual branch starts, by name."""


def _takes_key(parameters: Iterable[inspect.Parameter]) -> bool:
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(
        p.kind == p.VAR_POSITIONAL or (p.kind in by_position and p.default is p.empty) for p in parameters
    )


def _takes_truncated(factory: Callable[..., Initializer]) -> bool:
    return "truncated" in inspect.signature(factory).parameters


def _multiplied(initialize: Initializer, gain: Gain) -> Initializer:
    def scaled(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        wide = _wide(dtype)
        return (jnp.asarray(gain, wide) * initialize(key, shape, wide)).astype(dtype)

    return scaled


def _scaled(
    sample: Callable[..., jax.Array], deviation: Callable[[int, int], Gain], groups: int, gain: Gain
) -> Initializer:
    """Draw from `sample`, whose deviation is 1, and scale to gain * deviation(fan_in, fan_out)."""

    def initialize(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        wide = _wide(dtype)
        scale = jnp.asarray(gain * deviation(*fans(shape, groups=groups)), wide)
        return (scale * sample(key, shape, wide)).astype(dtype)

    return initialize


def _xavier_deviation(fan_in: int, fan_out: int) -> float:
    return math.sqrt(2 / (fan_in + fan_out))


def _truncated_normal(key: jax.Array, shape: Sequence[int], dtype: DTypeLike) -> jax.Array:
    return jax.random.truncated_normal(key, -2, 2, shape, dtype) / _TRUNCATED_DEVIATION


def _uniform(key: jax.Array, shape: Sequence[int], dtype: DTypeLike) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -math.sqrt(3), math.sqrt(3))


def _orthogonal_matrix(
    key: jax.Array, n_in: int, n_out: int, groups: int, gain: Gain, dtype: DTypeLike
) -> jax.Array:
    """An orthogonal (n_in, n_out // groups) matrix for each group, side by side: (n_in, n_out)."""
    wide = _wide(dtype)
    blocks = jax.random.orthogonal(key, n_in, (groups,), wide, n_out // groups)
    matrix = jnp.moveaxis(blocks, 0, 1).reshape(n_in, n_out)
    return (jnp.asarray(gain, wide) * matrix).astype(dtype)


def _wide(dtype: DTypeLike) -> DTypeLike:
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else jnp.dtype(dtype)
