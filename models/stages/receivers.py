"""Stage 1, pure: messages of one `pix-transactions` partition to frames for the payers' partitions.

Each transaction meets the profile of whom it pays. What leaves are debits, with the receiver's features, for the
payer's partition, and credit notices for the receiver's account, so that money in and out meet in one place. Markers
teach the receivers' profiles here; those on payers are sent on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from app.domain.byte_column import ByteColumns
from app.domain.frames import CREDIT_DTYPE, MARK_DTYPE, debit_dtype, encode_frame
from app.domain.partitioner import account_partitions
from app.domain.records import Records
from app.domain.rejection import Reason, Rejection, Source, encode_dead_letter
from app.domain.rows import numbers, parts, put, select
from app.domain.transaction import TransactionDecoder
from app.topics import ENRICHED, MARKERS, REJECTED, TRANSACTIONS
from models.stages.marking import decode_marker
from models.stages.outputs import Send, keyed_sends
from tables.catalog import CATALOG
from tables.events import credit_events, is_refund, receiver_events
from tables.ids import IdMemory, transaction_digest
from tables.marks import enter_marks, fraud_type_position, mark_memory, unseen_marks
from tables.partition import PartitionState
from tables.profiles import Profiles

__all__ = [
    "DEBIT_DTYPE",
    "FEATURES_VERSION",
    "NOTICE_COLUMNS",
    "REUSED_ID",
    "SEEN_DTYPE",
    "MarkersOutput",
    "ReceiverOutput",
    "ReceiverStage",
    "receive",
]

SEEN_DTYPE = np.dtype([("id", "S32"), ("timestamp", "i8"), ("digest", "u8")])

FEATURES_VERSION = CATALOG.fingerprint[:16]
"""Names the feature set in frames, vectors and decisions."""

DEBIT_DTYPE = debit_dtype(len(CATALOG.stage_features("receiver")))
"""A debit on its way to stage 2, with this catalog's features."""

_FRAME_ROWS = 900_000 // (DEBIT_DTYPE.itemsize + CREDIT_DTYPE.itemsize)
"""Of one frame, at most: Kafka's usual limit of a record batch is 1 MB."""

_NO_DEBITS, _NO_CREDITS = np.zeros(0, DEBIT_DTYPE), np.zeros(0, CREDIT_DTYPE)


@dataclass(frozen=True, slots=True)
class ReceiverOutput:
    """What one step brought.

    Parameters
    ----------
    sends
        Frames and dead letters.
    accepted
        Transactions that go on to stage 2, by their partition.
    retries
        Of all these, repeats of an end_to_end_id by the bank's producer.
    rejections
        One per dead letter.
    """

    sends: list[Send]
    accepted: dict[int, int]
    retries: int
    rejections: list[Rejection]


@dataclass(frozen=True, slots=True)
class MarkersOutput:
    """What one batch of markers brought: how many were new, and frames with those on payers."""

    new: int
    sends: list[Send]


