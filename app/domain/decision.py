"""What pixguard says of a payment: the message on `pix-decisions`, and the vector on `pix-features`."""

from __future__ import annotations

import struct
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.domain.byte_column import ByteColumn

__all__ = [
    "ACTIONS",
    "HOLD_MINUTES_BY_DAY",
    "HOLD_MINUTES_BY_NIGHT",
    "Action",
    "Decision",
    "FeatureVectorError",
    "Reason",
    "Source",
    "Versions",
    "decode_decision",
    "decode_vector",
    "encode_vectors",
    "hold_minutes",
]

Action = Literal["APPROVE", "HOLD", "DENY"]

ACTIONS: tuple[Action, ...] = ("APPROVE", "HOLD", "DENY")
"""In order of severity; the position is the action's code in arrays."""

HOLD_MINUTES_BY_DAY = 30
"""Longest hold by the payer's PSP, 06:00-20:00 Brasília (pix-domain: payer-side hold)."""

HOLD_MINUTES_BY_NIGHT = 60
"""The same, 20:00-06:00."""


class Reason(msgspec.Struct, frozen=True):
    """Why a payment looks as it does: a rule that fired, with its weight in [0, 1]."""

    code: str
    weight: float
    rule: str


class Versions(msgspec.Struct, frozen=True):
    """What was in force: enough to take the decision again."""

    rules: str
    lists: int
    features: str
    online_model: str | None = None
    batch_model: str | None = None


class Source(msgspec.Struct, frozen=True):
    """Where the transaction lies in `pix-transactions`."""

    partition: int
    offset: int


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One decision.

    Parameters
    ----------
    end_to_end_id
        Of the payment; also the Kafka key.
    decision
        APPROVE, HOLD (at most `hold_minutes`) or DENY.
    score
        In [0, 1]: 1 - prod(1 - weight) over the rules that fired.
    scored
        False for MED refunds (purpose IPRT, REFU): these always pass and count as no one's behaviour.
    reasons
        By weight, heaviest first.
    rules
        Ids of all rules that fired, in the pack's order.
    versions
        Of rules, features and models.
    source
        Partition and offset of the transaction.
    event_time
        The transaction's own timestamp, epoch milliseconds.
    decided_at
        The log's clock when it was decided on, epoch milliseconds: the Kafka timestamp of the enriched frame. Taken
        from the log, so that a repeat after a crash is bit-identical; the record's own Kafka timestamp says when it
        was written.
    hold_minutes
        How long the payer's PSP may hold it at most, where the decision is HOLD.
    """

    end_to_end_id: str
    decision: Action
    score: float
    scored: bool = True
    reasons: tuple[Reason, ...] = ()
    rules: tuple[str, ...] = ()
    versions: Versions
    source: Source
    event_time: int
    decided_at: int
    hold_minutes: int | None = None


_BRASILIA_MS = -3 * 3_600_000


def hold_minutes(event_ms: int) -> int:
    """How long a payment of this time may be held, minutes; Brasília is UTC-3, without summer time since 2019.

    Examples
    --------
    >>> hold_minutes(1_767_279_600_000), hold_minutes(1_767_319_200_000)  # 12:00 and 23:00 in Brasília
    (30, 60)
    """
    hour = (event_ms + _BRASILIA_MS) // 3_600_000 % 24
    return HOLD_MINUTES_BY_DAY if 6 <= hour < 20 else HOLD_MINUTES_BY_NIGHT


_decoder = msgspec.json.Decoder(Decision)


def decode_decision(value: bytes) -> Decision:
    """Read a message of `pix-decisions`.

    Raises
    ------
    msgspec.ValidationError
        Naming path, expected and got.
    """
    return _decoder.decode(value)


_VECTOR_HEADER = struct.Struct("<4s16sH")
_VECTOR_MAGIC = b"PXGV"


class FeatureVectorError(ValueError):
    """A message of `pix-features` that this version cannot read."""


def encode_vectors(matrix: NDArray[np.float32], fingerprint: str) -> ByteColumn:
    """Messages of `pix-features`: magic, catalog fingerprint, length, then float32 little-endian; shape (n, f) in."""
    header = _VECTOR_HEADER.pack(_VECTOR_MAGIC, fingerprint.encode(), matrix.shape[1])
    messages = np.empty((len(matrix), len(header) + 4 * matrix.shape[1]), np.uint8)
    messages[:, : len(header)] = np.frombuffer(header, np.uint8)
    messages[:, len(header) :] = np.ascontiguousarray(matrix, dtype="<f4").view(np.uint8)
    return ByteColumn.fixed(messages)


def decode_vector(value: bytes) -> tuple[str, NDArray[np.float32]]:
    """The fingerprint of the catalog and the vector of one message of `pix-features`; NaN is missing.

    Raises
    ------
    FeatureVectorError
        When it is none, or is cut.
    """
    if len(value) < _VECTOR_HEADER.size or value[:4] != _VECTOR_MAGIC:
        raise FeatureVectorError(f"pix-features: expected a vector that starts with {_VECTOR_MAGIC!r}")
    _, fingerprint, count = _VECTOR_HEADER.unpack_from(value)
    if len(value) != _VECTOR_HEADER.size + 4 * count:
        raise FeatureVectorError(f"pix-features: expected {count} float32 values, got {len(value)} bytes in all")
    return fingerprint.rstrip(b"\0").decode(errors="replace"), np.frombuffer(value, "<f4", count, _VECTOR_HEADER.size)
