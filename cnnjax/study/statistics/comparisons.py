"""Comparisons over shared seeds: paired differences, exact tests, families of them, and equivalence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from cnnjax.study.statistics.estimates import Estimate, mean
from cnnjax.study.statistics.sample import Missing, check_fraction, constant, sample_of

__all__ = ["Comparison", "Equivalence", "equivalence", "holm", "paired", "sign_flip"]

LARGEST_EXACT = 40
"""The number of pairs up to which `sign_flip` counts all flips: 2^20 sums for each half of them."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A paired comparison.

    Attributes:
      difference: mean of the first minus the second, pair by pair, with its interval.
      p: two-sided, of the exact sign-flip test.
      smallest_p: the least that this test can give for so many pairs, 2^(1 - n): above 0.05 for fewer than 6.
    """

    difference: Estimate
    p: float
    smallest_p: float

    def __str__(self) -> str:
        least = f", the least that {self.difference.n} pairs can give" if self.p <= self.smallest_p else ""
        return f"{self.difference}, p = {self.p:.3g}{least}"


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """Two one-sided tests of a paired difference against a margin.

    Attributes:
      difference: mean difference; its interval, of confidence 1 - 2 alpha, lies within the margin exactly when `equivalent`.
      margin: differences below it, either way, count as none.
      p: the larger one of the two tests.
      alpha: the level at which `equivalent` is decided.
    """

    difference: Estimate
    margin: float
    p: float
    alpha: float

    @property
    def equivalent(self) -> bool:
        """Whether the difference was shown to be smaller than the margin."""
        return self.p < self.alpha

    def __str__(self) -> str:
        word = "equivalent" if self.equivalent else "not shown to be equivalent"
        return f"{self.difference}, {word} within ±{self.margin:g} (p = {self.p:.3g})"


def paired(
    first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95, nan: Missing = "error"
) -> Comparison:
    """The mean difference of two samples that share their seeds, entry by entry, and whether it is other than 0.

    Raises:
      ValueError: samples of different lengths, or as for `mean` (nan="omit" leaves out the pair).
    """
    differences = _differences(first, second)
    kept, _ = sample_of(differences, nan=nan)
    return Comparison(
        difference=mean(differences, confidence=confidence, nan=nan),
        p=sign_flip(kept),
        smallest_p=0.5 ** (len(kept) - 1),
    )


def sign_flip(differences: ArrayLike) -> float:
    """The two-sided p-value of the exact sign-flip permutation test of a zero mean (Fisher 1935, section 21).

    The share of all 2^n choices of signs whose sum is at least as far from 0 as the one seen. Chosen over Wilcoxon's signed
    ranks because it tests the very mean that is reported, needs no normality at 3 seeds, and stays exact for ties and
    zeros, which accuracies (multiples of 1 / test examples) are full of.

    Args:
      differences: `(n,)`, n up to `LARGEST_EXACT`.

    Raises:
      ValueError: no values, NaN, infinite ones, or too many.
    """
    sample, _ = sample_of(differences)
    if len(sample) > LARGEST_EXACT:
        raise ValueError(
            f"the exact test takes up to {LARGEST_EXACT} differences, got {len(sample)}: take scipy.stats.permutation_test"
        )
    size = np.abs(sample)
    tolerance = 1e-9 * size.sum()
    seen = abs(sample.sum())
    if seen <= tolerance:
        return 1.0
    half = len(sample) // 2
    left, right = _signed_sums(size[:half]), np.sort(_signed_sums(size[half:]))
    at_least = len(right) - np.searchsorted(right, seen - tolerance - left)
    # The other tail is its mirror image.
    return float(min(2 * at_least.sum() / 2 ** len(sample), 1.0))


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values adjusted for the size of their family (Holm 1979): a family-wise error rate without any assumption.

    Args:
      p_values: `(m,)`, in any order.

    Returns:
      `(m,)` in the same order: the largest of min(1, (m - i) p_(i)) over the i = 0, 1, ... up to its own rank.

    Raises:
      ValueError: none, or one outside [0, 1].
    """
    values, _ = sample_of(p_values)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"p-values lie between 0 and 1; got {values.tolist()}")
    order = np.argsort(values, kind="stable")
    steps = (len(values) - np.arange(len(values))) * values[order]
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def equivalence(
    first: ArrayLike, second: ArrayLike, *, margin: float, alpha: float = 0.05, nan: Missing = "error"
) -> Equivalence:
    """Two one-sided paired t tests (Schuirmann 1987): whether a difference is shown to be smaller than a margin.

    Not equivalent does not mean different: the sample may be too small for either.

    Args:
      first, second: `(n,)`, sharing their seeds.
      margin: in the samples' unit; decide on it before looking.
      alpha: level of each of the two tests.
      nan: what to do with pairs that have a NaN.

    Raises:
      ValueError: fewer than 2 pairs, a margin that is not positive, or as for `paired`.
    """
    differences = _differences(first, second)
    sample, _ = sample_of(differences, nan=nan)
    if not 0 < margin < math.inf:
        raise ValueError(f"the margin must be a positive number; got {margin!r}")
    if len(sample) < 2:
        raise ValueError(f"an equivalence test takes 2 pairs or more; got {len(sample)}: run more seeds")
    check_fraction("alpha", 2 * alpha)
    estimate = mean(differences, confidence=1 - 2 * alpha, method="t", nan=nan)
    if constant(sample):
        p = 0.0 if abs(estimate.value) < margin else 1.0
    else:
        # The tail of the test of the nearer end of the margin; the other one's is smaller.
        distance = (margin - abs(estimate.value)) / stats.sem(sample)
        p = float(stats.t.sf(distance, len(sample) - 1))
    return Equivalence(difference=estimate, margin=margin, p=p, alpha=alpha)


def _differences(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"pairs share their seeds, entry by entry; got shapes {a.shape} and {b.shape}")
    return a - b


def _signed_sums(sizes: np.ndarray) -> np.ndarray:
    """The sums of `(n,)` numbers under all 2^n choices of their signs."""
    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate([sums - size, sums + size])
    return sums
