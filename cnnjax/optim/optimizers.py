"""Optimizers by name with optax's own options, weight decay of either kind, and clipping, as one chain."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from cnnjax.functional.names import lookup
from cnnjax.optim.freeze import Freeze, freeze
from cnnjax.optim.muon import muon, normalized_kernels

DECAYED = frozenset({"kernel", "embedding"})
"""Names of the parameters that weight decay acts on: scales and biases of norms, biases and slopes are left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How gradients become updates.

    `torch.optim.SGD(lr, momentum, nesterov, weight_decay)` is name="sgd" at the same rate, options={"momentum": momentum,
    "nesterov": nesterov}, the same weight_decay with decay="l2", and decays={"**": 1}. Where a recipe there adds up the
    losses of B examples, the rate here, of their mean, is B times its rate, and weight_decay a B-th of its own. A parameter
    group with a rate and a decay of its own is a pattern in `rates` and in `decays`.

    Attributes:
      name: one of `OPTIMIZERS`.
      options: those of optax's transformation, as {"momentum": 0.9, "nesterov": True} or {"b2": 0.95}.
      weight_decay: how strongly kernels are drawn to zero.
      decay: "decoupled": learning rate times weight_decay times kernel is taken off beside the update (AdamW, Loshchilov &
        Hutter 2019); "l2": weight_decay times kernel is added to the gradient, as a penalty of weight_decay / 2 times its
        squares would (SGD in He et al. 2016).
      decays: factors on `weight_decay` by pattern, as {"head": 0, "**/bias": 1}. What a pattern of
        `cnnjax.optim.freeze` stands for decays by it, kernel or not; where several do, by their product.
      rates: factors on the learning rate by such patterns, as {"**/norm/bias": 64, "stem": 0}. They multiply the whole
        update, with its decoupled decay. 0 freezes: no update, no decay, no memory, and no part in a norm for clipping.
      normalize: whether every kernel but the head's is brought to the norm sqrt(out_channels) in front of its update, as in
        airbench94_muon.py (Jordan 2024). A batch norm behind it does not notice, and every step turns it as far.
      clip: what bounds gradients, if anything: the "norm" of all together, the "value" of each entry, or, "adaptive", the
        norm of each output's kernel by `clip_at` times that kernel's own (Brock et al. 2021, equation 3; not of the head).
      clip_at: the bound.
      accumulate: steps whose gradients are averaged before an update.
    """

    name: str = "sgd"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weight_decay: float = 0.0
    decay: Literal["decoupled", "l2"] = "decoupled"
    decays: Mapping[str, float] = dataclasses.field(default_factory=dict)
    rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    normalize: bool = False
    clip: Literal["none", "norm", "value", "adaptive"] = "none"
    clip_at: float = 1.0
    accumulate: int = 1

    def make(self, learning_rate: float | optax.Schedule) -> optax.GradientTransformation:
        """The chain: clipping, L2, the optimizer, decoupled decay, the rates; over accumulated gradients.

        Raises:
          ValueError: an unknown name or option (with the nearest), or a number out of range; from its `init`, a pattern that
            matches nothing.
        """
        build = lookup(OPTIMIZERS, self.name, "optimizer")
        for option in self.options:
            lookup(inspect.signature(build).parameters, option, f"option of {self.name}")
        clip = lookup(_CLIPS, self.clip, "clip")
        self._check()
        decay = _decayed_by(self.weight_decay, self.decays) if self.weight_decay else optax.identity()
        before, after = (decay, optax.identity()) if self.decay == "l2" else (optax.identity(), decay)
        still = self.frozen.patterns
        # LAMB measures its ratio behind the decay.
        ratio = optax.scale_by_trust_ratio() if self.name == "lamb" else optax.identity()
        chain = optax.chain(
            _multiplied_by(dict.fromkeys(still, 0.0)),
            clip(self.clip_at),
            before,
            _all_but(still, build(**self.options)),
            after,
            ratio,
            optax.scale_by_learning_rate(learning_rate),
            _multiplied_by(self.rates),
            _all_but(still, normalized_kernels()) if self.normalize else optax.identity(),
        )
        if self.accumulate == 1:
            return chain
        return optax.MultiSteps(chain, self.accumulate).gradient_transformation()

    @property
    def frozen(self) -> Freeze:
        """The parameters whose rate is 0."""
        return freeze([pattern for pattern, factor in self.rates.items() if factor == 0])

    def _check(self) -> None:
        lookup(dict.fromkeys(("decoupled", "l2")), self.decay, "decay")
        numbers = {"weight_decay": (self.weight_decay, 0), "accumulate": (self.accumulate, 1)}
        for field in ("decays", "rates"):
            for pattern, factor in getattr(self, field).items():
                numbers[f"the factor of {pattern!r} in {field}"] = (factor, 0)
        for name, (number, least) in numbers.items():
            if not number >= least:
                raise ValueError(f"{name} must be {least} or more, got {number}")
        if self.clip_at <= 0:
            raise ValueError(f"clip_at must be positive, got {self.clip_at}")


def decayed(params: Any) -> Any:
    """A tree like `params` with True at the parameters that weight decay acts on."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in DECAYED, params)


def factors(patterns: Mapping[str, float], params: Any, otherwise: Any) -> Any:
    """A tree like `params` of the products of the factors of all patterns that stand for a parameter.

    Args:
      patterns: factors by pattern, as at the head of `cnnjax.optim.freeze`.
      params: whose paths are looked at.
      otherwise: a tree like `params`, of the factors where no pattern stands for the parameter.

    Raises:
      ValueError: a pattern matches nothing.
    """
    others = [freeze(pattern).trained(params) for pattern in patterns]

    def product(otherwise: float, *others: bool) -> float:
        found = [factor for factor, other in zip(patterns.values(), others, strict=True) if not other]
        return math.prod(found) if found else float(otherwise)

    return jax.tree.map(product, otherwise, *others)


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


def _decayed_by(strength: float, patterns: Mapping[str, float]) -> optax.GradientTransformation:
    """Adds `strength` times a parameter's factor times the parameter."""

    def add(updates: Any, params: Any) -> Any:
        shares = factors(patterns, params, decayed(params))
        return jax.tree.map(
            lambda update, share, kernel: update + strength * share * kernel if share else update,
            updates,
            shares,
            params,
        )

    return _stateless(add)


def _multiplied_by(patterns: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies by the factors of the patterns; 0 times what is not finite is 0, too."""

    def multiply(updates: Any, params: Any) -> Any:
        found = factors(patterns, params, jax.tree.map(lambda _: 1.0, params))
        return jax.tree.map(
            lambda update, factor: factor * update if factor else jnp.zeros_like(update), updates, found
        )

    return _stateless(multiply) if patterns else optax.identity()


def _stateless(change: Callable[[Any, Any], Any]) -> optax.GradientTransformation:
    """A change of updates that looks at the parameters; its `init` tries it, so that wrong patterns are errors there."""

    def init(params: Any) -> optax.EmptyState:
        jax.eval_shape(change, params, params)
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("factors by pattern need the parameters: call update(gradients, state, params)")
        return change(updates, params), state

    return optax.GradientTransformation(init, update)


def _all_but(patterns: Sequence[str], made: optax.GradientTransformation) -> optax.GradientTransformation:
    """`made` for all parameters but those that a pattern stands for, whose updates are zero."""
    return freeze(patterns).optimizer(made) if patterns else made


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
        "muon": muon,
    }
)
"""What makes a direction of a gradient, by name; AdamW is "adam" with decoupled weight decay."""
