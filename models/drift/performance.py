"""How good scores are in operation: measured on labels that have matured, and estimated before any has.

The estimate (confidence-based, CBPE) takes calibrated probabilities at their word: a payment of probability p is a
fraud with chance p, and any metric of labels that are drawn so is what will come, give or take. It is worth as much as
the calibration. Where frauds have become likelier than the model believes it sees nothing, which is why it is always
told beside `calibration_gap` on the last labels that matured. Both speak of labels as a bank learns them, which is what
models are calibrated to, and not of frauds that nobody ever reports.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.quality.evaluation import (
    Interval,
    average_precision,
    bootstrap_interval,
    expected_calibration_error,
    log_loss,
    precision_at,
    recall_at,
)

__all__ = ["ALERT_SHARE", "CalibrationGap", "calibration_gap", "expected_performance", "realised_performance"]

ALERT_SHARE = 0.01
"""Of payments, that are looked at."""

_Floats = NDArray[np.float64]
_CHANCE_FLOOR = 1e-12
_ROWS_AT_ONCE = 2_000_000
"""Drawn labels that are held in memory."""


class CalibrationGap(NamedTuple):
    """Frauds that probabilities promised on matured labels, those that came, and the difference in standard errors."""

    expected: float
    came: float
    deviations: float

    @property
    def holds(self) -> bool:
        """Whether chance explains the difference: what estimates rest on (two-sided, 1 %)."""
        return abs(self.deviations) < 2.576


def expected_performance(
    probabilities: ArrayLike, *, seed: int, draws: int = 200, confidence: float = 0.95
) -> dict[str, Interval]:
    """Estimate what scores will turn out to be worth, without labels.

    Parameters
    ----------
    probabilities
        Calibrated, of payments as they came (no sample by label: what was chosen by the label tells of it); shape (n,).
    seed, draws
        Of the labels that are drawn.
    confidence
        Of the intervals, in which the realised value will lie as often.

    Returns
    -------
    By name: average_precision, recall_at_1pct, precision_at_1pct, log_loss, fraud_share. Empty without rows.
    """
    chances = np.sort(np.asarray(probabilities, np.float64))[::-1]
    if np.isnan(chances).any():
        raise ValueError(f"estimate: expected a probability for each row, got {int(np.isnan(chances).sum())} missing")
    if not len(chances):
        return {}
    rng = np.random.default_rng(seed)
    size = max(1, _ROWS_AT_ONCE // len(chances))
    drawn = [_drawn(chances, min(size, draws - done), rng) for done in range(0, draws, size)]
    tails = ((1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0)
    found = {}
    for name in drawn[0]:
        values = np.concatenate([each[name] for each in drawn])
        values = values[np.isfinite(values)]  # without a fraud there is no recall
        if len(values):
            found[name] = Interval(float(values.mean()), *np.quantile(values, tails).tolist())
    return found


def _drawn(chances: _Floats, draws: int, rng: np.random.Generator) -> dict[str, _Floats]:
    """Return each metric of labels that are drawn `draws` times; chances descend."""
    n = len(chances)
    labels = rng.random((draws, n), np.float32) < chances.astype(np.float32)
    # Equal scores are one group, as in `models.quality.evaluation`.
    ends = np.append(np.flatnonzero(np.diff(chances)), n - 1)
    caught = np.cumsum(labels, axis=1, dtype=np.float32)[:, ends].astype(np.float64)
    frauds = caught[:, -1]
    budget = max(ALERT_SHARE * n, 1.0)
    last = int(np.searchsorted(ends + 1, budget))  # the group in which the budget ends takes part in proportion
    before = ends[last - 1] + 1 if last else 0
    part = (budget - before) / (ends[last] + 1 - before)
    already = caught[:, last - 1] if last else 0.0
    alerted = already + part * (caught[:, last] - already)
    kept = np.clip(chances, _CHANCE_FLOOR, 1.0 - _CHANCE_FLOOR)
    odds, base = np.log(kept) - np.log1p(-kept), float(np.log1p(-kept).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        gained = np.diff(caught, axis=1, prepend=0.0) / frauds[:, None]
        return {
            "average_precision": np.where(frauds > 0, (gained * (caught / (ends + 1))).sum(axis=1), np.nan),
            "recall_at_1pct": np.where(frauds > 0, alerted / frauds, np.nan),
            "precision_at_1pct": alerted / budget,
            "log_loss": -(labels @ odds + base) / n,
            "fraud_share": frauds / n,
        }


def realised_performance(
    labels: ArrayLike,
    scores: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    probabilities: bool = True,
    seed: int,
    resamples: int = 200,
) -> dict[str, Interval]:
    """Measure what scores were worth, on labels that have matured.

    Parameters
    ----------
    labels
        1 fraud, 0 none; shape (n,).
    scores
        As they were decided on, shape (n,).
    weights
        Payments that each row stands for.
    probabilities
        Whether scores are meant as such: then log loss and calibration error are told, too.
    seed, resamples
        Of the bootstrap intervals.

    Returns
    -------
    By name, as `expected_performance` and calibration_error; empty without a fraud.
    """
    truth, ranks = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    mass = np.ones(len(truth)) if weights is None else np.asarray(weights, np.float64)
    if not (truth > 0).any():
        return {}

    def at_share(metric: Any) -> Any:  # noqa: ANN401 - of the metrics at a share of alerts
        return lambda one, two, three: metric(one, two, ALERT_SHARE, three)

    metrics: dict[str, Any] = {
        "average_precision": average_precision,
        "recall_at_1pct": at_share(recall_at),
        "precision_at_1pct": at_share(precision_at),
    }
    if probabilities:
        metrics |= {"log_loss": log_loss, "calibration_error": expected_calibration_error}
    found = {
        name: bootstrap_interval(metric, truth, ranks, mass, seed=seed, resamples=resamples)
        for name, metric in metrics.items()
    }
    share = float(np.average(truth, weights=mass))
    return found | {"fraud_share": Interval(share, *_share_interval(truth, mass, share))}


def _share_interval(truth: _Floats, mass: _Floats, share: float) -> tuple[float, float]:
    error = math.sqrt(float(np.sum((mass * (truth - share)) ** 2))) / float(mass.sum())
    return share - 1.96 * error, share + 1.96 * error


def calibration_gap(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> CalibrationGap:
    """Return how many frauds probabilities promised on matured labels, how many came, and what chance makes of it.

    All of shape (n,). The standard error is of the weighted sum of differences, whatever their cause.
    """
    truth, chances = np.asarray(labels, np.float64), np.asarray(probabilities, np.float64)
    mass = np.ones(len(truth)) if weights is None else np.asarray(weights, np.float64)
    differences = mass * (truth - chances)
    error = math.sqrt(float(np.sum(differences**2)))
    came, expected = float(np.sum(mass * truth)), float(np.sum(mass * chances))
    return CalibrationGap(expected, came, (came - expected) / error if error > 0 else 0.0)
