"""One look at a stretch of the stream: what it looks like against the training window, and how good its scores are.

`pixguard drift` and the learner's process take the same look, each at payments that it has read itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.domain.labelled import Labelled
from app.domain.vectors import Vectors
from models.batch.model import BatchModel
from models.batch.training_set import TrainingSet
from models.drift.against_training import LEAST_ROWS, Bars, Drift, Finding, compare
from models.drift.performance import CalibrationGap, calibration_gap, expected_performance, realised_performance
from models.drift.reference import DriftError, Reference, Sample
from models.quality.evaluation import Interval
from tables.catalog import CATALOG
from tables.layout import DAY_MS

__all__ = [
    "FAMILY_OF",
    "MATURED_DTYPE",
    "SCORES",
    "DelayTold",
    "Look",
    "look",
    "matured_rows",
    "reference_of",
]

SCORES = ("score", "batch", "online", "rules")
"""Scores, the one that decisions quote first; rules' scores are no probabilities."""

MATURED_DTYPE = np.dtype([("known_at", "i8"), ("label", "i1"), ("weight", "f8"), *((name, "f4") for name in SCORES)])
"""A label that has matured, with what its payment was scored; NaN where there was no such score."""

FAMILY_OF = {entry.name: entry.family.value for entry in CATALOG.entries} | dict.fromkeys(SCORES, "scores")
"""By feature or score, what it belongs to."""

_LEAST_FRAUDS = 5
_TURNS_MS = {"hour_of_day_sin": DAY_MS, "hour_of_day_cos": DAY_MS, "night": DAY_MS, "weekday_number": 7 * DAY_MS,
             "month_day": 31 * DAY_MS}  # fmt: skip
"""What the calendar alone says tells of the payments only once a window holds a whole turn of it."""


@dataclass(frozen=True, slots=True)
class DelayTold:
    """How long it took until changes of labels were known, from the payments' events on.

    Parameters
    ----------
    count
        Of the changes.
    median_s, p90_s
        Half of them, and nine in ten, came sooner; NaN where there were none.
    """

    count: int = 0
    median_s: float = math.nan
    p90_s: float = math.nan

    @classmethod
    def of(cls, delays_ms: Sequence[int] | NDArray[Any]) -> DelayTold:
        """Tell of delays in milliseconds."""
        if not len(delays_ms):
            return cls()
        median, late = np.quantile(np.asarray(delays_ms, np.float64) / 1000.0, (0.5, 0.9))
        return cls(len(delays_ms), float(median), float(late))


