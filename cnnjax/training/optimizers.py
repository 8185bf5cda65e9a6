"""Optimizers by name with optax's own options, weight decay of either kind, and clipping, as one chain."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from cnnjax.functional.names import lookup

DECAYED = frozenset({"kernel", "embedding"})
"""Names of the parameters that weight decay acts on: scales and biases of norms, biases and slopes are left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How gradients become updates.

    Attributes:
      name: one of `OPTIMIZERS`.
      options: those of optax's transformation, as {"momentum": 0.9, "nesterov": True} or {"b2": 0.95}.
      weight_decay: how strongly kernels are drawn to zero.
      decay: "decoupled": learning rate times weight_decay times kernel is taken off beside the update (AdamW, Loshchilov &
        Hutter 2019); "l2": weight_decay times kernel is added to the gradient, as a penalty of weight_decay / 2 times its
        squares would (SGD in He et al. 2016).
      clip: what bounds gradients, if anything: the "norm" of all together, the "value" of each entry, or, "adaptive", the
        norm of each output's kernel by `clip_at` times that kernel's own (Brock et al. 2021, equation 3; not of the head).
      clip_at: the bound.
      accumulate: steps whose gradients are averaged before an update.
    """

    name: str = "sgd"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weight_decay: float = 0.0
    decay: Literal["decoupled", "l2"] = "decoupled"
    clip: Literal["none", "norm", "value", "adaptive"] = "none"
    clip_at: float = 1.0
    accumulate: int = 1

    def make(self, learning_rate: float | optax.Schedule) -> optax.GradientTransformation:
        """The chain: clipping, L2, the optimizer, decoupled decay, the learning rate; over accumulated gradients.

        Raises:
          ValueError: an unknown name or option (with the nearest), or a number out of range.
        """
        build = lookup(OPTIMIZERS, self.name, "optimizer")
        for option in self.options:
            lookup(inspect.signature(build).parameters, option, f"option of {self.name}")
        clip = lookup(_CLIPS, self.clip, "clip")
        lookup(dict.fromkeys(("decoupled", "l2")), self.decay, "decay")
        for name, number, least in (
            ("weight_decay", self.weight_decay, 0),
            ("accumulate", self.accumulate, 1),
        ):
            if number < least:
                raise ValueError(f"{name} must be {least} or more, got {number}")
        if self.clip_at <= 0:
            raise ValueError(f"clip_at must be positive, got {self.clip_at}")
        decay = (
            optax.add_decayed_weights(self.weight_decay, decayed) if self.weight_decay else optax.identity()
        )
        before, after = (decay, optax.identity()) if self.decay == "l2" else (optax.identity(), decay)
        direction = build(**self.options)
        # LAMB measures its ratio behind the decay.
        ratio = optax.scale_by_trust_ratio() if self.name == "lamb" else optax.identity()
        chain = optax.chain(
            clip(self.clip_at), before, direction, after, ratio, optax.scale_by_learning_rate(learning_rate)
        )
        if self.accumulate == 1:
            return chain
        return optax.MultiSteps(chain, self.accumulate).gradient_transformation()


def decayed(params: Any) -> Any:
    """A tree like `params` with True at the parameters that weight decay acts on."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in DECAYED, params)


def adaptive_clip(at: float, *, least: float = 1e-3) -> optax.GradientTransformation:
    """Adaptive gradient clipping (Brock et al. 2021, equation 3) of every kernel but the head's.

    The gradient of each output's kernel is scaled down to `at` times the norm of that kernel, which counts as `least` or
    more. Blocks of a scanned stack are clipped one by one.
    """

    def clipped(path: tuple, gradient: jax.Array, kernel: jax.Array) -> jax.Array:
        names = [key.key for key in path]
        if names[0] == "head" or names[-1] != "kernel":
            return gradient
        axes = tuple(range("block" in names, gradient.ndim - 1))
        norms = (jnp.sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=True)) for x in (gradient, kernel))
        size, bound = next(norms), at * jnp.maximum(next(norms), least)
        return jnp.where(size > bound, gradient * (bound / jnp.maximum(size, 1e-30)), gradient)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("adaptive clipping needs the parameters: call update(gradients, state, params)")
        return jax.tree_util.tree_map_with_path(clipped, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


_CLIPS: Mapping[str, Callable[[float], optax.GradientTransformation]] = MappingProxyType(
    {
        "none": lambda at: optax.identity(),
        "norm": optax.clip_by_global_norm,
        "value": optax.clip,
        "adaptive": adaptive_clip,
    }
)


def _sgd(*, momentum: float = 0.0, nesterov: bool = False) -> optax.GradientTransformation:
    return optax.trace(momentum, nesterov) if momentum else optax.identity()


def _rmsprop(
    *,
    decay: float = 0.9,
    eps: float = 1e-8,
    momentum: float = 0.0,
    nesterov: bool = False,
    centered: bool = False,
) -> optax.GradientTransformation:
    scale = optax.scale_by_stddev if centered else optax.scale_by_rms
    return optax.chain(scale(decay, eps), _sgd(momentum=momentum, nesterov=nesterov))


def _muon(*, beta: float = 0.95, ns_steps: int = 5, nesterov: bool = True) -> optax.GradientTransformation:
    """Kernels by Muon, as matrices from all inputs to the outputs; everything else, and the head, by Adam."""
    from optax.contrib import MuonDimensionNumbers, muon

    def numbers(path: tuple, leaf: jax.Array) -> Any:
        names = [key.key for key in path]
        first = int("block" in names)
        if names[-1] != "kernel" or names[0] == "head" or leaf.ndim < first + 2:
            return None
        return MuonDimensionNumbers(tuple(range(first, leaf.ndim - 1)), leaf.ndim - 1)

    made = muon(
        1.0,
        beta=beta,
        ns_steps=ns_steps,
        nesterov=nesterov,
        muon_weight_dimension_numbers=lambda params: jax.tree_util.tree_map_with_path(numbers, params),
    )
    # Its updates are already those of a descent.
    return optax.chain(made, optax.scale(-1.0))


def _adam(
    *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, nesterov: bool = False
) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1, b2, eps, nesterov=nesterov)


def _lamb(*, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1, b2, eps)


def _lion(*, b1: float = 0.9, b2: float = 0.99) -> optax.GradientTransformation:
    return optax.scale_by_lion(b1, b2)


OPTIMIZERS: Mapping[str, Callable[..., optax.GradientTransformation]] = MappingProxyType(
    {
        "sgd": _sgd,
        "adam": _adam,
        "rmsprop": _rmsprop,
        "lamb": _lamb,
        "lion": _lion,
        "muon": _muon,
    }
)
"""What makes a direction of a gradient, by name; AdamW is "adam" with decoupled weight decay."""
