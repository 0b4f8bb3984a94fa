"""The fast path of the decoder: most messages, straight from bytes to columns.

Here stand the tables that the kernel reads, all derived from `FIELDS`, and the one call into it. The kernel answers
only which messages it understood; the others go to the strict decoder, which alone rejects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.domain.byte_column import ByteColumns
from app.domain.compiled_forms import KEY_FORMS
from app.domain.field_checks import TimeLimits, bounds
from app.domain.fields import FIELDS, FIELDS_BY_NAME, TRANSACTION_DTYPE, Kind
from app.domain.memory import PADDING
from app.domain.scanner_kernel import KIND_CODES, scan_batch
from app.domain.siphash import HashKey

__all__ = ["Scanner"]

_FIELD_DTYPE = np.dtype(
    [
        ("head", "u8"),  # first 8 bytes of the name, zeros behind a shorter one
        ("name", "i8"),  # address
        ("name_length", "i8"),
        ("kind", "i8"),
        ("required", "i8"),
        ("column", "i8"),  # byte offset in the row
        ("low", "f8"),
        ("high", "f8"),
        ("values", "i8"),  # ENUM, FLAGS: address of the values, each behind a byte with its length, then a zero
        ("prefix", "i8"),  # hashed kinds: address of what is hashed first
        ("prefix_length", "i8"),
        ("after", "i8"),  # or the field whose value and a slash are hashed first; -1 for none
    ]
)
_ROLES_DTYPE = np.dtype(
    [
        ("timestamp", "i8"),  # places in the table of fields
        ("pix_key", "i8"),
        ("pix_key_type", "i8"),
        ("receiver_account", "i8"),
        ("receiver_column", "i8"),  # byte offset in the row
        ("required", "i8"),  # number of required fields
        ("row_size", "i8"),
        ("scratch", "i8"),  # address of memory to hash in
        ("scratch_size", "i8"),
        ("hash_key_1", "u8"),
        ("hash_key_2", "u8"),
        ("max_age_ms", "i8"),
        ("max_lead_ms", "i8"),
    ]
)
_STATE_DTYPE = np.dtype(
    [
        ("named", "i8"),  # the last message (counted from 1) in which the field was named
        ("present", "i8"),  # the last one in which it had a value
        ("start", "i8"),  # where its string stands
        ("stop", "i8"),
        ("number", "i8"),  # its integer, its code, or its key form
        ("successor", "i8"),  # the field that came next when last seen: a guess that only saves time
        ("hash", "u8"),
    ]
)
_SPAN_DTYPE = np.dtype([("start", "i8"), ("length", "i8")])

_HASHED_KINDS = (Kind.IDENTIFIER, Kind.TAX_ID, Kind.PIX_KEY)
_MAX_UNKNOWN_FIELDS = 16
_MAX_CHARACTER_BYTES = 4
_PLACES = {field.name: place for place, field in enumerate(FIELDS)}


class Scanner:
    """Scans batches of `pix-transactions`. Its working memory makes it one thread's.

    Parameters
    ----------
    hash_key
        The key of the pseudonyms.
    limits
        How far a transaction's time may lie from Kafka's.
    """

    def __init__(self, hash_key: HashKey, limits: TimeLimits) -> None:
        self._vocabulary, self._fields = _describe_fields()
        self._hashed = np.array([place for place, field in enumerate(FIELDS) if field.kind in _HASHED_KINDS], np.int64)
        key_types = FIELDS_BY_NAME["pix_key_type"].values
        self._key_codes = np.array([key_types.index(form) + 1 if form else 0 for form in KEY_FORMS], np.uint8)
        self._state = np.zeros(len(FIELDS) + 1, _STATE_DTYPE)
        # The first guess is the order of declaration; the last element stands before the first field.
        self._state["successor"] = (np.arange(len(FIELDS) + 1) + 1) % (len(FIELDS) + 1) % len(FIELDS)
        self._unknown = np.zeros(_MAX_UNKNOWN_FIELDS, _SPAN_DTYPE)
        longest = max(field.high for field in FIELDS if field.kind in _HASHED_KINDS and field.high is not None)
        self._scratch = np.zeros(int(longest) * _MAX_CHARACTER_BYTES + 4 * len(PADDING), np.uint8)
        self._roles = _roles(self._scratch, hash_key, limits)

    def scan(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        timestamps_ms: NDArray[np.int64],
        rows: NDArray[np.void],
    ) -> NDArray[np.bool_]:
        """Write the rows of the messages that the kernel understands.

        Parameters
        ----------
        values, keys
            The messages, n of each; `ByteColumns` are read where they lie.
        timestamps_ms
            Their Kafka timestamps, shape (n,).
        rows
            `empty_rows(n)`.

        Returns
        -------
        accepted
            Shape (n,). Where it is false the row holds rubbish.
        """
        messages, named = ByteColumns.of(values), ByteColumns.of(keys)
        copy = np.empty(int(messages.lengths.max(initial=0)) + len(PADDING), np.uint8)
        accepted = np.zeros(len(messages), np.bool_)
        scan_batch(
            messages.addresses,
            messages.lengths,
            messages.limits - len(PADDING),
            named.addresses,
            named.lengths,
            timestamps_ms,
            self._fields,
            self._hashed,
            self._roles,
            self._key_codes,
            self._state,
            self._unknown,
            copy.ctypes.data,
            rows.ctypes.data,
            accepted,
        )
        return accepted


def _column(name: str) -> int:
    columns = TRANSACTION_DTYPE.fields
    return columns[name][1] if columns is not None else -1


def _describe_fields() -> tuple[NDArray[np.uint8], NDArray[np.void]]:
    """Return the kernel's table of fields and the memory that its addresses point into."""
    texts: list[bytes] = []
    for field in FIELDS:
        values = b"".join(bytes([len(value)]) + value.encode() for value in field.values)
        texts += [field.name.encode(), field.hash_prefix.encode(), values + b"\0"]
    vocabulary = np.frombuffer(b"".join([*texts, PADDING]), np.uint8)
    addresses = iter((vocabulary.ctypes.data + np.cumsum([0, *map(len, texts)])).tolist())
    table = np.zeros(len(FIELDS), _FIELD_DTYPE)
    for place, field in enumerate(FIELDS):
        row = table[place]
        row["head"] = int.from_bytes(field.name.encode()[:8], "little")
        row["name"], row["prefix"], row["values"] = next(addresses), next(addresses), next(addresses)
        row["name_length"], row["prefix_length"] = len(field.name), len(field.hash_prefix)
        row["kind"], row["required"] = KIND_CODES.index(field.kind), field.required
        row["column"] = _column(field.name)
        row["low"], row["high"] = bounds(field)
        row["after"] = _PLACES[field.hash_after] if field.hash_after else -1
    return vocabulary, table


def _roles(scratch: NDArray[np.uint8], hash_key: HashKey, limits: TimeLimits) -> NDArray[np.void]:
    table = np.zeros(1, _ROLES_DTYPE)
    row = table[0]
    for name in ("timestamp", "pix_key", "pix_key_type", "receiver_account"):
        row[name] = _PLACES[name]
    row["receiver_column"] = _column("receiver")
    row["required"] = sum(field.required for field in FIELDS)
    row["row_size"] = TRANSACTION_DTYPE.itemsize
    row["scratch"], row["scratch_size"] = scratch.ctypes.data, len(scratch)
    row["hash_key_1"], row["hash_key_2"] = hash_key.first, hash_key.second
    row["max_age_ms"], row["max_lead_ms"] = limits.max_age_ms, limits.max_lead_ms
    return table
