"""How good scores are: exact, weighted metrics for rare frauds, and how far chance alone would move them.

All take labels (1 fraud, 0 none) and scores (higher: more suspicious), shape (n,), and weights where rows stand for
more than themselves. Equal scores are one group: no metric depends on the order of the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Curve",
    "Interval",
    "average_precision",
    "bootstrap_difference",
    "bootstrap_interval",
    "brier_score",
    "calibration_bins",
    "expected_calibration_error",
    "log_loss",
    "precision_at",
    "precision_recall_curve",
    "recall_at",
    "value_recall_at",
]

_Floats = NDArray[np.float64]
_CHANCE_FLOOR = 1e-12
"""Probabilities are kept so far from 0 and 1 where a logarithm is taken."""


class Curve(NamedTuple):
    """A precision-recall curve, one point per distinct score, from the highest on; each float64, shape (k,)."""

    precision: _Floats
    recall: _Floats
    thresholds: _Floats


class Interval(NamedTuple):
    """An estimate and its bootstrap confidence interval."""

    estimate: float
    low: float
    high: float


def precision_recall_curve(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> Curve:
    """Return precision and recall of alerting on all scores from a threshold on."""
    truth, ranks, mass = _columns(labels, scores, weights)
    order = np.argsort(-ranks, kind="stable")
    ranks, truth, mass = ranks[order], truth[order], mass[order]
    ends = np.append(np.flatnonzero(np.diff(ranks)), len(ranks) - 1) if len(ranks) else np.zeros(0, np.int64)
    caught, alerts = np.cumsum(truth * mass)[ends], np.cumsum(mass)[ends]
    everything = float((truth * mass).sum())
    recall = caught / everything if everything > 0 else np.full(len(ends), np.nan)
    return Curve(caught / alerts, recall, ranks[ends])


def average_precision(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Return the area under the precision-recall curve, without interpolation (sum of precision x recall gained).

    NaN where no row is a fraud.

    Examples
    --------
    >>> average_precision([0, 1, 0, 1], [0.1, 0.9, 0.8, 0.7])
    0.8333333333333333
    """
    curve = precision_recall_curve(labels, scores, weights)
    if not len(curve.recall):
        return float("nan")
    return float(np.sum(curve.precision * np.diff(curve.recall, prepend=0.0)))


def recall_at(labels: ArrayLike, scores: ArrayLike, share: float, weights: ArrayLike | None = None) -> float:
    """Return the share of frauds among the `share` of rows that look worst.

    Of equal scores at the edge, the part that still fits is taken of each: what a random choice gives on average.

    Examples
    --------
    >>> recall_at([1, 0, 0, 1], [0.9, 0.5, 0.4, 0.1], 0.25)
    0.5
    """
    truth, ranks, mass = _columns(labels, scores, weights)
    return _ratio(truth * mass * _alerted(ranks, mass, share), truth * mass)


def value_recall_at(
    labels: ArrayLike, scores: ArrayLike, amounts: ArrayLike, share: float, weights: ArrayLike | None = None
) -> float:
    """Return the share of defrauded money (`amounts`, any unit) within the `share` of rows that look worst."""
    truth, ranks, mass = _columns(labels, scores, weights)
    money = truth * mass * np.asarray(amounts, np.float64)
    return _ratio(money * _alerted(ranks, mass, share), money)


def precision_at(labels: ArrayLike, scores: ArrayLike, share: float, weights: ArrayLike | None = None) -> float:
    """Return the share of frauds in the `share` of rows that look worst."""
    truth, ranks, mass = _columns(labels, scores, weights)
    alerted = mass * _alerted(ranks, mass, share)
    return _ratio(truth * alerted, alerted)


