"""Stage 1, pure: messages of one `pix-transactions` partition to frames for the payers' partitions.

Each transaction meets the profile of whom it pays. What leaves are debits, with the receiver's features, for the
payer's partition, and credit notices for the receiver's account, so that money in and out meet in one place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.domain.frames import CREDIT_DTYPE, debit_dtype, encode_frame
from app.domain.partitioner import account_partitions
from app.domain.records import Records
from app.domain.rejection import Reason, Rejection, Source, encode_dead_letter
from app.domain.rows import put, select
from app.domain.transaction import TransactionDecoder
from app.topics import ENRICHED, MARKERS, REJECTED, TRANSACTIONS
from models.marking import decode_marker
from models.outputs import Send, keyed_sends
from tables.catalog import CATALOG
from tables.events import credit_events, is_refund, receiver_events
from tables.ids import IdMemory, transaction_digest
from tables.layout import FRAUD_TYPES
from tables.partition import PartitionState
from tables.profiles import Profiles

__all__ = [
    "FEATURES_VERSION",
    "MARKED_DTYPE",
    "NOTICE_COLUMNS",
    "REUSED_ID",
    "SEEN_DTYPE",
    "ReceiverOutput",
    "ReceiverStage",
]

SEEN_DTYPE = np.dtype([("id", "S32"), ("timestamp", "i8"), ("digest", "u8")])

FEATURES_VERSION = CATALOG.fingerprint[:16]
"""Names the feature set in frames, vectors and decisions."""

MARKED_DTYPE = np.dtype([("id", "S32"), ("timestamp", "i8")])

_FRAME_BYTES = 900_000
"""Of one frame, at most: Kafka's usual limit of a record batch is 1 MB."""

_MARKER_WINDOW_MS = 91 * 86_400_000
"""A case lasts 80 days to contest and 11 to close."""


