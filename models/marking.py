"""From MED feedback to confirmed-fraud markers on receivers: pure, and reversible.

Only what a bank has confirmed marks a receiver: a registered fraud marker. Its cancellation (possible at any time, even
after AGREED) takes the mark away again. A contested payment alone says little: about one in ten is confirmed.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from app.domain.feedback import Feedback, decode_feedback
from app.domain.field_checks import TimeLimits
from app.domain.partitioner import partition_of
from app.domain.records import Records
from app.domain.rejection import Rejection, Source, encode_dead_letter
from app.domain.siphash import HashKey, hash_account, hash_bytes, hash_pix_key
from app.topics import FEEDBACK, MARKERS, REJECTED
from models.outputs import Send, keyed_sends

__all__ = ["Marker", "MarkingOutput", "decode_marker", "mark_receivers"]


class Marker(msgspec.Struct, frozen=True, array_like=True):
    """One change of a receiver's marks, on `pix-markers`.

    Parameters
    ----------
    id
        Of the report and its state, hashed: the same change comes once.
    receiver
        Hash of the receiver, as in the transactions.
    fraud_type
        FraudType of the marker.
    delta
        1 for a registered marker, -1 for one that was cancelled.
    timestamp
        When it became known, epoch milliseconds.
    """

    id: bytes
    receiver: int
    fraud_type: str
    delta: int
    timestamp: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Marker).decode

_DELTAS = {"REGISTERED": 1, "CANCELLED": -1}


def decode_marker(value: bytes) -> Marker:
    """Read a message of `pix-markers`.

    Raises
    ------
    msgspec.DecodeError
        For anything else.
    """
    return _decode(value)


@dataclass(frozen=True, slots=True)
class MarkingOutput:
    """What one batch of feedback brought: markers and dead letters to send, and the faults behind the latter."""

    sends: list[Send]
    markers: int
    rejections: list[Rejection]


def mark_receivers(
    records: Records, partition: int, partitions: int, hash_key: HashKey, limits: TimeLimits
) -> MarkingOutput:
    """Turn a batch of `pix-feedback` into messages for the partitions where the receivers live.

    Parameters
    ----------
    records, partition
        The batch and its partition of `pix-feedback`.
    partitions
        Of the keyed topics.
    hash_key, limits
        As for transactions.
    """
    markers: dict[int, list[bytes]] = {}
    letters: list[tuple[bytes | None, bytes]] = []
    rejections: list[Rejection] = []
    for key, value, offset, timestamp_ms in zip(
        records.keys, records.values, records.offsets, records.timestamps_ms, strict=True
    ):
        feedback = decode_feedback(value, key, timestamp_ms, limits)
        if isinstance(feedback, Rejection):
            rejections.append(feedback)
            source = Source(FEEDBACK.name, partition, offset, timestamp_ms)
            letters.append((key, encode_dead_letter(feedback, source, key, value)))
            continue
        where = _receiver(feedback, hash_key)
        if feedback.event == "FRAUD_MARKER" and where is not None:
            kafka_key, receiver = where
            identity = f"{feedback.report_id}/{feedback.status}".encode()
            marker = Marker(
                b"%016x" % hash_bytes(identity, hash_key),
                receiver,
                feedback.fraud_type or "OTHER",
                _DELTAS[feedback.status],
                feedback.timestamp,
            )
            markers.setdefault(partition_of(kafka_key, partitions), []).append(_encode(marker))
    sends = [Send(MARKERS.name, target, [None] * len(values), values) for target, values in sorted(markers.items())]
    sends += keyed_sends(REJECTED, partitions, letters)
    return MarkingOutput(sends, sum(map(len, markers.values())), rejections)


def _receiver(feedback: Feedback, hash_key: HashKey) -> tuple[bytes, int] | None:
    """The receiver's Kafka key on `pix-transactions`, and its hash; None where the feedback does not name it."""
    if feedback.pix_key is not None:
        return feedback.pix_key.encode(), hash_pix_key(feedback.pix_key, hash_key)
    if feedback.receiver_account is not None and feedback.receiver_ispb is not None:
        account = hash_account(feedback.receiver_ispb, feedback.receiver_account, hash_key)
        return feedback.receiver_account.encode(), account
    return None