class ReceiverStage:
    """One partition of stage 1.

    Parameters
    ----------
    partition
        Of `pix-transactions`.
    partitions
        Of the keyed topics.
    decoder
        Reads messages.
    retry_window_ms, retry_max_ids
        Bounds of the memory of ids.
    """

    def __init__(
        self,
        partition: int,
        partitions: int,
        decoder: TransactionDecoder,
        retry_window_ms: int,
        retry_max_ids: int,
    ) -> None:
        self._ids = IdMemory(SEEN_DTYPE, retry_window_ms, retry_max_ids)
        self._marker_ids = mark_memory(retry_max_ids)
        self.state = PartitionState(Profiles("receiver"), {"payments": self._ids, "markers": self._marker_ids})
        self.partition = partition
        self.partitions = partitions
        self.decoder = decoder

    def apply(self, records: Records) -> ReceiverOutput:
        """Apply a batch of `pix-transactions` alone: `receive`."""
        return receive([(self, records)])

    def apply_markers(self, records: Records) -> MarkersOutput:
        """Apply a batch of `pix-markers`."""
        fresh = self.state.accept(MARKERS.name, records)
        if fresh is None or not len(fresh.values):
            return MarkersOutput(0, [])
        markers = [decode_marker(value or b"") for value in fresh.values]
        marks = np.zeros(len(markers), MARK_DTYPE)
        for row, marker in zip(marks, markers, strict=True):
            row["id"], row["key"], row["timestamp"] = marker.id, marker.marked, marker.timestamp
            row["fraud_type"], row["delta"] = fraud_type_position(marker.fraud_type), marker.delta
        new = unseen_marks(self._marker_ids, marks, np.asarray(fresh.timestamps_ms, np.int64))
        on_payers = np.array([marker.party == "payer" for marker in markers])
        enter_marks(self.state.profiles, select(marks, new & ~on_payers))
        sent_on = select(marks, new & on_payers)
        sends = []
        for first in range(0, len(sent_on), _FRAME_ROWS):
            frame = encode_frame(FEATURES_VERSION, _NO_DEBITS, _NO_CREDITS, sent_on[first : first + _FRAME_ROWS])
            sends.append(Send(ENRICHED.name, self.partition, [None], [frame]))
        return MarkersOutput(int(new.sum()), sends)

    def recognise(
        self, rows: NDArray[np.void], digests: NDArray[np.uint64], log_ms: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which rows repeat an id with the same digest, and which use one that another payment has; shapes (n,)."""
        ids: list[bytes] = rows["end_to_end_id"].tolist()
        first, positions = self._ids.first_occurrences(ids, log_ms)
        seen = np.zeros(int(first.sum()), SEEN_DTYPE)
        seen["id"] = rows["end_to_end_id"][first]
        seen["digest"] = digests[first]
        seen["timestamp"] = log_ms[first]
        self._ids.append(seen)
        repeats = np.flatnonzero(~first)
        reused = np.zeros(len(ids), np.bool_)
        if len(repeats):
            reused[repeats] = self._ids.rows(positions[repeats])["digest"] != digests[repeats]
        return ~first & ~reused, reused


def receive(work: Sequence[tuple[ReceiverStage, Records]]) -> ReceiverOutput:
    """Apply a batch of `pix-transactions` for each of several partitions of one worker, in one step.

    What needs no state (decoding, encoding, sending) has a cost for each call that is a hundred times that of a
    payment, so it is done for all partitions together.

    Raises
    ------
    GapError
        When the transport skipped records.
    """
    # By partition, however they arrived: so a frame's rows stand in the order in which stage 2 takes them.
    ordered = sorted(work, key=lambda item: item[0].partition)
    taken = [(stage, stage.state.accept(TRANSACTIONS.name, records)) for stage, records in ordered]
    fresh = [(stage, records) for stage, records in taken if records is not None]
    if not fresh:
        return ReceiverOutput([], {}, 0, [])
    one = fresh[0][0]
    owner = numbers([len(records.values) for _, records in fresh])
    log_ms = np.concatenate([np.asarray(records.timestamps_ms, np.int64) for _, records in fresh])
    decoded = one.decoder.decode(
        ByteColumns.chained([records.values for _, records in fresh]),
        ByteColumns.chained([records.keys for _, records in fresh]),
        log_ms,
        np.concatenate([np.asarray(records.offsets, np.int64) for _, records in fresh]),
        np.array([stage.partition for stage, _ in fresh])[owner],
    )
    rejected = list(decoded.rejected)
    places = np.delete(np.arange(len(log_ms)), [place for place, _ in rejected])
    rows, log_ms, owner = decoded.rows, log_ms[places], owner[places]
    retry, reused = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
    digests = transaction_digest(rows)
    for (stage, _), part in zip(fresh, parts(owner, len(fresh)), strict=True):
        retry[part], reused[part] = stage.recognise(rows[part], digests[part], log_ms[part])
    if reused.any():
        rejected += [(place, REUSED_ID) for place in places[reused].tolist()]
        rejected.sort(key=lambda item: item[0])
        kept = ~reused
        rows, retry, log_ms, owner = select(rows, kept), retry[kept], log_ms[kept], owner[kept]
    counts = ~retry & ~is_refund(rows)
    debits = np.zeros(len(rows), DEBIT_DTYPE)
    put(debits, "transaction", rows)
    debits["received_at"] = log_ms
    debits["retry"] = retry
    events = _counting(receiver_events(rows), counts)
    shares = parts(owner, len(fresh))
    for (stage, _), part in zip(fresh, shares, strict=True):
        debits["receiver"][part] = stage.state.profiles.update(events[part])
    sends = []
    # All may go to one partition (salaries, or a topic with one), and a frame has its limit.
    for first in range(0, len(debits), _FRAME_ROWS):
        cut = slice(first, first + _FRAME_ROWS)
        sends += _frames(one.partitions, debits[cut], counts[cut])
    sends += keyed_sends(REJECTED, one.partitions, _dead_letters(fresh, rejected))
    accepted = {stage.partition: part.stop - part.start for (stage, _), part in zip(fresh, shares, strict=True)}
    return ReceiverOutput(sends, accepted, int(retry.sum()), [fault for _, fault in rejected])


def _frames(partitions: int, debits: NDArray[np.void], counts: NDArray[np.bool_]) -> list[Send]:
    transactions = debits["transaction"]
    counted = select(transactions, counts)
    events = credit_events(counted)
    credit = np.zeros(len(events), CREDIT_DTYPE)
    for name, source in NOTICE_COLUMNS.items():
        credit[name] = events[source]
    for name in ("source_offset", "source_partition"):
        credit[name] = counted[name]
    debit_partition = account_partitions(transactions["payer_account"], partitions)
    credit_partition = account_partitions(credit["receiver_account"], partitions)
    sends = []
    for target in np.union1d(debit_partition, credit_partition).tolist():
        frame = encode_frame(
            FEATURES_VERSION, select(debits, debit_partition == target), select(credit, credit_partition == target)
        )
        sends.append(Send(ENRICHED.name, target, [None], [frame]))
    return sends


def _dead_letters(
    work: Sequence[tuple[ReceiverStage, Records]], rejected: Sequence[tuple[int, Rejection]]
) -> Iterator[tuple[bytes | None, bytes]]:
    """Key and dead letter of each fault, which is told by its message's place among those of all partitions."""
    begins = list(accumulate((len(records.values) for _, records in work), initial=0))
    for place, fault in rejected:
        number = bisect_right(begins, place) - 1
        (stage, records), at = work[number], place - begins[number]
        source = Source(TRANSACTIONS.name, stage.partition, records.offsets[at], records.timestamps_ms[at])
        yield records.keys[at], encode_dead_letter(fault, source, records.keys[at], records.values[at])


NOTICE_COLUMNS = {
    "receiver_account": "key",
    "payer_account": "other",
    "device_id": "device",
    "timestamp": "timestamp",
    "amount_centavos": "amount",
    "flags": "flags",
}
"""Columns of a credit notice and the event's that they are."""

REUSED_ID = Rejection(
    "$.end_to_end_id",
    "an id of its own",
    "the id of another payment (other amount, payer, receiver or time)",
    Reason.CONTRADICTION,
)


def _counting(events: NDArray[np.void], counts: NDArray[np.bool_]) -> NDArray[np.void]:
    """Let only these events be read and entered."""
    events["wants_features"] &= counts
    events["counts"] &= counts
    return events
