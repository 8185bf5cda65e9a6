"""What stays fixed while the rest is trained: parameters, running statistics, and the mode in which they are used.

A pattern is a path in the parameters, as "stage1/block/layer1/linear/kernel", that may stop early: "stage1" stands for
everything below it. `*`, `?` and `[ab]` stand for parts of one name, `**` for any number of names: "**/norm" are all
norms, "*/linear/kernel" the kernels one level down. The blocks of a scanned stack share their arrays, so a pattern takes all
of them or none.
"""

import dataclasses
import difflib
import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import optax

Path = tuple[str, ...]


def freeze(patterns: str | Sequence[str], *, but: str | Sequence[str] = ()) -> "Freeze":
    """Keeps parts of a model fixed, bit for bit.

        frozen = freeze(["stem", "stage1"])        # or all but the head: freeze("**", but="head")
        optimizer = frozen.optimizer(optax.adamw(1e-3))
        logits, new = frozen.apply(model, variables, images, train=True, mutable=["batch_stats"])

    Args:
      patterns: which parameters, as at the head of this module; none freezes nothing.
      but: which of these are trained all the same.

    Raises:
      TypeError: a pattern is no string.
    """
    return Freeze(_listed(patterns), _listed(but))


@dataclasses.dataclass(frozen=True)
class Freeze:
    """Parts of a model that stay fixed, made by `freeze`.

    `optimizer` keeps the parameters, `apply` the running statistics; a training step takes both. Patterns are looked up in
    the parameters that a call is given, and one that matches nothing is a ValueError with the nearest paths.

    Attributes:
      patterns: of the parameters that stay.
      but: of those among them that are trained all the same.
    """

    patterns: tuple[str, ...]
    but: tuple[str, ...] = ()

    def trained(self, params: Any) -> Any:
        """A tree like `params` with True where a parameter is trained: a mask for optax.

        Raises:
          ValueError: a pattern matches nothing.
        """
        paths = [_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        for pattern in (*self.patterns, *self.but):
            if not any(_matches(pattern.split("/"), path) for path in paths):
                raise ValueError(_nothing(pattern, paths))
        return jax.tree_util.tree_map_with_path(lambda path, _: self._trains(_names(path)), params)

    def optimizer(self, optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
        """`optimizer` for the trained parameters only; the update of all others is zero.

        It never sees a frozen parameter: no weight decay, no part in a norm that gradients are clipped by, and no moments
        in memory. Put it around the whole chain. The parameters stay bit-equal where `optax.apply_updates` is in the same
        jitted function; outside of one, adding zero may change a number below 1e-38 to zero, and -0 to 0.

        Raises:
          ValueError: (its `init`) a pattern matches nothing, or nothing is left to train.
        """

        def labels(params: Any) -> Any:
            trained = self.trained(params)
            if not any(jax.tree.leaves(trained)):
                raise ValueError(
                    f"{list(self.patterns)} freezes every parameter: leave some to train, as in but='head'"
                )
            return jax.tree.map(lambda one: "trained" if one else "frozen", trained)

        return optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)

    def stopped(self, params: Any) -> Any:
        """The parameters, the frozen ones as constants of a differentiation: no gradient is computed for them.

        Raises:
          ValueError: a pattern matches nothing.
        """
        if not self.patterns:
            return params
        return jax.tree.map(
            lambda leaf, one: leaf if one else jax.lax.stop_gradient(leaf), params, self.trained(params)
        )

    def apply(self, model: nn.Module, variables: Mapping[str, Any], *inputs: Any, **options: Any) -> Any:
        """`model.apply` in which what is frozen is a constant in evaluation mode.

        A module of which all parameters are frozen is called with train=False, and so is all within it: batch norm takes
        its running statistics and leaves them as they are, bit for bit, and nothing is dropped there. (Frozen layers that
        went on normalizing by the batch would put out something else for every batch.) A norm of which something is
        trained, as where "**/kernel" is frozen, follows `train`. No gradient is computed for frozen parameters, nor for
        anything in front of the first trained one.

        Args:
          model: its modules take `train` by keyword.
          variables: of the model.
          *inputs, **options: as for `model.apply`.

        Raises:
          ValueError: a pattern matches nothing.
        """
        modules = _frozen_modules(self.trained(variables["params"]))

        def evaluate(next_function: Any, args: tuple, kwargs: dict, context: Any) -> Any:
            if kwargs.get("train") and context.module.path in modules:
                kwargs = {**kwargs, "train": False}
            return next_function(*args, **kwargs)

        with nn.intercept_methods(evaluate):
            return model.apply({**variables, "params": self.stopped(variables["params"])}, *inputs, **options)

    def _trains(self, path: Path) -> bool:
        frozen = any(_matches(pattern.split("/"), path) for pattern in self.patterns)
        return not frozen or any(_matches(pattern.split("/"), path) for pattern in self.but)


def _listed(patterns: str | Sequence[str]) -> tuple[str, ...]:
    listed = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    for pattern in listed:
        if not isinstance(pattern, str):
            raise TypeError(f"a pattern is a path in the parameters, as 'stem' or '**/norm'; got {pattern!r}")
    return tuple(pattern.strip("/") for pattern in listed)


def _names(path: tuple) -> Path:
    return tuple(key.key for key in path)


def _matches(parts: Sequence[str], path: Path) -> bool:
    """Whether a pattern, split at its slashes, stands for a path or for a module above it."""
    if not parts:
        return True
    if parts[0] == "**":
        return any(_matches(parts[1:], path[i:]) for i in range(len(path) + 1))
    return bool(path) and fnmatch.fnmatchcase(path[0], parts[0]) and _matches(parts[1:], path[1:])


def _frozen_modules(trained: Any) -> set[Path]:
    """The paths of the modules that have parameters, all of them frozen."""
    leaves = [(_names(path), one) for path, one in jax.tree_util.tree_leaves_with_path(trained)]
    return _above(path for path, _ in leaves) - _above(path for path, one in leaves if one)


def _above(paths: Any) -> set[Path]:
    return {path[:i] for path in paths for i in range(len(path))}


def _nothing(pattern: str, paths: Sequence[Path]) -> str:
    """What is wrong with a pattern that matches none of these paths."""
    known = sorted({"/".join(path[: i + 1]) for path in paths for i in range(len(path))})
    nearest = difflib.get_close_matches(pattern.rstrip("/*"), known, n=3, cutoff=0.0)
    hint = (
        " (the blocks of a scanned stack are frozen together, as 'stage1'; scan=False has them apart)"
        if re.search(r"\[\d+\]|block_\d", pattern)
        else ""
    )
    return f"the pattern {pattern!r} matches no parameter; nearest: {', '.join(map(repr, nearest))}{hint}"
