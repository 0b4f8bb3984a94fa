"""How good scores of a stream are, and how far chance alone would move that: whole stretches of time are drawn again.

Frauds of one story come within hours and look alike, so a payment more or less is not what chance changes: a story
more or less is. Drawing stretches of time instead of payments keeps stories together. Every score is judged by the same
draws, so differences between two are far surer than either alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.quality.assessment import ALERT_SHARES, share_name
from models.quality.evaluation import Interval

__all__ = ["RANKING", "Draws", "Ranked", "draw", "mean_draws"]

_Floats = NDArray[np.float64]

_RECALLS = {share: f"recall_at_{share_name(share)}" for share in ALERT_SHARES}
_VALUES = {share: f"value_caught_at_{share_name(share)}" for share in ALERT_SHARES}

RANKING = ("average_precision", *_RECALLS.values())
"""Metrics that tell which of two scores finds more frauds: more is better."""

_BINS = 20
_CHANCE_FLOOR = 1e-12


class Draws:
    """A metric, and what it would have been had chance drawn other stretches of the stream.

    Parameters
    ----------
    estimate
        Of the stream as it was.
    drawn
        Of the draws, shape (resamples,), NaN where a draw has no fraud.
    """

    __slots__ = ("drawn", "estimate")

    def __init__(self, estimate: float, drawn: _Floats) -> None:
        self.estimate, self.drawn = estimate, drawn

    def __sub__(self, other: Draws) -> Draws:
        """By how much this one is greater, in each draw."""
        return Draws(self.estimate - other.estimate, self.drawn - other.drawn)

    @property
    def error(self) -> float:
        """Standard error."""
        finite = self.drawn[np.isfinite(self.drawn)]
        return float(finite.std()) if len(finite) else float("nan")

    def interval(self, confidence: float = 0.95) -> Interval:
        """Return the estimate with its percentile interval."""
        finite = self.drawn[np.isfinite(self.drawn)]
        if not len(finite):
            return Interval(self.estimate, float("nan"), float("nan"))
        tail = (1.0 - confidence) / 2.0
        low, high = np.quantile(finite, (tail, 1.0 - tail))
        return Interval(self.estimate, float(low), float(high))


def mean_draws(several: Sequence[Draws]) -> Draws:
    """Return the mean over independent streams: of estimates, and of draws one by one."""
    return Draws(float(np.mean([each.estimate for each in several])), np.mean([each.drawn for each in several], axis=0))


class Ranked:
    """One score of a stream, sorted once; then any weights of its payments are judged quickly.

    Parameters
    ----------
    labels
        1 fraud, 0 none; shape (n,).
    scores
        Higher is more suspicious; shape (n,). Equal scores are one group: alerted on together, in parts at the edge.
    weights, amounts
        How many payments each row stands for, and their money in any unit; shape (n,).
    probabilities
        Whether scores are meant as probabilities: then their log loss and calibration are judged too.
    """

    def __init__(
        self, labels: ArrayLike, scores: ArrayLike, weights: ArrayLike, amounts: ArrayLike, *, probabilities: bool
    ) -> None:
        chances = np.asarray(scores, np.float64)
        self._order = np.argsort(-chances, kind="stable")
        chances = chances[self._order]
        self._weights = np.asarray(weights, np.float64)[self._order]
        self._frauds = np.asarray(labels, np.float64)[self._order]
        self._amounts = np.asarray(amounts, np.float64)[self._order]
        self._ends = np.append(np.flatnonzero(np.diff(chances)), len(chances) - 1)
        self._chances = chances if probabilities else None
        if probabilities:
            kept = np.clip(chances, _CHANCE_FLOOR, 1.0 - _CHANCE_FLOOR)
            self._losses = -np.where(self._frauds > 0, np.log(kept), np.log1p(-kept))
            self._bins = self._bins_of_rows()

    def _bins_of_rows(self) -> NDArray[np.int64]:
        """Return the bin of each row, of about equal mass, by the stream as it was; equal scores share one."""
        ends = np.cumsum(self._weights)[self._ends]
        groups = np.repeat(np.arange(len(self._ends)), np.diff(self._ends, prepend=-1))
        # Mass of what is less suspicious, where each group begins.
        below = 1.0 - ends / ends[-1]
        return np.asarray(np.clip(below * _BINS + 1e-9, 0, _BINS - 1), np.int64)[groups]

    def metrics(self, copies: ArrayLike) -> dict[str, float]:
        """Return all metrics where each row is there so many times (shape (n,), in the rows' own order)."""
        mass = self._weights * np.asarray(copies, np.float64)[self._order]
        frauds = mass * self._frauds
        alerts, caught, money = (np.cumsum(column)[self._ends] for column in (mass, frauds, frauds * self._amounts))
        precision = np.divide(caught, alerts, out=np.zeros(len(alerts)), where=alerts > 0)
        # No BLAS: its threads wait for one another, and the order of its additions depends on them.
        found = {"average_precision": _ratio(float((precision * np.diff(caught, prepend=0.0)).sum()), caught[-1])}
        steps = np.concatenate(([0.0], alerts))
        for names, part in ((_RECALLS, caught), (_VALUES, money)):
            reached = np.concatenate(([0.0], part))
            for share, name in names.items():
                found[name] = _ratio(float(np.interp(share * alerts[-1], steps, reached)), part[-1])
        if self._chances is not None:
            found["log_loss"] = _ratio(float((mass * self._losses).sum()), alerts[-1])
            gaps = np.bincount(self._bins, mass * self._chances - frauds, _BINS)
            found["calibration_error"] = _ratio(float(np.abs(gaps).sum()), alerts[-1])
        return found


def draw(
    labels: NDArray[Any],
    scores: Mapping[str, NDArray[Any]],
    times: NDArray[np.int64],
    weights: NDArray[Any],
    amounts: NDArray[Any],
    *,
    probabilities: Sequence[str],
    seed: int,
    resamples: int = 200,
    stretches: int = 240,
) -> dict[str, dict[str, Draws]]:
    """Judge several scores of one stream by the same draws.

    Parameters
    ----------
    labels, weights, amounts
        As for `Ranked`; shape (n,), n above 0.
    scores
        By name, each of shape (n,).
    times
        Of the payments, epoch ms, ascending; shape (n,).
    probabilities
        Names of those that are meant as probabilities.
    seed
        Same seed, same draws.
    resamples, stretches
        How often is drawn, and into how many stretches of equal length the stream is cut.

    Returns
    -------
    By score and metric.
    """
    ranked = {
        name: Ranked(labels, values, weights, amounts, probabilities=name in probabilities)
        for name, values in scores.items()
    }
    begin, end = int(times[0]), int(times[-1]) + 1
    stretch = (times - begin) * stretches // (end - begin)
    estimates = {name: each.metrics(np.ones(len(times))) for name, each in ranked.items()}
    drawn = {name: {metric: np.full(resamples, np.nan) for metric in found} for name, found in estimates.items()}
    rng = np.random.default_rng(seed)
    for number in range(resamples):
        copies = rng.multinomial(stretches, np.full(stretches, 1.0 / stretches))[stretch]
        for name, each in ranked.items():
            for metric, value in each.metrics(copies).items():
                drawn[name][metric][number] = value
    return {
        name: {metric: Draws(value, drawn[name][metric]) for metric, value in found.items()}
        for name, found in estimates.items()
    }


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")
