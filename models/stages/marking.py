"""From MED feedback to confirmed-fraud markers on receivers and payers: pure, and reversible.

Only what a bank has confirmed marks anybody: a registered fraud marker. Its cancellation (possible at any time, even
after AGREED) takes the marks away again. A contested payment alone says little: about one in ten is confirmed.

A receiver's marker goes where its payments are received; a payer's to the partition that its debits go to, from where
stage 1 sends it on in a frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from app.domain.feedback import Feedback, decode_feedback
from app.domain.field_checks import TimeLimits
from app.domain.partitioner import account_partitions, partition_of
from app.domain.records import Records
from app.domain.rejection import Rejection, Source, encode_dead_letter
from app.domain.siphash import HashKey, hash_account, hash_bytes, hash_pix_key
from app.topics import FEEDBACK, MARKERS, REJECTED
from models.stages.outputs import Send, keyed_sends

__all__ = ["Marker", "MarkingOutput", "decode_marker", "mark_parties"]


class Marker(msgspec.Struct, frozen=True, array_like=True):
    """One change of somebody's marks, on `pix-markers`.

    Parameters
    ----------
    id
        Of party, report and its state, hashed: the same change comes once.
    party
        Whom of the payment it marks.
    marked
        Hash of the receiver, or of the payer's account, as in the transactions.
    fraud_type
        FraudType of the marker.
    delta
        1 for a registered marker, -1 for one that was cancelled.
    timestamp
        When it became known, epoch milliseconds.
    """

    id: bytes
    party: Literal["receiver", "payer"]
    marked: int
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


def mark_parties(
    records: Records, partition: int, partitions: int, hash_key: HashKey, limits: TimeLimits
) -> MarkingOutput:
    """Turn a batch of `pix-feedback` into messages for the partitions where receivers and payers live.

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
        if feedback.event == "FRAUD_MARKER":
            for target, marker in _markers(feedback, partitions, hash_key):
                markers.setdefault(target, []).append(_encode(marker))
    sends = [Send(MARKERS.name, target, [None] * len(values), values) for target, values in sorted(markers.items())]
    sends += keyed_sends(REJECTED, partitions, letters)
    return MarkingOutput(sends, sum(map(len, markers.values())), rejections)


def _markers(feedback: Feedback, partitions: int, hash_key: HashKey) -> Iterator[tuple[int, Marker]]:
    """Marker of each party that the feedback names, and the partition that it goes to."""

    def marker(party: Literal["receiver", "payer"], marked: int) -> Marker:
        identity = hash_bytes(f"{party}/{feedback.report_id}/{feedback.status}".encode(), hash_key)
        return Marker(b"%016x" % identity, party, marked, *what)

    what = (feedback.fraud_type or "OTHER", _DELTAS[feedback.status], feedback.timestamp)
    receiver = _receiver(feedback, hash_key)
    if receiver is not None:
        yield partition_of(receiver[0], partitions), marker("receiver", receiver[1])
    if feedback.payer_account is not None and feedback.payer_ispb is not None:
        payer = hash_account(feedback.payer_ispb, feedback.payer_account, hash_key)
        target = account_partitions(np.array([payer], np.uint64), partitions)
        yield int(target[0]), marker("payer", payer)


def _receiver(feedback: Feedback, hash_key: HashKey) -> tuple[bytes, int] | None:
    """The receiver's Kafka key on `pix-transactions`, and its hash; None where the feedback does not name it."""
    if feedback.pix_key is not None:
        return feedback.pix_key.encode(), hash_pix_key(feedback.pix_key, hash_key)
    if feedback.receiver_account is not None and feedback.receiver_ispb is not None:
        account = hash_account(feedback.receiver_ispb, feedback.receiver_account, hash_key)
        return feedback.receiver_account.encode(), account
    return None
