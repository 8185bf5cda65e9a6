"""Muon, and kernels that keep their norm."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers
from optax.contrib import muon as optax_muon

from cnnjax.functional.names import lookup


def muon(
    *,
    beta: float = 0.95,
    ns_steps: int = 5,
    nesterov: bool = True,
    rest: Literal["adam", "sgd"] = "adam",
    momentum: float = 0.9,
) -> optax.GradientTransformation:
    """Steps of kernels whose singular values are all near 1 (Jordan et al. 2024): optax's, as a direction of ascent.

    A kernel is a matrix from all inputs to the outputs; everything else, and the head, goes by `rest`.

    airbench94_muon.py (Jordan 2024) has beta=0.6, ns_steps=3, rest="sgd", momentum=0.85, and `normalize` of `Optimizer`. It
    differs in three points. Its momentum is a sum; optax's is a mean corrected for its start, which is the same direction
    after the first few steps. It computes Newton and Schulz's steps in bfloat16, optax in float32. And optax multiplies an
    update by sqrt(outputs / inputs) where there are more outputs than inputs, which none of its kernels has.

    Args:
      beta: of the momentum.
      ns_steps: of Newton and Schulz.
      nesterov: whether the momentum looks ahead.
      rest: "adam", or "sgd" with Nesterov's momentum.
      momentum: of that.

    Raises:
      ValueError: another `rest`.
    """
    lookup(dict.fromkeys(("adam", "sgd")), rest, "rest of muon")
    made = optax_muon(
        1.0,
        beta=beta,
        ns_steps=ns_steps,
        nesterov=nesterov,
        muon_weight_dimension_numbers=lambda params: jax.tree_util.tree_map_with_path(_numbers, params),
    )
    # Its updates are already those of a descent.
    ascent = optax.chain(made, optax.scale(-1.0))
    if rest == "adam":
        return ascent
    return optax.partition({"kernels": ascent, "rest": optax.trace(momentum, nesterov=True)}, _labels)


def normalized_kernels() -> optax.GradientTransformation:
    """Brings every kernel but the head's to the norm sqrt(out_channels) before its update is added; the last of a chain.

    The blocks of a scanned stack are brought to it one by one.
    """

    def moved(path: tuple, update: jax.Array, kernel: jax.Array) -> jax.Array:
        if not _is_hidden(path, kernel):
            return update
        axes = (*_inputs(path, kernel), kernel.ndim - 1)
        norm = jnp.sqrt(jnp.sum(jnp.square(kernel), axis=axes, keepdims=True))
        return update + (kernel.shape[-1] ** 0.5 / jnp.maximum(norm, 1e-30) - 1) * kernel

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("normalized kernels need the parameters: call update(gradients, state, params)")
        return jax.tree_util.tree_map_with_path(moved, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _is_hidden(path: tuple, leaf: jax.Array) -> bool:
    names = [key.key for key in path]
    return names[-1] == "kernel" and names[0] != "head" and leaf.ndim >= 2 + ("block" in names)


def _inputs(path: tuple, kernel: jax.Array) -> tuple[int, ...]:
    """The axes that a kernel's outputs sum over: the blocks of a scanned stack are none."""
    return tuple(range(any(key.key == "block" for key in path), kernel.ndim - 1))


def _numbers(path: tuple, leaf: jax.Array) -> MuonDimensionNumbers | None:
    return MuonDimensionNumbers(_inputs(path, leaf), leaf.ndim - 1) if _is_hidden(path, leaf) else None


def _labels(params: Any) -> Any:
    def label(path: tuple, leaf: jax.Array) -> str:
        return "kernels" if _is_hidden(path, leaf) else "rest"

    return jax.tree_util.tree_map_with_path(label, params)