@dataclass(frozen=True, slots=True)
class Look:
    """What one look has found.

    Parameters
    ----------
    drift
        Of features and scores, scores by their names in `SCORES`.
    rows, begin, until
        Payments in the window, and its extent in event time, epoch ms.
    estimates
        By score: what it will turn out to be worth; see `models.drift.performance.expected_performance`.
    matured, frauds
        Labels that have matured in the window, and how many of them were frauds.
    realised, gaps
        By score: what it was worth on them, and whether its probabilities held.
    delay
        Of changes of labels.
    """

    drift: Drift
    rows: int
    begin: int
    until: int
    estimates: dict[str, dict[str, Interval]]
    matured: int
    frauds: int
    realised: dict[str, dict[str, Interval]]
    gaps: dict[str, CalibrationGap]
    delay: DelayTold

    def worst(self) -> dict[str, float]:
        """Return the greatest PSI of each family of features, and of each score by its name."""
        found: dict[str, float] = {}
        for each in self.drift.findings:
            name = each.name if each.name in SCORES else FAMILY_OF.get(each.name, "unknown")
            if not math.isnan(each.psi):
                found[name] = max(found.get(name, 0.0), each.psi)
        return found

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain values, None for what is not known."""
        return {
            "alarm_rate": self.drift.alarm_rate,
            "drifted": [each.name for each in self.drift.alarms],
            "window": {"rows": self.rows, "from": self.begin, "until": self.until},
            "findings": [_plain(each) for each in self.drift.findings],
            "estimated": _intervals(self.estimates),
            "matured": {"labels": self.matured, "frauds": self.frauds},
            "realised": _intervals(self.realised),
            "calibration": {name: {**gap._asdict(), "holds": gap.holds} for name, gap in self.gaps.items()},
            "label_delay": {
                "changes": self.delay.count,
                "median_s": _number(self.delay.median_s),
                "p90_s": _number(self.delay.p90_s),
            },
        }


def _plain(finding: Finding) -> dict[str, Any]:
    numbers = {name: _number(value) for name, value in finding._asdict().items() if name != "name"}
    family = FAMILY_OF.get(finding.name, "unknown")
    return {"name": finding.name, "family": family, "verdict": finding.verdict, **numbers}


def _intervals(found: dict[str, dict[str, Interval]]) -> dict[str, Any]:
    return {
        score: {metric: {key: _number(value) for key, value in each._asdict().items()} for metric, each in told.items()}
        for score, told in found.items()
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


# -- the training window


def reference_of(test: TrainingSet, model: BatchModel, train: TrainingSet | None = None) -> Reference:
    """Describe what a model was trained and judged on.

    Parameters
    ----------
    test
        What it was judged on: of these rows are the scores, for a model is surer of what it has learned from.
    model
        The batch model. Its own probabilities are what `batch` is compared with, and `score` too: what the online
        model has earned in the blend since then shows as a change of `score`.
    train
        What it learned from, whose features are described; None where that is not at hand: the test rows'.

    Raises
    ------
    DriftError
        Without rows.
    """
    rows = test if train is None else train
    chances = model.probabilities(test.vectors).astype(np.float32)
    columns = {"score": chances, "batch": chances, "online": test.online_scores, "rules": test.rules_scores}
    told = {name: values for name, values in columns.items() if not np.isnan(values).all()}
    scores = np.column_stack(list(told.values())) if told else np.empty((len(test), 0), np.float32)
    return Reference.of(
        rows.fingerprint,
        [
            Sample(rows.names, rows.vectors, rows.event_time, rows.weights),
            Sample(tuple(told), scores, test.event_time, test.weights),
        ],
    )


# -- now


def matured_rows(messages: Iterable[Labelled]) -> NDArray[np.void]:
    """Return the labels that have matured among messages; `MATURED_DTYPE`."""
    rows = [
        (each.known_at, each.label, each.weight, each.score, each.batch_score, each.online_score, each.rules_score)
        for each in messages
        if each.kind == "MATURED" and each.label is not None
    ]
    found = np.zeros(len(rows), MATURED_DTYPE)
    for name, column in zip(MATURED_DTYPE.names or (), zip(*rows, strict=True), strict=False):
        found[name] = [math.nan if value is None else value for value in column]
    return found


def look(
    reference: Reference,
    vectors: Vectors,
    matured: NDArray[np.void],
    delays_ms: Sequence[int] | NDArray[Any],
    *,
    version: int = 0,
    chances: NDArray[np.floating[Any]] | None = None,
    bars: Bars | None = None,
    seed: int = 1,
    draws: int = 200,
    resamples: int = 200,
) -> Look:
    """Take a look.

    Parameters
    ----------
    reference
        The champion's training window.
    vectors
        Payments as they came, of the reference's catalog.
    matured
        `MATURED_DTYPE`.
    delays_ms
        Of the changes of labels.
    version
        The champion's: scores that another one took part in are no matter of its window. 0: all count.
    chances
        What the champion says of all vectors, shape (n,), for `batch` in place of what was recorded.
    bars
        What an alarm must pass.
    seed, draws, resamples
        Of estimates and of intervals; with 0 `resamples`, what was realised has none.

    Raises
    ------
    DriftError
        For vectors of another catalog than the reference's.
    """
    scored = vectors.rows["scored"]
    rows, matrix = vectors.rows[scored], vectors.matrix[scored]
    if len(rows) and vectors.fingerprint != reference.fingerprint:
        raise DriftError(
            f"drift: expected payments of the model's feature set {reference.fingerprint}, got {vectors.fingerprint}: "
            "train a model with this version of pixguard, or name one by --reference that was"
        )
    times = rows["event_time"].astype(np.int64)
    ours = rows["batch_version"] == version if version else np.ones(len(rows), np.bool_)
    told_now = {
        "score": (rows["score"][ours], times[ours]),
        "batch": (rows["batch_score"][ours], times[ours]) if chances is None else (np.asarray(chances)[scored], times),
        "online": (rows["online_score"], times),
        "rules": (rows["rules_score"], times),
    }
    samples = [
        *([_features(matrix, times)] if len(rows) else []),
        *(Sample((name,), values[:, None], at) for name, (values, at) in told_now.items()),
    ]
    estimates = {
        name: expected_performance(values[~np.isnan(values)], seed=seed, draws=draws)
        for name, (values, _) in told_now.items()
        if name != "rules" and int((~np.isnan(values)).sum()) >= LEAST_ROWS
    }
    realised, gaps = _on_labels(matured, seed, resamples)
    return Look(
        compare(reference, samples, bars),
        len(rows),
        int(times.min()) if len(times) else 0,
        int(times.max()) + 1 if len(times) else 0,
        estimates,
        len(matured),
        int((matured["label"] == 1).sum()),
        realised,
        gaps,
        DelayTold.of(delays_ms),
    )


def _features(matrix: NDArray[np.float32], times: NDArray[np.int64]) -> Sample:
    """Return the features, without those of which the window holds no whole turn."""
    span_ms = int(times.max() - times.min())
    kept = [at for at, name in enumerate(CATALOG.names) if _TURNS_MS.get(name, 0) <= 1.05 * span_ms]
    return Sample([CATALOG.names[at] for at in kept], matrix[:, kept], times)


def _on_labels(
    matured: NDArray[np.void], seed: int, resamples: int
) -> tuple[dict[str, dict[str, Interval]], dict[str, CalibrationGap]]:
    """Return what each score was worth on labels, as far as there are enough, and whether it kept its word."""
    realised, gaps = {}, {}
    for name in SCORES:
        told = matured[~np.isnan(matured[name])]
        labels, scores, weights = told["label"] == 1, told[name], told["weight"]
        if len(told) < LEAST_ROWS or int(labels.sum()) < _LEAST_FRAUDS:
            continue
        means_chances = name != "rules"
        realised[name] = realised_performance(
            labels, scores, weights, probabilities=means_chances, seed=seed, resamples=resamples
        )
        if means_chances:
            gaps[name] = calibration_gap(labels, scores, weights)
    return realised, gaps
