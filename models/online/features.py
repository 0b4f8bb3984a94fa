"""How River sees a vector: every value present, no tail that runs away, and thresholds that lead back to raw values.

A Hoeffding tree describes each feature by a normal distribution per class, which counts and centavos defeat: a few huge
values stretch it over nothing. So all values pass one increasing map first. Scorers never apply it: since it increases,
each threshold of a tree has an exact counterpart among the raw float32 values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["MISSING", "prepare", "raw_thresholds"]

MISSING = -1.0
"""What stands for a missing value: below every count, amount and age, and near enough not to stretch a distribution."""

_LARGEST = float(np.finfo(np.float32).max)
_SIGN = np.int64(1) << 31


def prepare(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return what River learns from and scores: sign(x) log(1 + |x|), and `MISSING` for NaN.

    Parameters
    ----------
    matrix
        float32, any shape; infinities count as the largest finite value.

    Examples
    --------
    >>> prepare(np.array([0.0, np.nan, -1.0], np.float32)).round(3).tolist()
    [0.0, -1.0, -0.693]
    """
    prepared = _squash(matrix)
    prepared[np.isnan(prepared)] = MISSING
    return prepared


def raw_thresholds(thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return, for each threshold on prepared values, the largest float32 that passes it (x <= threshold).

    Exact by bisection over all float32 values: a scorer that compares raw values takes the same branch as River, for
    every value there is.

    Parameters
    ----------
    thresholds
        float64, shape (n,), finite.

    Returns
    -------
    float64, shape (n,), finite: float32 values, or a number below all of them where none passes.
    """
    wanted = np.asarray(thresholds, np.float64)
    # Invariant: `low` passes and `high` does not, once the two ends are known not to decide alone.
    low = np.full(wanted.shape, _rank(np.float32(-_LARGEST)), np.int64)
    high = np.full(wanted.shape, _rank(np.float32(_LARGEST)), np.int64)
    none, every = _squash(_value(low)) > wanted, _squash(_value(high)) <= wanted
    low = np.where(every, high, low)
    while (high - low > 1).any():
        middle = (low + high) // 2
        passes = _squash(_value(middle)) <= wanted
        low, high = np.where(passes, middle, low), np.where(passes, high, middle)
    raw = _value(low).astype(np.float64)
    raw[none] = -np.finfo(np.float64).max
    return raw


def _squash(values: NDArray[np.float32]) -> NDArray[np.float64]:
    # In float64, whose steps are so much finer that no two float32 values ever meet.
    wide = np.clip(values.astype(np.float64), -_LARGEST, _LARGEST)
    return np.asarray(np.copysign(np.log1p(np.abs(wide)), wide), np.float64)


def _rank(value: np.float32) -> np.int64:
    """The place of a float32 among all, in order: its bits, with the negative half turned round."""
    bits = np.int64(value.view(np.uint32))
    return np.int64(bits if bits < _SIGN else _SIGN - bits)


def _value(ranks: NDArray[np.int64]) -> NDArray[np.float32]:
    bits = np.where(ranks >= 0, ranks, _SIGN - ranks)
    return bits.astype(np.uint32).view(np.float32)