def brier_score(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Return the mean squared error of probabilities."""
    truth, chances, mass = _columns(labels, probabilities, weights)
    return _ratio(mass * (chances - truth) ** 2, mass)


def log_loss(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Return the mean surprise in nats at the truth, given probabilities."""
    truth, chances, mass = _columns(labels, probabilities, weights)
    chances = np.clip(chances, _CHANCE_FLOOR, 1.0 - _CHANCE_FLOOR)
    return _ratio(-mass * np.where(truth > 0, np.log(chances), np.log1p(-chances)), mass)


def calibration_bins(
    labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None, bins: int = 20
) -> tuple[_Floats, _Floats, _Floats]:
    """Return mean probability, share of frauds and mass of bins of about equal mass; equal values share a bin.

    Returns
    -------
    Three float64 arrays of shape (at most `bins`,), by ascending probability.
    """
    truth, chances, mass = _columns(labels, probabilities, weights)
    order = np.argsort(chances, kind="stable")
    truth, chances, mass = truth[order], chances[order], mass[order]
    starts = np.concatenate(([True], np.diff(chances) > 0))[: len(chances)]
    before = np.cumsum(mass) - mass
    # A group of equal values goes where it begins.
    begin = np.maximum.accumulate(np.where(starts, before, 0.0))
    total = float(mass.sum()) or 1.0
    where = np.minimum((begin / total * bins).astype(np.int64), bins - 1)
    masses = np.asarray(np.bincount(where, mass, bins), np.float64)
    kept = masses > 0
    means = np.bincount(where, mass * chances, bins)[kept] / masses[kept]
    rates = np.bincount(where, mass * truth, bins)[kept] / masses[kept]
    return means, rates, masses[kept]


def expected_calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None, bins: int = 20
) -> float:
    """Return the mean distance between what was promised and what happened, over bins of about equal mass."""
    means, rates, masses = calibration_bins(labels, probabilities, weights, bins)
    return _ratio(masses * np.abs(means - rates), masses)


def bootstrap_interval(
    metric: Callable[..., float],
    *arrays: NDArray[Any],
    seed: int,
    resamples: int = 200,
    confidence: float = 0.95,
) -> Interval:
    """Return a metric and where it would lie had other rows been drawn (percentile bootstrap).

    Parameters
    ----------
    metric
        Called with the resampled arrays, in their order; resamples for which it is NaN are left out.
    arrays
        Columns of the same length, resampled together.
    seed
        Same seed, same interval.
    resamples, confidence
        How many, and the probability mass of the interval.
    """
    rng = np.random.default_rng(seed)
    n = len(arrays[0])
    found = np.full(resamples, np.nan)
    for number in range(resamples):
        # Sorted, since memory is then read in its order; what is drawn stays the same.
        rows = np.sort(rng.integers(0, n, n)) if n else np.zeros(0, np.int64)
        found[number] = metric(*(column[rows] for column in arrays))
    return _interval(metric(*arrays), found, confidence)


def bootstrap_difference(
    metric: Callable[..., float],
    labels: NDArray[Any],
    first: NDArray[Any],
    second: NDArray[Any],
    *more: NDArray[Any],
    seed: int,
    resamples: int = 200,
    confidence: float = 0.95,
) -> Interval:
    """Return by how much `second` beats `first` on the same rows: chance moves both together, so less is noise.

    Parameters
    ----------
    metric
        Called as ``metric(labels, scores, *more)``.
    labels, first, second, more
        Columns of the same length.
    seed, resamples, confidence
        As for `bootstrap_interval`.
    """

    def difference(truth: NDArray[Any], one: NDArray[Any], other: NDArray[Any], *rest: NDArray[Any]) -> float:
        return metric(truth, other, *rest) - metric(truth, one, *rest)

    return bootstrap_interval(
        difference, labels, first, second, *more, seed=seed, resamples=resamples, confidence=confidence
    )


def _interval(estimate: float, found: _Floats, confidence: float) -> Interval:
    found = found[np.isfinite(found)]
    if not len(found):
        return Interval(float(estimate), float("nan"), float("nan"))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(found, (tail, 1.0 - tail))
    return Interval(float(estimate), float(low), float(high))


def _columns(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None) -> tuple[_Floats, _Floats, _Floats]:
    truth, ranks = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    mass = np.ones(len(ranks)) if weights is None else np.asarray(weights, np.float64)
    if not truth.shape == ranks.shape == mass.shape:
        raise ValueError(
            f"metric: expected labels, scores and weights of one length, got {truth.shape}, {ranks.shape}, {mass.shape}"
        )
    if np.isnan(ranks).any():
        raise ValueError(f"metric: expected a score for each row, got {int(np.isnan(ranks).sum())} missing; drop them")
    return truth, ranks, mass


def _alerted(scores: _Floats, mass: _Floats, share: float) -> _Floats:
    """Which part of each row fits into the budget of alerts, 0 to 1; shape (n,)."""
    if not 0 < share <= 1:
        raise ValueError(f"share of alerts: expected above 0 and at most 1, got {share}")
    budget = share * float(mass.sum())
    levels, group = np.unique(-scores, return_inverse=True)  # the highest score first
    masses = np.bincount(group, mass, len(levels))
    before = np.cumsum(masses) - masses
    room = np.clip(budget - before, 0.0, masses)
    parts = np.divide(room, masses, out=np.zeros(len(levels)), where=masses > 0)
    return np.asarray(parts[group], np.float64)


def _ratio(part: _Floats, whole: _Floats) -> float:
    total = float(whole.sum())
    return float(part.sum()) / total if total > 0 else float("nan")
