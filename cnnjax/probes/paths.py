"""Effective depth: how many layers the gradient really passes on its way through a network with shortcuts."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax import functional as F
from cnnjax.probes.backward import check_batch, first_gradient
from cnnjax.probes.detour import scale_gradient
from cnnjax.probes.parts import find_parts
from cnnjax.probes.points import execution_order

_STEP = 0.02


def effective_depth(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    labels: jax.Array,
    *,
    loss: Callable[[jax.Array, jax.Array], jax.Array] = F.cross_entropy,
    train: bool = True,
    key: jax.Array | None = None,
    precision: str | None = "highest",
) -> jax.Array:
    """The mean number of kernels on the paths by which the gradient reaches the first layer, weighted by what each brings.

    A residual network is a collection of paths of different lengths, and what reaches the first layers comes along the
    short ones (Veit et al. 2016, section 5: 10 to 34 of 110 layers). With t on the backward pass of every convolution and
    dense layer the gradient at the first layer is g(t) = sum over paths of t^length g_path, so that at t = 1

        d log |g(t)| / d log t = <g, sum of length * g_path> / |g|^2

    is the mean length, each path weighted by its share of the gradient. A network without shortcuts has but one length, the
    number of kernels behind its first activation. Veit et al. sample paths instead; this takes all, by a central difference.

    May be called inside jit and vmap.

    Args:
      model, variables, images, labels, loss, train, key, precision: as in `gradient_flow`.

    Returns:
      `()`, float32; NaN where the gradient at the first layer is zero or not finite.

    Raises:
      ValueError: `variables` lack "params", there are not as many labels as images, or the model has no probe point or no
        kernel.
      TypeError: the images are not floating point.
    """
    check_batch(variables, images, labels)
    rngs = {} if key is None else {"dropout": key}
    stream = {"dropout": jax.random.key(0)}
    parts, lengths = find_parts(model, variables, images, train=train, rngs=stream)
    count = sum(part.kind == "kernel" for part, _ in execution_order(parts, lengths))
    if count == 0:
        raise ValueError(
            f"{type(model).__name__} has no convolution or dense layer whose gradient could be scaled"
        )
    # t^count must not leave the range of float32.
    step = min(_STEP, 1 / count)

    def log_norm(log_t: jax.Array) -> jax.Array:
        def intervene(next_function: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
            y = next_function(*args, **kwargs)
            if context.method_name == "__call__" and context.module.has_variable("params", "kernel"):
                return scale_gradient(y, jnp.exp(log_t))
            return y

        options: dict[str, Any] = dict(intervene=intervene, loss=loss, train=train, rngs=rngs)
        return first_gradient(model, variables, images, labels, **options) / 2

    with jax.default_matmul_precision(precision):
        high, low = jax.lax.map(log_norm, jnp.asarray([step, -step], jnp.float32))
    return (high - low) * jnp.log(10.0) / (2 * step)