@dataclass(frozen=True, slots=True)
class ReceiverOutput:
    """What one batch brought.

    Parameters
    ----------
    sends
        Frames and dead letters.
    accepted
        Transactions that go on to stage 2.
    retries
        Of these, repeats of an end_to_end_id by the bank's producer.
    rejections
        One per dead letter.
    """

    sends: list[Send]
    accepted: int
    retries: int
    rejections: list[Rejection]


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
        self._marker_ids = IdMemory(MARKED_DTYPE, _MARKER_WINDOW_MS, retry_max_ids)
        self.state = PartitionState(Profiles("receiver"), {"payments": self._ids, "markers": self._marker_ids})
        self._partition = partition
        self._partitions = partitions
        self._decoder = decoder
        self._debit_dtype = debit_dtype(len(CATALOG.stage_features("receiver")))
        self._frame_rows = _FRAME_BYTES // (self._debit_dtype.itemsize + CREDIT_DTYPE.itemsize)

    def apply(self, records: Records) -> ReceiverOutput:
        """Apply a batch of `pix-transactions`.

        Raises
        ------
        GapError
            When the transport skipped records.
        """
        fresh = self.state.accept(TRANSACTIONS.name, records)
        if fresh is None:
            return ReceiverOutput([], 0, 0, [])
        decoded = self._decoder.decode(fresh.values, fresh.keys, fresh.timestamps_ms, fresh.offsets, self._partition)
        rejected = list(decoded.rejected)
        rows = decoded.rows
        retry, reused = self._recognise(rows, fresh)
        if reused.any():
            places = np.searchsorted(np.asarray(fresh.offsets), rows["source_offset"][reused])
            rejected += [(int(place), REUSED_ID) for place in places]
            rejected.sort(key=lambda item: item[0])
            rows, retry = select(rows, ~reused), retry[~reused]
        counts = ~retry & ~is_refund(rows)
        debits = np.zeros(len(rows), self._debit_dtype)
        put(debits, "transaction", rows)
        debits["received_at"] = _log_times(fresh, rows["source_offset"])
        debits["retry"] = retry
        debits["receiver"] = self.state.profiles.update(_counting(receiver_events(rows), counts))
        # All of a batch may go to one partition (salaries, or a topic with one), and a frame has its limit.
        sends = []
        for first in range(0, len(debits), self._frame_rows):
            part = slice(first, first + self._frame_rows)
            sends += self._frames(debits[part], counts[part])
        sends += keyed_sends(REJECTED, self._partitions, [self._dead_letter(fresh, *item) for item in rejected])
        return ReceiverOutput(sends, len(rows), int(retry.sum()), [fault for _, fault in rejected])

    def apply_markers(self, records: Records) -> int:
        """Apply a batch of `pix-markers`; how many markers were new."""
        fresh = self.state.accept(MARKERS.name, records)
        markers = [] if fresh is None else [decode_marker(value or b"") for value in fresh.values]
        log_ms = np.array([] if fresh is None else fresh.timestamps_ms, np.int64)
        first, _ = self._marker_ids.first_occurrences([marker.id for marker in markers], log_ms)
        new = [marker for marker, is_first in zip(markers, first, strict=True) if is_first]
        if new:
            for marker in new:
                self.state.profiles.mark(
                    np.array([marker.receiver], np.uint64),
                    marker.fraud_type if marker.fraud_type in FRAUD_TYPES else "OTHER",
                    marker.delta,
                    np.array([marker.timestamp], np.int64),
                )
            marked = np.zeros(len(new), MARKED_DTYPE)
            marked["id"] = [marker.id for marker in new]
            marked["timestamp"] = log_ms[first]
            self._marker_ids.append(marked)
        return len(new)

    def _recognise(self, rows: NDArray[np.void], records: Records) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which rows repeat an id with the same content, and which use one that another payment has; shape (n,)."""
        ids: list[bytes] = rows["end_to_end_id"].tolist()
        digests = transaction_digest(rows)
        log_ms = _log_times(records, rows["source_offset"])
        first, positions = self._ids.first_occurrences(ids, log_ms)
        seen = np.zeros(int(first.sum()), SEEN_DTYPE)
        seen["id"] = rows["end_to_end_id"][first]
        seen["digest"] = digests[first]
        seen["timestamp"] = log_ms[first]
        self._ids.append(seen)
        reused = np.zeros(len(ids), np.bool_)
        repeats = np.flatnonzero(~first)
        if len(repeats):
            reused[repeats] = self._ids.rows(positions[repeats])["digest"] != digests[repeats]
        return ~first & ~reused, reused

    def _frames(self, debits: NDArray[np.void], counts: NDArray[np.bool_]) -> list[Send]:
        transactions = debits["transaction"]
        counted = select(transactions, counts)
        events = credit_events(counted)
        credit = np.zeros(len(events), CREDIT_DTYPE)
        for name, source in NOTICE_COLUMNS.items():
            credit[name] = events[source]
        credit["source_offset"] = counted["source_offset"]
        debit_partition = account_partitions(transactions["payer_account"], self._partitions)
        credit_partition = account_partitions(credit["receiver_account"], self._partitions)
        sends = []
        for target in np.union1d(debit_partition, credit_partition).tolist():
            frame = encode_frame(
                self._partition,
                FEATURES_VERSION,
                select(debits, debit_partition == target),
                select(credit, credit_partition == target),
            )
            sends.append(Send(ENRICHED.name, target, [None], [frame]))
        return sends

    def _dead_letter(self, records: Records, place: int, fault: Rejection) -> tuple[bytes | None, bytes]:
        source = Source(TRANSACTIONS.name, self._partition, records.offsets[place], records.timestamps_ms[place])
        key = records.keys[place]
        return key, encode_dead_letter(fault, source, key, records.values[place])


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


def _log_times(records: Records, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Kafka timestamps of the records at these offsets."""
    places = np.searchsorted(np.asarray(records.offsets), offsets)
    return np.asarray(records.timestamps_ms, np.int64)[places]


def _counting(events: NDArray[np.void], counts: NDArray[np.bool_]) -> NDArray[np.void]:
    """Let only these events be read and entered."""
    events["wants_features"] &= counts
    events["counts"] &= counts
    return events
