"""How far counts lie from what was expected, and how far chance alone takes them."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["chi_square_quantile", "equal_rows", "informed_rows", "psi", "psi_of_chance"]

_HALF_A_ROW = 0.5
"""What is added to each bin, of both sides: an empty bin is no proof that nothing can fall there."""

_Floats = NDArray[np.float64]


def psi(shares: _Floats, rows: float, counts: _Floats) -> float:
    """Return the population stability index of counts against expected shares.

    Parameters
    ----------
    shares
        Expected, shape (b,).
    rows
        That they are known from: with few of them an empty bin says little.
    counts
        Present ones, shape (b,).

    Examples
    --------
    >>> psi(np.array([0.5, 0.5]), 1e9, np.array([500.0, 500.0])) < 1e-9
    True
    >>> round(psi(np.array([0.5, 0.5]), 1e9, np.array([900e3, 100e3])), 3)
    0.879
    """
    expected, found = shares * rows + _HALF_A_ROW, counts + _HALF_A_ROW
    before, now = expected / expected.sum(), found / found.sum()
    return float(np.sum((now - before) * np.log(now / before)))


def psi_of_chance(freedom: int, rows: float, reference_rows: float, chance: float) -> float:
    """Return the PSI that rows of an unchanged stream exceed with a chance.

    PSI is, for small changes, a chi-square distance: it is distributed as (1/n + 1/m) times chi-square, with as many
    degrees of freedom as there are bins less one.

    Examples
    --------
    >>> round(psi_of_chance(9, 1_000, 10_000, 0.05), 4)
    0.0186
    """
    return chi_square_quantile(chance, freedom) * (1.0 / rows + 1.0 / reference_rows)


@lru_cache(maxsize=256)
def chi_square_quantile(chance: float, freedom: int) -> float:
    """Return what a chi-square variable exceeds with a chance (bisection of the closed form).

    Examples
    --------
    >>> round(chi_square_quantile(0.05, 1), 3), round(chi_square_quantile(0.01, 4), 3)
    (3.841, 13.277)
    """
    low, high = 0.0, 10.0 * freedom + 1_500.0
    for _ in range(80):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _chi_square_tail(middle, freedom) > chance else (low, middle)
    return (low + high) / 2.0


def _chi_square_tail(value: float, freedom: int) -> float:
    half = value / 2.0
    first, tail = (0.5, math.erfc(math.sqrt(half))) if freedom % 2 else (0.0, 0.0)
    powers = (first + step for step in range(freedom // 2))
    return tail + sum(
        math.exp(power * math.log(half) - half - math.lgamma(power + 1.0)) for power in powers if half > 0
    )


def equal_rows(weights: _Floats) -> float:
    """Return how many equally weighted rows know as much (Kish)."""
    return float(weights.sum() ** 2 / (weights**2).sum()) if len(weights) else 0.0


def informed_rows(mass: _Floats, squares: _Floats) -> float:
    """Return how many equally weighted rows know as much of shares (Rao and Scott's first correction).

    Frauds weigh 1 and a sampled honest payment many times that: a bin of honest payments is known less well than
    their number says.
    """
    total, filled = float(mass.sum()), mass > 0
    if total <= 0:
        return 0.0
    if int(filled.sum()) < 2:
        return total**2 / float(squares.sum())
    spread = float(np.sum(squares[filled] / mass[filled]) * total - squares.sum())
    return (int(filled.sum()) - 1) * total**2 / spread
