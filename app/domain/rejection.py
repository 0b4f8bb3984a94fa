"""Why a message was rejected, and the dead letter that keeps it.

A rejection is logged, counted and shown, so it never repeats what the message said about a person: of a string only
its length is told. The raw bytes go to the dead letter topic alone, where access is controlled.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec

__all__ = [
    "DeadLetter",
    "Reason",
    "Rejection",
    "Source",
    "decode_dead_letter",
    "encode_dead_letter",
]


class Reason(StrEnum):
    """What kind of fault a message has; a label for counters."""

    TOMBSTONE = "tombstone"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    TOO_DEEP = "too_deep"
    DUPLICATE_FIELD = "duplicate_field"
    MISSING = "missing"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"
    WRONG_FORM = "wrong_form"
    CONTRADICTION = "contradiction"
    WRONG_KAFKA_KEY = "wrong_kafka_key"
    IMPLAUSIBLE_TIME = "implausible_time"


@dataclass(frozen=True, slots=True)
class Rejection:
    """The first fault of a message.

    Parameters
    ----------
    path
        Where: `$` is the message, `$.amount_centavos` a field of it, `kafka.key` the message's key.
    expected
        What is right there.
    got
        What was there, without personal data.
    reason
        The kind of fault.
    """

    path: str
    expected: str
    got: str
    reason: Reason


class Source(msgspec.Struct, frozen=True):
    """Where a rejected message stands.

    Parameters
    ----------
    topic, partition, offset
        Its place.
    timestamp
        Its Kafka timestamp, epoch milliseconds.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int


class DeadLetter(msgspec.Struct, frozen=True):
    """One message on `pix-rejected`.

    Parameters
    ----------
    reason, path, expected, got
        The rejection.
    source
        Where the message stands.
    kafka_key_base64, raw_base64
        The message, byte for byte; null where Kafka had none. In JSON they are base64, here they are bytes.
    """

    reason: Reason
    path: str
    expected: str
    got: str
    source: Source
    kafka_key_base64: bytes | None
    raw_base64: bytes | None


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(DeadLetter)


def encode_dead_letter(rejection: Rejection, source: Source, key: bytes | None, value: bytes | None) -> bytes:
    """Return the JSON of a dead letter.

    Parameters
    ----------
    rejection
        Why.
    source
        Where the message stands.
    key, value
        The message as Kafka delivered it.

    Examples
    --------
    >>> fault = Rejection("$", "JSON", "Expecting value at character 0", Reason.NOT_JSON)
    >>> letter = encode_dead_letter(fault, Source("pix-transactions", 3, 42, 0), None, b"noise")
    >>> decode_dead_letter(letter).raw_base64
    b'noise'
    """
    return _ENCODER.encode(
        DeadLetter(rejection.reason, rejection.path, rejection.expected, rejection.got, source, key, value)
    )


def decode_dead_letter(letter: bytes) -> DeadLetter:
    """Return the dead letter that the JSON holds.

    Raises
    ------
    msgspec.DecodeError
        Where the bytes are no dead letter.
    """
    return _DECODER.decode(letter)
