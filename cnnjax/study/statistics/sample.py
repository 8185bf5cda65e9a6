"""What every statistic checks first: a sample is one number a seed, and NaN in it is never dropped unasked."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

Missing = Literal["error", "omit"]


def sample_of(values: ArrayLike, *, nan: Missing = "error", finite: bool = True) -> tuple[np.ndarray, int]:
    """The values as an array `(n,)` of float64, and how many NaN were left out."""
    array = np.asarray(values, np.float64)
    if nan not in ("error", "omit"):
        raise ValueError(f"nan must be 'error' or 'omit'; got {nan!r}")
    if array.ndim != 1 or not array.size:
        raise ValueError(f"a sample is one number a seed, at least one; got an array of shape {array.shape}")
    missing = int(np.isnan(array).sum())
    if missing and nan == "error":
        raise ValueError(
            f"{missing} of {array.size} values are NaN: find out why, or leave them out with nan='omit'"
        )
    kept = array[~np.isnan(array)]
    if not kept.size:
        raise ValueError(f"all {array.size} values are NaN: nothing is left to estimate")
    if finite and np.isinf(kept).any():
        raise ValueError(
            f"{np.isinf(kept).sum()} of {kept.size} values are infinite: take the median instead"
        )
    return kept, missing


def check_fraction(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, as 0.95; got {value!r}")


def constant(sample: np.ndarray) -> bool:
    """Whether all values are the same but for rounding, which would make an interval of noise."""
    if np.isinf(sample).any():
        return bool((sample == sample[0]).all())
    return bool(np.ptp(sample) <= 1e-12 * np.abs(sample).max())
