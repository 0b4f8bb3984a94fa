"""The fast path of the decoder: most messages, straight from bytes to columns.

Here stand the tables that the kernel reads, all derived from `FIELDS`, and the one call into it. The kernel answers
only which messages it understood; the others go to the strict decoder, which alone rejects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.domain.compiled_forms import KEY_FORMS
from app.domain.field_checks import TimeLimits, bounds
from app.domain.fields import FIELDS, FIELDS_BY_NAME, TRANSACTION_DTYPE, Field, Kind
from app.domain.memory import PADDING, Buffer
from app.domain.scanner_kernel import (
    FIELD_DTYPE,
    KIND_CODES,
    MAX_UNKNOWN_FIELDS,
    ROLES_DTYPE,
    STATE_DTYPE,
    WORD_DTYPE,
    scan_batch,
)
from app.domain.siphash import HashKey

__all__ = ["Scanner"]

_HASHED_KINDS = (Kind.IDENTIFIER, Kind.TAX_ID, Kind.PIX_KEY)
_MAX_CHARACTER_BYTES = 4
_PLACES = {field.name: place for place, field in enumerate(FIELDS)}


def _column(name: str) -> int:
    assert TRANSACTION_DTYPE.fields is not None
    return TRANSACTION_DTYPE.fields[name][1]


class Scanner:
    """Scans batches of `pix-transactions`.

    Parameters
    ----------
    hash_key
        The key of the pseudonyms.
    limits
        How far a transaction's time may lie from Kafka's.
    """

    def __init__(self, hash_key: HashKey, limits: TimeLimits) -> None:
        self._limits = limits
        self._key_words = (np.uint64(hash_key.first), np.uint64(hash_key.second))
        self._fields = np.zeros(len(FIELDS), FIELD_DTYPE)
        self._vocabulary, self._words = _describe_fields(self._fields)
        self._hashed = np.array([place for place, field in enumerate(FIELDS) if field.kind in _HASHED_KINDS], np.int64)
        self._roles = _roles()
        key_types = FIELDS_BY_NAME["pix_key_type"].values
        self._key_codes = np.array([key_types.index(form) + 1 if form else 0 for form in KEY_FORMS], np.uint8)
        self._state = np.zeros(len(FIELDS) + 1, STATE_DTYPE)
        self._state["successor"] = (np.arange(len(FIELDS) + 1) + 1) % (len(FIELDS) + 1) % len(FIELDS)
        self._unknown = np.zeros(MAX_UNKNOWN_FIELDS, WORD_DTYPE)
        longest = max(bounds(FIELDS[place])[1] for place in self._hashed if np.isfinite(bounds(FIELDS[place])[1]))
        self._scratch = np.zeros(int(longest) * _MAX_CHARACTER_BYTES + 2 * len(PADDING), np.uint8)

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
            The messages, n of each.
        timestamps_ms
            Their Kafka timestamps, shape (n,).
        rows
            `empty_rows(n)`.

        Returns
        -------
        accepted
            Shape (n,). Where it is false the row holds rubbish.
        """
        texts = [value if value is not None else b"" for value in values]
        text = b"\0".join([*texts, PADDING])
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        key_lengths = np.array([len(key) if key is not None else -1 for key in keys], np.int64)
        accepted = np.zeros(len(texts), np.bool_)
        self._state["named"] = 0
        self._state["present"] = 0
        scan_batch(
            np.frombuffer(text, np.uint8),
            lengths,
            np.frombuffer(b"".join([*filter(None, keys), PADDING]), np.uint8),
            key_lengths,
            timestamps_ms,
            self._limits.max_age_ms,
            self._limits.max_lead_ms,
            *self._key_words,
            self._fields,
            self._words,
            self._vocabulary,
            self._hashed,
            self._roles,
            self._key_codes,
            self._state,
            self._unknown,
            self._scratch,
            rows.view(np.uint8),
            accepted,
        )
        return accepted


def _describe_fields(table: NDArray[np.void]) -> tuple[Buffer, NDArray[np.void]]:
    """Fill the kernel's table of fields; return the vocabulary that it points into and the table of enum words."""
    vocabulary = bytearray()
    words: list[tuple[int, int]] = []

    def add(text: str) -> int:
        start = len(vocabulary)
        vocabulary.extend(text.encode())
        return start

    for place, field in enumerate(FIELDS):
        name = field.name.encode()
        low, high = bounds(field)
        table[place] = (
            int.from_bytes(name[:8], "little"),
            add(field.name),
            len(name),
            KIND_CODES.index(field.kind),
            field.required,
            _column(field.name),
            low,
            high,
            len(words),
            len(field.values),
            add(field.hash_prefix),
            len(field.hash_prefix),
            _PLACES[field.hash_after] if field.hash_after else -1,
        )
        words.extend((add(value), len(value)) for value in field.values)
    return np.frombuffer(bytes(vocabulary) + PADDING, np.uint8), np.array(words, WORD_DTYPE)


def _roles() -> NDArray[np.void]:
    return np.array(
        [
            (
                _PLACES["timestamp"],
                _PLACES["pix_key"],
                _PLACES["pix_key_type"],
                _PLACES["receiver_account"],
                _column("receiver"),
                sum(field.required for field in FIELDS),
                TRANSACTION_DTYPE.itemsize,
            )
        ],
        ROLES_DTYPE,
    )
