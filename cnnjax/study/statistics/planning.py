"""How many seeds a study needs: the power of the paired t test, and its inverse."""

import math

from scipy import stats

from cnnjax.study.statistics.sample import check_fraction

__all__ = ["paired_power", "seeds_needed"]

MOST_SEEDS = 1_000_000


def paired_power(difference: float, *, deviation: float, n: float, alpha: float = 0.05) -> float:
    """The probability that the two-sided paired t test finds a difference.

    Args:
      difference: the true mean difference.
      deviation: standard deviation of the differences, in the same unit, above 0.
      n: pairs, 2 or more; may be a fraction.
      alpha: level of the test.

    Raises:
      ValueError: a deviation that is not positive, fewer than 2 pairs, or a level outside (0, 1).
    """
    check_fraction("alpha", alpha)
    if not 0 < deviation < math.inf or not n >= 2:
        raise ValueError(
            f"power takes a positive deviation and 2 pairs or more; got deviation={deviation!r}, n={n!r}"
        )
    shift = abs(difference) / deviation * math.sqrt(n)
    critical = stats.t.ppf(1 - alpha / 2, n - 1)
    found = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
    # So far in the tail that SciPy's series ends: the test cannot miss.
    return 1.0 if math.isnan(found) else float(found)


def seeds_needed(difference: float, *, deviation: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """The least number of seeds at which the two-sided paired t test finds a difference with that power.

    Args:
      difference: the true mean difference to be found.
      deviation: standard deviation of the paired differences, in the same unit; 0 needs 2 seeds.
      power: wanted probability of finding it.
      alpha: level of the test.

    Raises:
      ValueError: a difference of 0 or NaN, a negative deviation, a power or level outside (0, 1), or over a million seeds.
    """
    check_fraction("power", power)
    if not 0 < abs(difference) < math.inf or not 0 <= deviation < math.inf:
        raise ValueError(
            f"a number of seeds takes a difference other than 0 and a deviation of 0 or more; got {difference!r} and "
            f"{deviation!r}"
        )
    if deviation == 0:
        return 2

    def enough(n: int) -> bool:
        return paired_power(difference, deviation=deviation, n=n, alpha=alpha) >= power

    high = 2
    while not enough(high):
        high *= 2
        if high > MOST_SEEDS:
            raise ValueError(
                f"a difference of {difference:g} at a deviation of {deviation:g} takes over {MOST_SEEDS} seeds"
            )
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
