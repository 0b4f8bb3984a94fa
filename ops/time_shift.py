"""Recorded payments as if they happened now: all times are moved by one amount, and identifiers follow them.

An `end_to_end_id` carries its minute and belongs to one payment: the stream rejects another payment, and so the same
one at another time, under a known id. So a moved payment gets an id of its own. It follows from the old id and the
shift alone: what is one payment, or a retry, in the file stays so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime

from app.domain.fields import FIELDS, MAX_TIMESTAMP_MS, MIN_TIMESTAMP_MS, Kind
from app.domain.pix_keys import is_end_to_end_id
from ops.files import Chunk

__all__ = ["moved_id", "shift_chunks"]

_TIMES = re.compile(
    rb'"(?:%s)"\s*:\s*(-?[0-9]{1,14})(?=\s*[,}])'
    % b"|".join(field.name.encode() for field in FIELDS if field.kind is Kind.TIMESTAMP)
)
_ID = re.compile(rb'"end_to_end_id"\s*:\s*"([A-Za-z0-9]{32})"')
_MINUTE = slice(9, 21)
_MINUTE_FORMAT = "%Y%m%d%H%M"
_MINUTE_MS = 60_000
_MAX_AGE_MINUTES = 12 * 60
"""The tolerance that SPI's catalogue gives to the time in an id."""
_ALPHANUMERIC = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def moved_id(end_to_end_id: str, time_ms: int, shift_ms: int) -> str:
    """Return the id of a payment that is moved in time.

    Parameters
    ----------
    end_to_end_id
        A valid one.
    time_ms
        The payment's time before the move, epoch milliseconds.
    shift_ms
        What is added to it. The new id keeps the institution, and is as many minutes older than its payment as the
        old one was (a key is looked up before the payment is accepted), or none where that was no look-up's time. Its
        last eleven characters follow from the old id and the shift.

    Examples
    --------
    >>> moved_id("E60701190202609211333abcDEF12345", 1_789_997_632_000, 86_400_000)[:21]
    'E60701190202609221333'
    """
    age_minutes = time_ms // _MINUTE_MS - _minute_of(end_to_end_id)
    if not 0 <= age_minutes <= _MAX_AGE_MINUTES:
        age_minutes = 0
    minute = (time_ms + shift_ms) // _MINUTE_MS - age_minutes
    number = int.from_bytes(hashlib.blake2b(f"{end_to_end_id} {shift_ms}".encode(), digest_size=16).digest())
    suffix = []
    for _ in range(11):
        number, digit = divmod(number, len(_ALPHANUMERIC))
        suffix.append(_ALPHANUMERIC[digit])
    moved = datetime.fromtimestamp(minute * 60, UTC).strftime(_MINUTE_FORMAT)
    return f"{end_to_end_id[: _MINUTE.start]}{moved}{''.join(suffix)}"


def _minute_of(end_to_end_id: str) -> int:
    """The minute in a valid id, since 1970; 0 where it lies before."""
    text = end_to_end_id[_MINUTE]
    if text < "1970":
        return 0
    return int(datetime.strptime(text, _MINUTE_FORMAT).replace(tzinfo=UTC).timestamp()) // 60


def shift_chunks(chunks: Iterator[Chunk], shift_ms: int) -> Iterator[Chunk]:
    """Add to every time of every message, in its bytes, and give it an id that fits; all else stays as it is.

    Transactions refer to no other payment: REFU and IPRT name none. What will be rejected for its id or its time keeps
    its id.

    Parameters
    ----------
    chunks
        Their lists are changed in place.
    shift_ms
        Milliseconds.
    """

    def shift(found: re.Match[bytes]) -> bytes:
        whole, digits = found.group(0), found.group(1)
        if int(digits) == 0:  # DICT's "no data"
            return whole
        return whole[: -len(digits)] + str(int(digits) + shift_ms).encode()

    for chunk in chunks:
        for place, (value, identifier, time_ms) in enumerate(zip(chunk.values, chunk.ids, chunk.times_ms, strict=True)):
            moved = _TIMES.sub(shift, value)
            chunk.values[place] = moved
            if identifier is None or time_ms is None or not is_end_to_end_id(identifier):
                continue
            if MIN_TIMESTAMP_MS <= time_ms + shift_ms <= MAX_TIMESTAMP_MS:
                new = moved_id(identifier, time_ms, shift_ms)
                found = _ID.search(moved)
                if found is not None and found.group(1) == identifier.encode():  # not written with escapes
                    chunk.values[place] = moved[: found.start(1)] + new.encode() + moved[found.end(1) :]
                    chunk.ids[place] = new
        yield chunk
