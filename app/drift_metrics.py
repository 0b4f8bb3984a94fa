"""Metrics of drift, which the process `pixguard learner` measures on the payments and labels that pass through it."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from models.drift.look import Look

__all__ = [
    "ALARMS",
    "CALIBRATION",
    "COMPARED_AT",
    "ESTIMATED",
    "FAILURES",
    "LABELS",
    "LOOK_SECONDS",
    "PSI",
    "REALISED",
    "REFERENCE_VERSION",
    "ROWS",
    "forget",
    "tell",
]

PSI = Gauge("pixguard_drift_psi", "Population stability index: of each score, and the greatest of a family", ["of"])
ALARMS = Gauge("pixguard_drift_alarms", "Features and scores whose values, or missing share, have changed", ["change"])
REFERENCE_VERSION = Gauge("pixguard_drift_reference_version", "Version whose training window is compared with; 0: none")
ROWS = Gauge("pixguard_drift_rows", "Payments in the window of the last look")
LABELS = Gauge("pixguard_drift_labels", "Matured labels in the window of the last look")
COMPARED_AT = Gauge("pixguard_drift_compared_seconds", "When the last look was taken, epoch seconds")
LOOK_SECONDS = Gauge("pixguard_drift_look_seconds", "How long the last look took")
FAILURES = Counter("pixguard_drift_failures_total", "Looks that could not be taken", ["cause"])
ESTIMATED = Gauge(
    "pixguard_performance_estimated",
    "What scores will turn out to be worth, before labels (CBPE)",
    ["score", "measure"],
)
REALISED = Gauge(
    "pixguard_performance_realised", "What scores were worth on labels that have matured", ["score", "measure"]
)
CALIBRATION = Gauge(
    "pixguard_calibration_deviations",
    "Frauds that came less those that probabilities promised, in standard errors: beyond 2.6 the estimate is off",
    ["score"],
)

_MEASURES = ("average_precision", "recall_at_1pct", "log_loss", "calibration_error", "fraud_share")


def tell(look: Look, version: int, now_s: float, took_s: float) -> None:
    """Set all gauges to what a look has found."""
    forget()
    REFERENCE_VERSION.set(version)
    ROWS.set(look.rows)
    LABELS.set(look.matured)
    COMPARED_AT.set(now_s)
    LOOK_SECONDS.set(took_s)
    for name, value in look.worst().items():
        PSI.labels(name).set(value)
    if look.drift.findings:
        ALARMS.labels("shifted").set(sum(each.shifted for each in look.drift.findings))
        ALARMS.labels("missing").set(sum(each.missing_changed for each in look.drift.findings))
    for gauge, told in ((ESTIMATED, look.estimates), (REALISED, look.realised)):
        for score, metrics in told.items():
            for name in _MEASURES:
                if name in metrics:
                    gauge.labels(score, name).set(metrics[name].estimate)
    for score, gap in look.gaps.items():
        CALIBRATION.labels(score).set(gap.deviations)


def forget() -> None:
    """Drop what an earlier look has found: a score that is gone must not stay as it was."""
    for gauge in (PSI, ALARMS, ESTIMATED, REALISED, CALIBRATION):
        gauge.clear()
