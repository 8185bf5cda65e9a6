"""How sure a number over seeds is: intervals, paired comparisons, equivalence, and how many seeds a difference needs.

A sample is one number a seed. NaN in it is an error unless the caller says nan="omit", which the result then tells.
"""

from cnnjax.study.statistics.comparisons import (
    Comparison,
    Equivalence,
    equivalence,
    holm,
    paired,
    sign_flip,
)
from cnnjax.study.statistics.estimates import BOOTSTRAP_FROM, Estimate, bca, mean, median
from cnnjax.study.statistics.planning import paired_power, seeds_needed

__all__ = [
    "BOOTSTRAP_FROM",
    "Comparison",
    "Equivalence",
    "Estimate",
    "bca",
    "equivalence",
    "holm",
    "mean",
    "median",
    "paired",
    "paired_power",
    "seeds_needed",
    "sign_flip",
]
