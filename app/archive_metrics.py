"""Metrics of the process `pixguard archive`; its `/metrics` exposes them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = ["COMMIT_SECONDS", "DELAY_SECONDS", "LAG_ROWS", "LOST", "OLDEST_SECONDS", "REJECTED", "RETRIES", "ROWS"]

_COMMIT_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_DELAY_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300, 3600, 86_400)

ROWS = Counter("pixguard_lake_rows_total", "Rows written to the lake", ["table"])
COMMIT_SECONDS = Histogram(
    "pixguard_lake_commit_seconds", "From decoding a commit's rows to its end", ["table"], buckets=_COMMIT_BUCKETS_S
)
DELAY_SECONDS = Histogram(
    "pixguard_lake_delay_seconds",
    "From the Kafka timestamp of a commit's oldest row to the commit's end",
    ["table"],
    buckets=_DELAY_BUCKETS_S,
)
LAG_ROWS = Gauge("pixguard_lake_lag_rows", "Rows in the topic's own partitions that are not in the lake", ["table"])
OLDEST_SECONDS = Gauge(
    "pixguard_lake_oldest_unwritten_seconds", "Age of the oldest row read and not written", ["table"]
)
RETRIES = Counter("pixguard_lake_retries_total", "Commits and look-ups that storage failed", ["table"])
REJECTED = Counter("pixguard_lake_rejected_total", "Messages that could not be read: dead letters", ["table", "reason"])
LOST = Counter("pixguard_lake_lost_rows_total", "Rows that their topic dropped before they were written", ["table"])
