"""What scores are worth on a stretch of labelled payments: overall, against each other, and by segment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.domain.fields import INITIATIONS
from models.batch.training_set import TrainingSet
from models.quality.evaluation import (
    Interval,
    average_precision,
    bootstrap_difference,
    bootstrap_interval,
    brier_score,
    expected_calibration_error,
    log_loss,
    precision_at,
    recall_at,
    value_recall_at,
)

__all__ = ["ALERT_SHARES", "LEAST_FRAUDS", "assess", "baselines", "by_segment", "compare", "segments", "share_name"]

ALERT_SHARES = (0.005, 0.01)
"""Alerts that a bank can look at, as shares of its payments."""

LEAST_FRAUDS = 10
"""A segment with fewer is reported, but nothing is concluded from it."""

_Scores = NDArray[np.floating[Any]]


def share_name(share: float) -> str:
    """Return a share of alerts as metrics have it in their names.

    Examples
    --------
    >>> share_name(0.005)
    '0.5pct'
    """
    return f"{share * 100:g}pct"


def baselines(rows: TrainingSet) -> dict[str, _Scores]:
    """Return the scores that cost nothing: the amount alone, and the rules where they were recorded."""
    found: dict[str, _Scores] = {"amount": rows.amounts.astype(np.float64)}
    if not np.isnan(rows.rules_scores).any():
        found["rules"] = rows.rules_scores.astype(np.float64)
    return found


def assess(
    rows: TrainingSet, scores: _Scores, *, probabilities: bool, seed: int, resamples: int = 200
) -> dict[str, Any]:
    """Return the metrics of a score, as plain values.

    Parameters
    ----------
    rows
        Labelled.
    scores
        Higher is more suspicious; shape (n,).
    probabilities
        Whether scores are meant as probabilities: then their calibration is measured too.
    seed, resamples
        Of the interval of the average precision.
    """
    labels, weights = rows.labels == 1, rows.weights
    interval = bootstrap_interval(average_precision, labels, scores, weights, seed=seed, resamples=resamples)
    found: dict[str, Any] = {"average_precision": interval.estimate, "average_precision_interval": interval[1:]}
    for share in ALERT_SHARES:
        name = share_name(share)
        found[f"recall_at_{name}"] = recall_at(labels, scores, share, weights)
        found[f"value_caught_at_{name}"] = value_recall_at(labels, scores, rows.amounts, share, weights)
        found[f"precision_at_{name}"] = precision_at(labels, scores, share, weights)
    if probabilities:
        found["calibration_error"] = expected_calibration_error(labels, scores, weights)
        found["brier_score"] = brier_score(labels, scores, weights)
        found["log_loss"] = log_loss(labels, scores, weights)
        found["mean_probability"] = float(np.average(scores, weights=weights))
        found["fraud_share"] = float(np.average(labels, weights=weights))
    return found


def compare(rows: TrainingSet, first: _Scores, second: _Scores, *, seed: int, resamples: int = 200) -> Interval:
    """Return by how much the average precision of `second` lies above that of `first`, on the same rows."""
    return bootstrap_difference(
        average_precision, rows.labels == 1, first, second, rows.weights, seed=seed, resamples=resamples
    )


def segments(rows: TrainingSet) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Yield kind, name and rows (mask, shape (n,)) of each segment with a fraud in it.

    A typology's segment is its frauds among all honest payments; channel and time of day divide both.
    """
    frauds = rows.labels == 1
    for name in sorted(set(rows.typologies[frauds].tolist()) - {""}):
        yield "typology", name, ~frauds | (rows.typologies == name)
    for code in np.unique(rows.channels[frauds]).tolist():
        yield "channel", INITIATIONS[code - 1] if code else "unknown", rows.channels == code
    for name, mask in (("night", rows.night), ("day", ~rows.night)):
        if (frauds & mask).any():
            yield "hours", name, mask


def by_segment(
    rows: TrainingSet, scores: Mapping[str, _Scores], share: float = ALERT_SHARES[-1]
) -> list[dict[str, Any]]:
    """Return, for each segment, what each score is worth there.

    Its frauds' share that is caught counts alerts over all payments: a segment has no budget of its own.
    """
    found = []
    for kind, name, mask in segments(rows):
        part = rows.take(mask)
        labels = part.labels == 1
        row: dict[str, Any] = {"kind": kind, "name": name, "rows": len(part), "frauds": int(labels.sum())}
        for scorer, values in scores.items():
            row[f"{scorer}_average_precision"] = average_precision(labels, values[mask], part.weights)
            ours = (rows.labels == 1) & mask
            # Rows of other segments take part in the budget, and their frauds do not count.
            row[f"{scorer}_recall_at_{share_name(share)}"] = recall_at(ours, values, share, rows.weights)
        found.append(row)
    return found
