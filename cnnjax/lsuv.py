"""Layer-sequential unit variance: an initialization that looks at the data."""

from collections.abc import Callable, Hashable, Mapping

import jax
import jax.numpy as jnp


def lsuv(
    forward: Callable[[Mapping, jax.Array], Mapping],
    params: Mapping[Hashable, jax.Array],
    x: jax.Array,
    *,
    tolerance: float = 0.1,
    max_iterations: int = 10,
) -> dict[Hashable, jax.Array]:
    """Scale the kernels until every layer's output has variance 1 (Mishkin & Matas 2016, algorithm 1).

    From the first layer to the last, the kernel is divided by the deviation of its layer's output on the batch
    `x` until the variance is within `tolerance` of 1, at most `max_iterations` times. A layer whose output is
    constant or not finite stays as it is. The paper starts from orthogonal kernels. Runs inside jit and vmap: it
    is one loop around one forward pass.

    Args:
      forward: from (params, x) to a mapping from the kernels' paths to the outputs of their layers, before
        the activation, in execution order. (A dict that comes out of jit is sorted: use an OrderedDict.)
      params: from paths to arrays; those that `forward` does not return, biases for one, stay.
      x: a batch.

    Returns a copy of `params` with the kernels scaled. Raises ValueError if `forward` returns no layer, or one
    that `params` does not hold.
    """
    order = _execution_order(forward, params, x)
    if not order or not set(order) <= set(params):
        raise ValueError(f"forward must return an output for each kernel in {list(params)}, got {order}")

    def scaled(factors: jax.Array) -> dict[Hashable, jax.Array]:
        rows = zip(order, factors, strict=True)
        return {**params, **{path: params[path] * factor.astype(params[path].dtype) for path, factor in rows}}

    def step(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        factors, layer, iteration = state
        outputs = forward(scaled(factors), x)
        variance = jnp.stack([_variance(outputs[path]) for path in order])[layer]
        hopeless = (variance == 0) | ~jnp.isfinite(variance)
        done = (abs(variance - 1) <= tolerance) | hopeless | (iteration >= max_iterations)
        divided = factors.at[layer].divide(jnp.sqrt(variance))
        return (
            jnp.where(done, factors, divided),
            jnp.where(done, layer + 1, layer),
            jnp.where(done, 0, iteration + 1),
        )

    start = (jnp.ones(len(order), jnp.float32), jnp.int32(0), jnp.int32(0))
    factors, _, _ = jax.lax.while_loop(lambda state: state[1] < len(order), step, start)
    return scaled(factors)


def _variance(output: jax.Array) -> jax.Array:
    values = output.astype(jnp.float32)
    # The mean of equal numbers is not exactly that number.
    return jnp.where(values.max() == values.min(), 0, values.var())


def _execution_order(
    forward: Callable[[Mapping, jax.Array], Mapping], params: Mapping[Hashable, jax.Array], x: jax.Array
) -> list[Hashable]:
    order = []
    # Read while tracing: what comes out of a trace has its keys sorted.
    jax.eval_shape(lambda: order.extend(forward(params, x)))
    return order
