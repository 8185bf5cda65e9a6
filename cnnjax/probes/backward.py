"""The gradient at the first layer, while something happens to the backward pass on its way there."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.core import Tracer

from cnnjax import functional as F
from cnnjax.functional.tap import new_slot, tap
from cnnjax.probes.flow import Recorder
from cnnjax.probes.passage import sites
from cnnjax.probes.trees import tree_with

Interceptor = Callable[[Callable, tuple, dict, Any], Any]

_SLOTS = "first_gradient_slots"


def check_batch(variables: Mapping[str, Any], images: jax.Array, labels: jax.Array) -> None:
    """Raises ValueError or TypeError for what is no batch, or no variables, before anything is traced."""
    if "params" not in variables:
        raise ValueError(
            f"variables must hold the collection 'params', as model.init makes them; got {sorted(variables)}"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"images must be floating point; got {images.dtype}: use cnnjax.data.normalize")
    if images.ndim < 2 or labels.shape[:1] != images.shape[:1]:
        raise ValueError(
            "a batch is images (batch, height, width, channels) and as many labels; got images of shape "
            f"{images.shape} and labels of shape {labels.shape}"
        )


def first_gradient(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    labels: jax.Array,
    *,
    intervene: Interceptor,
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    train: bool,
    rngs: Mapping[str, jax.Array],
) -> jax.Array:
    """log10 of the second moment of the gradient of the mean loss with respect to the first layer's pre-activations.

    Args:
      intervene: of `flax.linen.intercept_methods`, around every call of a module.
      model, variables, images, labels, loss, train: as in `gradient_flow`.
      rngs: random streams of the forward pass.

    Raises:
      ValueError: the model has no probe point, or, where the values of `labels` can be seen and `loss` is the default, a
        label is out of range.
    """
    first = next(iter(sites(Recorder.of(model, variables, images, train=train)).values()))
    slots = jnp.broadcast_to(new_slot(), (*first.lengths, 3))

    def tapped(next_function: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        # In front of whatever happens to the activation itself.
        if context.method_name == "__call__" and context.module.path == first.point.path:
            args = (tap(args[0], context.module.get_variable(_SLOTS, "slot")), *args[1:])
        return intervene(next_function, args, kwargs, context)

    def objective(slots: jax.Array) -> jax.Array:
        collections = {**variables, _SLOTS: tree_with((*first.point.path, "slot"), slots)}
        with nn.intercept_methods(tapped):
            logits, _ = model.apply(
                collections, images, train=train, mutable=["batch_stats"], rngs=dict(rngs)
            )
        if loss is F.cross_entropy and labels.ndim == 1 and not isinstance(labels, Tracer):
            F.check_labels(labels, logits.shape[-1])
        return jnp.mean(loss(logits, labels))

    scaled = jax.grad(objective)(slots)
    return F.Moments.of(scaled.reshape(-1, 3)[first.index]).log10_second_moment
