"""Every metric, declared once; `/metrics` of the worker's web view exposes them."""

from __future__ import annotations

from collections import Counter as CounterOf
from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from app.domain.fields import FIELDS_BY_NAME
from app.domain.rejection import Rejection

__all__ = [
    "BATCH_SECONDS",
    "CHECKPOINT_EXPORT_SECONDS",
    "CHECKPOINT_ROWS",
    "CHECKPOINT_SECONDS",
    "DECISIONS",
    "DECISION_SECONDS",
    "IDS",
    "MARKERS",
    "MODELS_REFUSED",
    "MODEL_VERSION",
    "OUTBOX_JOBS",
    "PROFILES",
    "RECOVERED_ROWS",
    "RECOVERY_ROWS",
    "RECOVERY_ROWS_LEFT",
    "REGISTRY_UP",
    "REJECTED",
    "REPEATS",
    "RULES_FIRED",
    "TRANSACTIONS",
    "count_rejections",
]

# From 1 ms to 10 s: the target is p99 < 10 ms, a catch-up after a restart takes seconds.
_LATENCY_BUCKETS_S = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

TRANSACTIONS = Counter("pixguard_transactions_total", "Transactions accepted by stage 1", ["partition"])
REJECTED = Counter("pixguard_rejected_total", "Messages sent to the dead letter topic", ["path", "reason"])
MARKERS = Counter("pixguard_markers_total", "Confirmed-fraud markers applied to receivers, cancellations included")
REPEATS = Counter("pixguard_repeats_total", "Messages recognised as repeats, by what repeated them", ["source"])
DECISIONS = Counter("pixguard_decisions_total", "Decisions taken", ["decision"])
RULES_FIRED = Counter("pixguard_rules_fired_total", "Transactions on which a rule fired", ["rule"])
MODEL_VERSION = Gauge("pixguard_model_version", "Version of the model that this worker has read; 0: none", ["role"])
MODELS_REFUSED = Counter("pixguard_models_refused_total", "Models that were not put in force", ["role"])
REGISTRY_UP = Gauge("pixguard_registry_up", "Whether the last look at the registry of models was answered")
DECISION_SECONDS = Histogram(
    "pixguard_decision_seconds",
    "From the transaction's Kafka timestamp to its decision's acknowledgement, slowest of each batch",
    buckets=_LATENCY_BUCKETS_S,
)
BATCH_SECONDS = Histogram(
    "pixguard_batch_seconds", "Time that one batch holds the event loop", ["stage"], buckets=_LATENCY_BUCKETS_S
)
CHECKPOINT_SECONDS = Histogram(
    "pixguard_checkpoint_seconds", "From snapshot to acknowledged checkpoint", ["table"], buckets=_LATENCY_BUCKETS_S
)
CHECKPOINT_EXPORT_SECONDS = Histogram(
    "pixguard_checkpoint_export_seconds",
    "Time that one snapshot holds the event loop",
    ["table"],
    buckets=_LATENCY_BUCKETS_S,
)
CHECKPOINT_ROWS = Counter("pixguard_checkpoint_rows_total", "Rows written to the changelog", ["table"])
RECOVERED_ROWS = Counter("pixguard_recovered_rows_total", "Rows read back from the changelog", ["table"])
RECOVERY_ROWS = Gauge("pixguard_recovery_rows", "Changelog rows that the last recovery had to read", ["table"])
RECOVERY_ROWS_LEFT = Gauge("pixguard_recovery_rows_left", "Of these, rows that are not read yet", ["table"])
PROFILES = Gauge("pixguard_profiles", "Profiles in memory", ["table", "partition"])
IDS = Gauge("pixguard_remembered_ids", "end_to_end_ids remembered", ["table", "partition"])
OUTBOX_JOBS = Gauge("pixguard_outbox_jobs", "Batches of outputs that wait to be sent")


def count_rejections(rejections: Iterable[Rejection]) -> None:
    """Count dead letters by where and of what kind the fault is; never by what the message said."""
    for (path, reason), count in CounterOf((fault.path, fault.reason) for fault in rejections).items():
        # A path may name an unknown field, which the sender chose: one label for all of those.
        known = path if path.removeprefix("$.") in FIELDS_BY_NAME or path in {"$", "kafka.key"} else "other"
        REJECTED.labels(known, reason).inc(count)
