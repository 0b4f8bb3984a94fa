"""What a worker shows of itself: plain data, made by `app/worker.py`, rendered by the pages and the JSON API."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from app.domain.decision import Decision
from tables.recovery import RecoveryProgress

__all__ = ["DecisionView", "PartitionView", "WorkerStatus", "WorkerView"]


class PartitionView(msgspec.Struct, frozen=True, kw_only=True):
    """One shard: where it stands and how large it is."""

    table: str
    partition: int
    role: Literal["active", "standby"]
    profiles: int
    remembered_ids: int
    dirty_rows: int
    checkpoints: int
    recovered_rows: int
    changelog_offset: int | None
    next_offset: dict[str, int]


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The worker as a whole."""

    name: str
    version: str
    phase: Literal["warming up", "joining", "recovering", "ready", "stopping"]
    broker: str
    app_id: str
    started_at_ms: int
    transactions: int
    decisions: dict[str, int]
    rejected: int
    repeats: int
    transactions_per_s: float
    rules_version: str
    features_version: str
    lists_version: int
    recovery: RecoveryProgress | None = None
    """How far the recovery is that is going on."""


class DecisionView(msgspec.Struct, frozen=True, kw_only=True):
    """A decision with what an analyst needs beside it; identifiers are pseudonyms (hashes), never clear.

    `sentences` has what the features among its reasons say of the payment, in English and in Portuguese.
    """

    decision: Decision
    amount_centavos: int
    initiation: str
    payer: str
    receiver: str
    payer_ispb: str
    receiver_ispb: str
    values: dict[str, float | None]
    sentences: dict[str, tuple[str, str]] = {}


class WorkerView(Protocol):
    """The worker, as the web view may see it; read-only and cheap."""

    def status(self) -> WorkerStatus:
        """State and counters."""

    def partitions(self) -> list[PartitionView]:
        """All shards of this worker."""

    def recent_decisions(self, limit: int, action: str | None = None) -> list[DecisionView]:
        """Newest first; `action` keeps only APPROVE, HOLD or DENY."""

    def profile(self, kind: str, value: str) -> dict[str, object] | None:
        """A profile by `account` (ISPB/ACCOUNT) or `key` (a Pix key), None where this worker has none."""
