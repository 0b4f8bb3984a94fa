"""What the scale benchmark measures, as it is kept in `ops/capacity.md` and read by the model."""

from __future__ import annotations

import msgspec

__all__ = ["AtRate", "Growth", "History", "Measured", "Messages", "Real", "Replicas", "SmallBatches"]


class Growth(msgspec.Struct, frozen=True):
    """The pure path at one number of customers, each of which has paid and been paid before.

    Parameters
    ----------
    customers
        Accounts.
    rows
        Profiles of both stages.
    row_bytes, row_rss_bytes
        Memory per profile: in use by the arrays, and what the process grew by (ids of the last hour included).
    receiver_us, payer_us, kernel_us
        Per event in batches of 2,000: each stage, and the part of both that is the kernel's update.
    receiver_batch_us, payer_batch_us
        Per batch, whatever its size.
    export_us, restore_us
        Per profile: to a checkpoint, and back from the changelog.
    blob_bytes
        Key and value of a profile in the changelog, and what Kafka adds; mean over all.
    checkpoint_rows, checkpoint_bytes
        Per event: profiles written down, and bytes of all rows, at a checkpoint per 4,000 changed profiles.
    """

    customers: int
    rows: int
    row_bytes: float
    row_rss_bytes: float
    receiver_us: float
    payer_us: float
    kernel_us: float
    receiver_batch_us: float
    payer_batch_us: float
    export_us: float
    restore_us: float
    blob_bytes: float
    checkpoint_rows: float
    checkpoint_bytes: float


class History(msgspec.Struct, frozen=True):
    """The pure path where every customer has paid, and been paid, so often within 30 days.

    Parameters
    ----------
    payments
        By each customer.
    row_bytes, blob_bytes
        Of a profile: memory in use, and in the changelog with its key and what Kafka adds.
    stages_us
        Per event, both stages, in batches of 2,000.
    export_us, restore_us
        Per profile: to a checkpoint, and back from the changelog.
    """

    payments: int
    row_bytes: float
    blob_bytes: float
    stages_us: float
    export_us: float
    restore_us: float


class Messages(msgspec.Struct, frozen=True):
    """Bytes per event on each topic, with what Kafka adds, and how far lz4 packs them.

    Parameters
    ----------
    transaction_bytes, enriched_bytes, decision_bytes, feature_bytes
        Key, value and what Kafka adds to a record.
    transaction_lz4, enriched_lz4, decision_lz4, feature_lz4, changelog_lz4
        Packed size as a share of the raw, by batches of 2,000 events; no message is packed today.
    id_bytes
        Memory of one remembered end_to_end_id, per stage.
    byte_us
        Per byte more of a changelog row, to put it into a record batch (copy, checksum).
    """

    transaction_bytes: float
    enriched_bytes: float
    decision_bytes: float
    feature_bytes: float
    transaction_lz4: float
    enriched_lz4: float
    decision_lz4: float
    feature_lz4: float
    changelog_lz4: float
    id_bytes: float
    byte_us: float


class Replicas(msgspec.Struct, frozen=True):
    """A backlog worked off by so many workers: microseconds of processor time per event, and batches of both stages."""

    workers: int
    worker_us: float
    broker_us: float
    batches: float


class AtRate(msgspec.Struct, frozen=True):
    """How long payments waited that were offered to one worker at this rate."""

    rate_per_s: int
    p50_ms: float
    p99_ms: float
    p999_ms: float


class SmallBatches(msgspec.Struct, frozen=True):
    """One worker at an offered rate: processor time per event, and batches of both stages per event."""

    rate_per_s: int
    worker_us: float
    batches: float


class Real(msgspec.Struct, frozen=True):
    """What only workers and a broker can tell.

    Parameters
    ----------
    customers
        Known to the workers in the backlogs.
    replicas
        Backlogs, by number of workers.
    paced, small_batches
        One worker at offered rates.
    passage_ms
        Through the broker once, with nothing else to do: median from sending a record to having it, no replicas.
    rest_share
        Of a core that a worker takes with nothing to do.
    worker_bytes
        Resident memory of a worker without state.
    start_cpu_s
        Processor time from the start of a worker without state until it is ready.
    recovery_us
        Of processor time per changelog row that a starting worker reads back.
    """

    customers: int
    replicas: list[Replicas]
    paced: list[AtRate]
    small_batches: list[SmallBatches]
    passage_ms: float
    rest_share: float
    worker_bytes: float
    start_cpu_s: float
    recovery_us: float


class Measured(msgspec.Struct, frozen=True):
    """All of it, and on what.

    Parameters
    ----------
    machine
        For people: processor, cores, and how busy it was.
    growth
        By number of customers, ascending; two at least.
    histories
        By payments of each customer, ascending; two at least.
    """

    machine: str
    growth: list[Growth]
    histories: list[History]
    messages: Messages
    real: Real
