"""Where it began that a step was not finite: the first such layer forward and backward, by one more pass with probes."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.nn import RECORD, SLOTS
from cnnjax.probes import Flow, Recorder

# The columns of a flow that show it, in the order of execution within a layer, and what they tell of.
FORWARD = ("log10_second_moment", "output_log10_second_moment")
BACKWARD = ("gradient_log10_second_moment", "output_gradient_log10_second_moment")
PARTS = ("pre-activations", "output")
# Names that a text shows.
SHOWN = 3


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NonFinite:
    """What was not finite in a step.

    Attributes:
      flow: of the step.
      loss: the mean over the batch.
      images: how many images of the batch were not finite.
      variables: the names of parameters and running statistics that were not, before the step.
      gradients: the names of parameters whose gradient was not.
    """

    flow: Flow
    loss: float
    images: int
    variables: tuple[str, ...]
    gradients: tuple[str, ...]

    @property
    def forward(self) -> str | None:
        """The first layer, in the order of execution, whose pre-activations or output were not finite."""
        return self._first(FORWARD)[0]

    @property
    def backward(self) -> str | None:
        """The first layer, on the way back from the loss, at whose output or pre-activations the gradient was not finite."""
        return self._first(BACKWARD, back=True)[0]

    @property
    def text(self) -> str:
        """All of it in words, without a full stop."""
        return "; ".join(self._clauses())

    def _first(self, columns: Sequence[str], *, back: bool = False) -> tuple[str | None, str]:
        """The layer where it began, and the part of it."""
        table = np.stack([np.asarray(self.flow.columns[name]) for name in columns], axis=1).ravel()
        # An exact zero, -inf in the logarithm, is finite.
        broken = np.flatnonzero(np.isnan(table) | (table == np.inf))
        if not len(broken):
            return None, ""
        layer, part = divmod(int(broken[-1 if back else 0]), len(columns))
        return self.flow.layers[layer], PARTS[part]

    def _clauses(self) -> Iterator[str]:
        if self.images:
            yield f"images that are not finite: {self.images}"
        if self.variables:
            yield f"variables that are not finite before the step: {_listed(self.variables)}"
        yield from self._going_forward()
        yield from self._going_back()

    def _going_forward(self) -> Iterator[str]:
        layer, part = self._first(FORWARD)
        if layer is not None:
            yield f"going forward, the first values that are not finite are the {part} of {layer}"
        elif np.isfinite(self.loss):
            yield "going forward, everything is finite"
        else:
            yield f"going forward, every layer is finite, but the loss is {self.loss}"

    def _going_back(self) -> Iterator[str]:
        layer, part = self._first(BACKWARD, back=True)
        if layer is not None:
            yield f"going back, the first gradient that is not finite is that of the {part} of {layer}"
        elif self.gradients:
            yield f"going back, only gradients of parameters are not finite: {_listed(self.gradients)}"
        else:
            yield "going back, every gradient is finite: what is not is their norm or the optimizer's update"


def find_nonfinite(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    labels: jax.Array,
    *,
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    key: jax.Array | None = None,
) -> NonFinite:
    """Goes through a training step once more, with probes and without an update.

    The products have the precision of training, so that what overflows there overflows here.

    Args:
      model: called as `model(images, train=True)`.
      variables: before the step.
      images: as the step saw them, augmented and normalized.
      labels: what `loss` takes.
      loss: of (logits, labels), one number for each example; the mean is differentiated.
      key: of the step's dropout, which a model with it needs here.

    Raises:
      ValueError: the model has no probe point.
    """
    recorder = Recorder.of(model, variables, images)
    rest = {name: tree for name, tree in variables.items() if name != "params"}
    rngs = {} if key is None else {"dropout": key}

    @jax.jit
    def differentiated(params: Any, rest: Any, images: jax.Array, labels: jax.Array, rngs: Any) -> Any:
        def objective(params: Any, slots: Any) -> tuple[jax.Array, Any]:
            collections = {"params": params, SLOTS: slots, **rest}
            logits, state = model.apply(
                collections, images, train=True, mutable=[RECORD, "batch_stats"], rngs=rngs
            )
            return jnp.mean(loss(logits, labels)), state[RECORD]

        differentiate = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
        (mean, record), (gradients, slots) = differentiate(params, recorder.new_slots())
        flow = recorder.flow(record, slots, params, gradients)
        trees = {"params": params, **rest}, {"params": gradients}
        return flow, mean, jnp.sum(~jax.vmap(_all_finite)(images)), jax.tree.map(_all_finite, trees)

    flow, mean, broken, (finite, finite_gradients) = differentiated(
        variables["params"], rest, images, labels, rngs
    )
    return NonFinite(
        flow=jax.tree.map(np.asarray, flow),
        loss=float(mean),
        images=int(broken),
        variables=_broken(finite),
        gradients=_broken(finite_gradients),
    )


def _all_finite(array: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(array))


def _broken(finite: Any) -> tuple[str, ...]:
    """The names of the leaves that are false."""
    leaves = jax.tree_util.tree_leaves_with_path(finite)
    return tuple(jax.tree_util.keystr(path, simple=True, separator="/") for path, good in leaves if not good)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
