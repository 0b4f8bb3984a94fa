"""From what was measured to what one event, one batch, one profile and one message cost: the model's constants."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.topics import DECISIONS, ENRICHED, FEATURES, TRANSACTIONS
from ops.bench.measured import Growth, History, Measured, Replicas

__all__ = ["CHANGELOG", "Costs", "costs_of", "growth_line"]

CHANGELOG = "changelog"
"""Stands for both changelogs where bytes are counted by topic."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured, as the model needs it.

    Parameters
    ----------
    event_us, event_customers
        Of one core, both stages with Kafka, checkpoints included, per event; at how many customers in one worker.
    doubling_us
        More per event each time that a worker's customers double: caches miss more often.
    batch_us, full_batches
        Per batch of either stage, with Kafka; and batches per event where all are full, which `event_us` includes.
    receiver_share
        Of `event_us` that is the receivers' stage.
    rest_share
        Of a core, with nothing to do.
    histories
        By payments of a customer in 30 days: a profile's memory and changelog bytes, and what it takes to use it.
    rows_per_customer
        Profiles in both stages.
    id_bytes
        Memory of a remembered end_to_end_id, per stage.
    worker_bytes
        A worker without state.
    checkpoint_rows, checkpoint_id_bytes
        Per event, both stages: profiles written down, and bytes of ids and positions beside them.
    start_s, recovery_us
        From the start of a worker to its place in the group, and per changelog row, of a customer who has paid once,
        that it reads back.
    byte_us
        Per byte more of a changelog row.
    passage_ms
        Through the broker once, no replicas.
    broker_us
        Of the broker's cores per event, unreplicated: written by the bank, both stages, decisions.
    bytes_by_topic, lz4_by_topic
        Per event and topic; `lz4_by_topic` also of the changelogs, as `CHANGELOG`.
    """

    event_us: float
    event_customers: float
    doubling_us: float
    batch_us: float
    full_batches: float
    receiver_share: float
    rest_share: float
    histories: Sequence[History]
    rows_per_customer: float
    id_bytes: float
    worker_bytes: float
    checkpoint_rows: float
    checkpoint_id_bytes: float
    start_s: float
    recovery_us: float
    byte_us: float
    passage_ms: float
    broker_us: float
    bytes_by_topic: Mapping[str, float]
    lz4_by_topic: Mapping[str, float]

    def event_us_at(self, customers: float, payments: float) -> float:
        """Microseconds per event with so many customers in one worker, who pay so often in 30 days."""
        growth_us = self.doubling_us * math.log2(max(customers, 1000.0) / self.event_customers)
        first = self.histories[0]
        stages_us = self._at(payments, [one.stages_us for one in self.histories]) - first.stages_us
        checkpoint_us = self.checkpoint_us_at(payments) - self.checkpoint_us_at(first.payments)
        return self.event_us + growth_us + max(stages_us, 0.0) + max(checkpoint_us, 0.0)

    def checkpoint_us_at(self, payments: float) -> float:
        """Microseconds per event that checkpoints take."""
        export_us = self._at(payments, [one.export_us for one in self.histories])
        return self.checkpoint_rows * export_us + self.checkpoint_bytes_at(payments) * self.byte_us

    def recovery_us_at(self, payments: float) -> float:
        """Microseconds per changelog row read back."""
        restore_us = self._at(payments, [one.restore_us for one in self.histories]) - self.histories[0].restore_us
        bytes_us = (self.blob_bytes_at(payments) - self.histories[0].blob_bytes) * self.byte_us
        return self.recovery_us + max(restore_us, 0.0) + bytes_us

    def broker_us_at(self, payments: float) -> float:
        """Microseconds of the broker's cores per event, unreplicated: in proportion to what is written."""
        others = sum(self.bytes_by_topic.values())
        first = others + self.checkpoint_bytes_at(self.histories[0].payments)
        return self.broker_us * (others + self.checkpoint_bytes_at(payments)) / first

    def row_bytes_at(self, payments: float) -> float:
        """Memory of a profile."""
        return self._at(payments, [one.row_bytes for one in self.histories])

    def blob_bytes_at(self, payments: float) -> float:
        """Bytes of a profile in the changelog."""
        return self._at(payments, [one.blob_bytes for one in self.histories])

    def checkpoint_bytes_at(self, payments: float) -> float:
        """Bytes per event in both changelogs, before compaction."""
        return self.checkpoint_rows * self.blob_bytes_at(payments) + self.checkpoint_id_bytes

    def _at(self, payments: float, values: Sequence[float]) -> float:
        """Read off the line through what was measured; level beyond both ends."""
        return float(np.interp(payments, [one.payments for one in self.histories], values))


def costs_of(measured: Measured) -> Costs:
    """Reduce what was measured to what the model needs: a line through the growth, the rest as it is."""
    growth, messages, real = measured.growth, measured.messages, measured.real
    slope, _ = growth_line(growth)
    largest, one_worker = growth[-1], min(real.replicas, key=lambda one: one.workers)
    event_us = one_worker.worker_us
    return Costs(
        event_us=event_us,
        event_customers=real.customers,
        doubling_us=max(slope, 0.0),
        batch_us=_batch_us(measured, one_worker),
        full_batches=one_worker.batches,
        receiver_share=largest.receiver_us / (largest.receiver_us + largest.payer_us),
        rest_share=real.rest_share,
        histories=measured.histories,
        rows_per_customer=largest.rows / largest.customers,
        id_bytes=messages.id_bytes,
        worker_bytes=real.worker_bytes,
        checkpoint_rows=largest.checkpoint_rows,
        checkpoint_id_bytes=largest.checkpoint_bytes - largest.checkpoint_rows * largest.blob_bytes,
        start_s=real.start_cpu_s,
        recovery_us=max(real.recovery_us, largest.restore_us),
        byte_us=messages.byte_us,
        passage_ms=real.passage_ms,
        broker_us=one_worker.broker_us,
        bytes_by_topic={
            TRANSACTIONS.name: messages.transaction_bytes,
            ENRICHED.name: messages.enriched_bytes,
            DECISIONS.name: messages.decision_bytes,
            FEATURES.name: messages.feature_bytes,
        },
        lz4_by_topic={
            TRANSACTIONS.name: messages.transaction_lz4,
            ENRICHED.name: messages.enriched_lz4,
            DECISIONS.name: messages.decision_lz4,
            FEATURES.name: messages.feature_lz4,
            CHANGELOG: messages.changelog_lz4,
        },
    )


def growth_line(growth: list[Growth]) -> tuple[float, float]:
    """Least squares through the pure path: microseconds per event more per doubling of customers, and at a million."""
    doublings = np.log2([one.customers / 1e6 for one in growth])
    slope, at_a_million = np.polyfit(doublings, [one.receiver_us + one.payer_us for one in growth], 1)
    return float(slope), float(at_a_million)


def _batch_us(measured: Measured, full: Replicas) -> float:
    """What small batches cost beyond full ones; without such a measurement, what the pure stages say."""
    told = [
        (one.worker_us - full.worker_us) / (one.batches - full.batches)
        for one in measured.real.small_batches
        if one.batches > full.batches
    ]
    pure = (measured.growth[-1].receiver_batch_us + measured.growth[-1].payer_batch_us) / 2
    return max(sum(told) / len(told), pure) if told else pure
