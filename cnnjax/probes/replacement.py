"""What attribution does to the backward pass of each part, as interceptors of Flax's calls of modules.

Nothing of `cnnjax.nn` knows of it. Switches, factors and isometries are variables in collections of their own, under the
path of the part, so that a scanned stack runs over them as it does over its parameters.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax import functional as F
from cnnjax.nn import NORMS, Activation, BatchNorm, ChannelNorm, GroupNorm, InstanceNorm, Layer
from cnnjax.probes.detour import detour, enter, leave, scale_gradient
from cnnjax.probes.parts import PRE_ACTIVATION_BLOCKS, Kind, variable

SWITCHES = "replacement_switches"
"""The collection of switches, 0 or 1, one for each part."""
FACTORS = "replacement_factors"
"""The collection of factors, one for each part but the skips."""
ISOMETRIES = "replacement_isometries"
"""The collection of matrices `(in_channels, out_channels)` with orthonormal columns."""
MEASURED = "replacement_measured"
"""The collection that `measuring` writes: log10 of the factors by which activations and norms scale their signal."""

_NORMS = tuple(NORMS.values())


def measuring(next_function: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
    """Writes down log10(|output| / |input|), root mean squares, of every activation and norm."""
    y, module = next_function(*args, **kwargs), context.module
    if context.method_name == "__call__" and isinstance(module, (Activation, *_NORMS)):
        before, after = F.moments(args[0]), F.moments(y)
        ratio = (after.log10_second_moment - before.log10_second_moment) / 2
        module.put_variable(MEASURED, variable("norm" if isinstance(module, _NORMS) else "activation"), ratio)
    return y


def replacing(next_function: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
    """Replaces the backward pass of each part whose switch is on."""
    module = context.module
    if context.method_name == "_shortcut" and isinstance(module, PRE_ACTIVATION_BLOCKS):
        return _cut(module, next_function(*args, **kwargs))
    if context.method_name != "__call__":
        return next_function(*args, **kwargs)
    if isinstance(module, Layer):
        return next_function(*args, **{**kwargs, "residual": _cut(module, kwargs.get("residual"))})
    if module.has_variable(SWITCHES, variable("kernel")):
        return _kernel(module, lambda x: next_function(x, *args[1:], **kwargs), args[0])
    y = next_function(*args, **kwargs)
    if module.has_variable(SWITCHES, variable("statistics")):
        frozen = args[0] * jax.lax.stop_gradient(_frozen_slope(module, args[0])).astype(y.dtype)
        y = detour(y, frozen, module.get_variable(SWITCHES, variable("statistics")))
    kinds: tuple[Kind, ...] = ("activation", "norm")
    for kind in kinds:
        if module.has_variable(SWITCHES, variable(kind)):
            factor = module.get_variable(FACTORS, variable(kind)).astype(y.dtype)
            y = detour(y, factor * args[0], module.get_variable(SWITCHES, variable(kind)))
    return y


def _cut(module: nn.Module, shortcut: jax.Array | None) -> jax.Array | None:
    if shortcut is None or not module.has_variable(SWITCHES, variable("skip")):
        return shortcut
    return scale_gradient(shortcut, 1 - module.get_variable(SWITCHES, variable("skip")))


def _kernel(module: nn.Module, function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    taken, gain = (
        module.get_variable(SWITCHES, variable("kernel")),
        module.get_variable(FACTORS, variable("kernel")),
    )
    if module.has_variable(ISOMETRIES, variable("kernel")):
        matrix = module.get_variable(ISOMETRIES, variable("kernel"))
        y = function(x)
        return detour(y, x.astype(y.dtype) @ (gain * matrix).astype(y.dtype), taken)
    x, token = enter(x, gain, taken)
    return leave(function(x), token)


def _frozen_slope(norm: Any, x: jax.Array) -> jax.Array:
    """d y / d x of a norm whose mean and variance are constants: scale / sqrt(variance + epsilon)."""
    channels = x.shape[-1]
    groups = channels
    if isinstance(norm, GroupNorm):
        groups = math.gcd(8, channels) if norm.groups is None else norm.groups
    elif not isinstance(norm, (BatchNorm, InstanceNorm)):
        groups = 1
    grouped = x.astype(jnp.float32).reshape(*x.shape[:-1], groups, channels // groups)
    batch = (0,) if isinstance(norm, BatchNorm) else ()
    positions = () if isinstance(norm, ChannelNorm) else range(1, x.ndim - 1)
    axes = (*batch, *positions, x.ndim)
    variance = jnp.broadcast_to(jnp.var(grouped, axes, keepdims=True), grouped.shape).reshape(x.shape)
    scale = norm.get_variable("params", "scale").reshape((1,) * (x.ndim - 1) + (channels,))
    return scale * jax.lax.rsqrt(variance + norm.epsilon)
