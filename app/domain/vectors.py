"""Messages of `pix-features`: the exact vector that a payment was decided on, and who, when and how.

One message holds all that learning needs of a payment, so that a label need only find its message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.domain.byte_column import ByteColumn

__all__ = ["VECTOR_ROW_DTYPE", "FeatureVectorError", "Vectors", "decode_latest", "decode_vectors", "encode_vectors"]

_MAGIC = b"PXG2"

VECTOR_ROW_DTYPE = np.dtype(
    [
        ("id", "S32"),  # the end_to_end_id, also the Kafka key
        ("event_time", "<i8"),
        ("decided_at", "<i8"),
        ("amount_centavos", "<i8"),
        ("payer", "<u8"),  # keyed hashes, as in the state
        ("receiver", "<u8"),
        ("score", "<f4"),  # of the models together; NaN where none was in force: the decision quotes the rules' then
        ("rules_score", "<f4"),
        ("online_score", "<f4"),  # NaN where there was none; so for the next two
        ("batch_score", "<f4"),
        ("challenger_score", "<f4"),
        ("online_version", "<u4"),  # 0 where there was none; so for the next two
        ("batch_version", "<u4"),
        ("challenger_version", "<u4"),
        ("channel", "u1"),  # code of `initiation`
        ("action", "u1"),
        ("scored", "?"),  # False for MED refunds
    ]
)
"""What is told of a payment beside its vector."""

_HEADER_DTYPE = np.dtype([("magic", "S4"), ("fingerprint", "S16"), ("row", VECTOR_ROW_DTYPE), ("count", "<u2")])
_ROW, _COUNT = (_HEADER_DTYPE.fields[name][1] for name in ("row", "count"))  # type: ignore[index] # it has fields
_VECTOR = _HEADER_DTYPE.itemsize


class FeatureVectorError(ValueError):
    """A message of `pix-features` that this version cannot read."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """Messages of `pix-features`, read.

    Parameters
    ----------
    rows
        `VECTOR_ROW_DTYPE`, shape (n,).
    matrix
        float32, shape (n, features); NaN is missing.
    fingerprint
        Of the catalog that gave the features their meaning.
    """

    rows: NDArray[np.void]
    matrix: NDArray[np.float32]
    fingerprint: str


def encode_vectors(rows: NDArray[np.void], matrix: NDArray[np.float32], fingerprint: str) -> ByteColumn:
    """Return one message for each payment, all little-endian.

    Parameters
    ----------
    rows
        `VECTOR_ROW_DTYPE`, shape (n,).
    matrix
        float32, shape (n, features).
    fingerprint
        Of the catalog.
    """
    dtype = _message_dtype(matrix.shape[1])
    blank = np.zeros(1, dtype)
    blank["magic"], blank["fingerprint"], blank["count"] = _MAGIC, fingerprint.encode(), matrix.shape[1]
    # As bytes: to copy a structured array field by field takes three times as long.
    messages = np.empty((len(rows), dtype.itemsize), np.uint8)
    messages[:, :_ROW] = blank.view(np.uint8)[:_ROW]
    messages[:, _ROW:_COUNT] = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), _COUNT - _ROW)
    messages[:, _COUNT:_VECTOR] = blank.view(np.uint8)[_COUNT:_VECTOR]
    messages[:, _VECTOR:] = np.ascontiguousarray(matrix, dtype="<f4").view(np.uint8)
    return ByteColumn.fixed(messages)


def decode_vectors(values: Sequence[bytes | None]) -> Vectors:
    """Read messages that were written under one catalog.

    Raises
    ------
    FeatureVectorError
        When one is no vector, is cut, or was written under another catalog than the first.
    """
    if not len(values):
        return Vectors(np.empty(0, VECTOR_ROW_DTYPE), np.empty((0, 0), np.float32), "")
    first = values[0] or b""
    if len(first) < _HEADER_DTYPE.itemsize or first[:4] != _MAGIC:
        raise FeatureVectorError(f"pix-features: expected a vector that starts with {_MAGIC!r}, got {first[:4]!r}")
    count = int(np.frombuffer(first, _HEADER_DTYPE, 1)["count"][0])
    dtype = _message_dtype(count)
    content = b"".join([value or b"" for value in values])
    if len(content) != dtype.itemsize * len(values) or any(len(value or b"") != dtype.itemsize for value in values):
        raise FeatureVectorError(f"pix-features: expected messages of {count} features, {dtype.itemsize} bytes each")
    messages = np.frombuffer(content, dtype)
    for name in ("magic", "fingerprint", "count"):
        other = messages[name][messages[name] != messages[name][0]]
        if len(other):
            raise FeatureVectorError(f"pix-features: expected {name} {messages[name][0]!r} as in the first message, "
                                     f"got {other[0]!r}")  # fmt: skip
    return Vectors(messages["row"], messages["vector"], bytes(messages["fingerprint"][0]).decode(errors="replace"))


def decode_latest(values: Sequence[bytes | None]) -> Vectors:
    """Read those messages that were written under the same catalog as the last: after an upgrade, the one in force.

    Raises
    ------
    FeatureVectorError
        When the last one is no vector, or one like it is cut.
    """
    start = (values[-1] or b"")[:_ROW] if len(values) else b""
    return decode_vectors([value for value in values if value is not None and value[:_ROW] == start])


def _message_dtype(features: int) -> np.dtype[np.void]:
    return np.dtype([*_HEADER_DTYPE.descr, ("vector", "<f4", (features,))])
