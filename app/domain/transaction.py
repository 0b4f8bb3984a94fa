"""Messages of `pix-transactions` to columns, or to rejections.

Two decoders, one meaning: the scanner reads the plain form in which programs write JSON, straight to columns; what it
does not recognise goes to the strict decoder, and only that one rejects. Both derive from `FIELDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.domain.field_checks import (
    TimeLimits,
    Values,
    check_fields,
    check_kafka_key,
    check_time,
    resolve_key_type,
)
from app.domain.fields import FIELDS, FIELDS_BY_NAME, MISSING, TRANSACTION_DTYPE, Field, Kind
from app.domain.json_object import parse_object
from app.domain.rejection import Rejection
from app.domain.scanner import Scanner
from app.domain.siphash import HashKey, hash_bytes

__all__ = ["Decoded", "TransactionDecoder", "Transactions", "decode_strict", "empty_rows", "write_row"]

Transactions = NDArray[np.void]
"""Structured array of `TRANSACTION_DTYPE`, shape (n,)."""

_OTHER_FLAG_BIT = 31


def decode_strict(
    value: bytes | None, key: bytes | None, kafka_timestamp_ms: int, limits: TimeLimits
) -> Values | Rejection:
    """Return the checked values of one transaction, or its first fault.

    Parameters
    ----------
    value, key
        The message as Kafka delivered it.
    kafka_timestamp_ms
        Its Kafka timestamp; below 0 it has none, and its own time is not held against it.
    limits
        How far the two times may lie apart.

    Returns
    -------
    dict or Rejection
        Values by field name, in clear; fields that are missing or null are absent. `pix_key_type` is set wherever
        there is a key.
    """
    found = parse_object(value, FIELDS_BY_NAME)
    if isinstance(found, Rejection):
        return found
    values = check_fields(found, FIELDS)
    if isinstance(values, Rejection):
        return values
    fault = (
        resolve_key_type(values)
        or check_kafka_key(key, values, "pix_key", "receiver_account")
        or check_time(values, kafka_timestamp_ms, limits)
    )
    return fault if fault is not None else values


_WHOLE_ROW = np.dtype((np.void, TRANSACTION_DTYPE.itemsize))
_MISSING_ROW = np.zeros(1, TRANSACTION_DTYPE)
for _field in FIELDS:
    _MISSING_ROW[_field.name] = MISSING[_field.kind]


def empty_rows(n: int) -> Transactions:
    """Return n rows in which every field is missing."""
    return np.repeat(_MISSING_ROW.view(_WHOLE_ROW), n).view(TRANSACTION_DTYPE)


def _select(rows: Transactions, accepted: NDArray[np.bool_]) -> Transactions:
    """Return some rows, copied whole: NumPy copies structured ones field by field, which takes 18 times as long."""
    return rows.view(_WHOLE_ROW)[accepted].view(TRANSACTION_DTYPE)


def write_row(rows: Transactions, place: int, values: Values, key: HashKey) -> None:
    """Write one transaction into a row of `empty_rows`; its source columns are the caller's.

    Parameters
    ----------
    rows
        Structured array, shape (n,).
    place
        Row to write.
    values
        As `decode_strict` returns them.
    key
        The key of the pseudonyms.
    """
    row = rows[place]
    for name, value in values.items():
        field = FIELDS_BY_NAME[name]
        row[name] = _COLUMN_VALUE[field.kind](field, value, values, key)
    row["receiver"] = row["pix_key"] if "pix_key" in values else row["receiver_account"]


def _as_is(_field: Field, value: Any, _values: Values, _key: HashKey) -> object:  # noqa: ANN401 (any JSON value)
    return value


def _as_pseudonym(field: Field, value: Any, values: Values, key: HashKey) -> object:  # noqa: ANN401 (any JSON value)
    prefix = f"{values[field.hash_after]}/" if field.hash_after else field.hash_prefix
    return hash_bytes(f"{prefix}{value}".encode(), key)


def _as_code(field: Field, value: Any, _values: Values, _key: HashKey) -> object:  # noqa: ANN401 (any JSON value)
    return field.values.index(value) + 1


def _as_bits(field: Field, value: Any, _values: Values, _key: HashKey) -> object:  # noqa: ANN401 (any JSON value)
    bits = 0
    for flag in value:
        bits |= 1 << (field.values.index(flag) if flag in field.values else _OTHER_FLAG_BIT)
    return bits


def _as_number(_field: Field, value: Any, _values: Values, _key: HashKey) -> object:  # noqa: ANN401 (any JSON value)
    return value + 0.0  # which also turns -0.0 into 0.0: one number, one bit pattern


def _as_length(_field: Field, value: Any, _values: Values, _key: HashKey) -> object:  # noqa: ANN401 (any JSON value)
    return len(value)


_COLUMN_VALUE: dict[Kind, Callable[[Field, Any, Values, HashKey], object]] = {
    Kind.END_TO_END_ID: _as_is,
    Kind.TIMESTAMP: _as_is,
    Kind.CENTAVOS: _as_is,
    Kind.ISPB: _as_is,
    Kind.IDENTIFIER: _as_pseudonym,
    Kind.TAX_ID: _as_pseudonym,
    Kind.PIX_KEY: _as_pseudonym,
    Kind.ENUM: _as_code,
    Kind.FLAGS: _as_bits,
    Kind.BOOLEAN: _as_is,
    Kind.NUMBER: _as_number,
    Kind.COUNT: _as_is,
    Kind.TEXT: _as_length,
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """A batch after decoding.

    Parameters
    ----------
    rows
        The accepted transactions in their order, shape (accepted,).
    rejected
        Position in the batch and fault of each other message, in order.
    """

    rows: Transactions
    rejected: list[tuple[int, Rejection]]


class TransactionDecoder:
    """Decodes batches of `pix-transactions`. Its working memory makes it one thread's.

    Parameters
    ----------
    hash_key
        The key of the pseudonyms.
    limits
        How far a transaction's time may lie from Kafka's.
    """

    def __init__(self, hash_key: HashKey, limits: TimeLimits) -> None:
        self.hash_key = hash_key
        self.limits = limits
        self._scanner = Scanner(hash_key, limits)

    def decode(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        timestamps_ms: Sequence[int] | NDArray[np.int64],
        offsets: Sequence[int] | NDArray[np.int64],
        partition: int | NDArray[np.int64],
    ) -> Decoded:
        """Decode messages; whatever these hold, nothing is raised.

        Parameters
        ----------
        values, keys
            The messages, n of each; None as Kafka's null. `ByteColumns` are read where they lie.
        timestamps_ms, offsets
            Their Kafka timestamps and offsets, shape (n,).
        partition
            Of `pix-transactions`: of all messages, or of each, shape (n,).

        Raises
        ------
        ValueError
            Where the four have different lengths.
        """
        if not len(values) == len(keys) == len(timestamps_ms) == len(offsets):
            sizes = f"{len(values)}, {len(keys)}, {len(timestamps_ms)}, {len(offsets)}"
            raise ValueError(f"values, keys, timestamps_ms, offsets: expected one length, got {sizes}")
        rows = empty_rows(len(values))
        kafka_ms = np.asarray(timestamps_ms, np.int64)
        accepted = self._scanner.scan(values, keys, kafka_ms, rows)
        rejected: list[tuple[int, Rejection]] = []
        for place in np.flatnonzero(~accepted).tolist():
            outcome = decode_strict(values[place], keys[place], int(kafka_ms[place]), self.limits)
            if isinstance(outcome, Rejection):
                rejected.append((place, outcome))
            else:
                rows[place] = _MISSING_ROW[0]  # the scanner may have begun it
                write_row(rows, place, outcome, self.hash_key)
                accepted[place] = True
        rows["source_partition"] = partition
        rows["source_offset"] = offsets
        return Decoded(_select(rows, accepted) if rejected else rows, rejected)
