"""How a set is cut into training, validation and test parts: the same for sets in memory and on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

import jax
import numpy as np

from cnnjax.data.split import stratified

_TEST_FRACTION = 0.2  # of a set that has no test split of its own
_VALIDATION_FRACTION, _MOST_VALIDATION = 0.2, 2000
# Each draw has a stream of its own, so that changing one option leaves the other draws as they were.
_STREAMS = {"test": 0, "validation": 1, "subset": 2}


class Divisible(Protocol):
    """Labeled examples of which some can be taken."""

    @property
    def labels(self) -> np.ndarray | jax.Array:
        """Class numbers `(n,)`, or, where an example may show several, whether it shows each, `(n, classes)`."""
        ...

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> Self:
        """The examples at these positions, in this order."""
        ...


P = TypeVar("P", bound=Divisible)


class Parts(NamedTuple, Generic[P]):
    """The three parts of a set, and what to say about them."""

    train: P
    validation: P
    test: P
    notes: tuple[str, ...]


def check_options(*, split_seed: int, validation: float | None) -> None:
    """Raises ValueError where one of them is out of range."""
    if split_seed < 0 or not 0 <= (validation or 0) < 1:
        raise ValueError(f"expected split_seed >= 0, 0 <= validation < 1, got {split_seed}, {validation}")


def divide(
    name: str,
    official: Mapping[str, P],
    *,
    split_seed: int,
    validation: float | None,
    subset: int | None,
) -> Parts[P]:
    """Cut what a set lacks off its training examples.

    Every draw keeps the shares of the classes; where an example may show several, all are drawn alike.

    Args:
        name: of the set, for notes and errors.
        official: its splits: "train", and where it has them "validation" and "test". Without a test split, the
            validation split takes its place; without both, a fifth is drawn.
        split_seed: the seed of the draws.
        validation: the fraction to cut off for validation where there is no split of its own (None: a fifth, but no
            more than 2,000, which tell an accuracy to about a point).
        subset: the number of training examples to keep of what is left (None: all).

    Raises:
        ValueError: `subset` is out of range, or `validation` is given for a set that has a split of its own.
    """
    train, held_out, test, notes = _test_part(name, official, split_seed)
    if held_out is None:
        held_out, train = _draw("validation", train, _validation_size(validation, len(train)), split_seed)
    elif validation is not None:
        raise ValueError(
            f"{name} has a validation split of its own ({len(held_out)} images): leave validation out, got {validation}"
        )
    if subset is not None:
        if not 1 <= subset <= len(train):
            raise ValueError(f"{name} has {len(train)} images left for training: subset cannot be {subset}")
        notes += (f"trained on {subset} of {len(train)} training images",)
        train, _ = _draw("subset", train, subset, split_seed)
    return Parts(train, held_out, test, notes)


def _test_part(name: str, official: Mapping[str, P], seed: int) -> tuple[P, P | None, P, tuple[str, ...]]:
    """The parts for training, validation (None: there is none yet) and test, and what to say about the last."""
    train, validation, test = official["train"], official.get("validation"), official.get("test")
    if test is not None:
        return train, validation, test, ()
    if validation is not None:
        note = f"{name} has no labeled test split: its official validation split is the test split"
        return train, None, validation, (note,)
    test, train = _draw("test", train, round(_TEST_FRACTION * len(train)), seed)
    note = f"{name} has no official test split: {len(test)} images were drawn by split_seed={seed}"
    return train, None, test, (note,)


def _validation_size(validation: float | None, count: int) -> int:
    if validation is None:
        return min(round(_VALIDATION_FRACTION * count), _MOST_VALIDATION)
    return round(validation * count)


def _draw(purpose: str, part: P, size: int, seed: int) -> tuple[P, P]:
    """Draw `size` examples of a part; return them and the others."""
    if not size:
        # To know the labels may take minutes.
        return part.take(np.arange(0)), part
    rng = np.random.default_rng([seed, _STREAMS[purpose]])
    labels = np.asarray(part.labels)
    # As one class they are drawn by chance alone.
    drawn, others = stratified(labels if labels.ndim == 1 else np.zeros(len(labels), int), size, rng)
    return part.take(drawn), part.take(others)
