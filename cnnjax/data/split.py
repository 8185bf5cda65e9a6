"""Splits that keep the share of every class."""

from __future__ import annotations

import numpy as np


def stratified(labels: np.ndarray, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw `size` indices in which every class keeps its share; return them and the others, both ascending.

    A class gets its exact share rounded down, and the places left go to the largest remainders.
    """
    quotas, remainders = np.divmod(np.bincount(labels) * size, len(labels))
    quotas[np.argsort(-remainders, kind="stable")[: size - quotas.sum()]] += 1
    drawn = np.zeros(len(labels), bool)
    for label, quota in enumerate(quotas):
        drawn[rng.permutation(np.flatnonzero(labels == label))[:quota]] = True
    return np.flatnonzero(drawn), np.flatnonzero(~drawn)
