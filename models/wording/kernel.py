"""The compiled half of `models.wording.writer`: which rows are of one kind, and their messages in one buffer."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

import numpy as np

from app.domain.memory import compiled, load_byte, load_word, store, trailing_zeros

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["NUMBERS", "ROOM", "form_of", "group", "write"]

NUMBERS = 5
"""Slots of a message that take an integer; before them come one for an id and one for a score."""

_PIECES = NUMBERS + 3
_HEADER = Struct(f"<{_PIECES}q")
_WORD = 8
_HEADER_BYTES = _WORD * _PIECES
_ID_BYTES = 32

ROOM = _ID_BYTES + 24 + 20 * NUMBERS
"""What fills a message's slots at most, bytes: an id, the longest float, and integers with their signs."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
_COMMA, _BRACKET, _MINUS = b",]-"
_NULL = np.uint32(int.from_bytes(b"null", "little"))
_EIGHT_DIGITS = np.uint64(10**8)
_FOUR_DIGITS = np.uint64(10**4)
_ZEROS = np.uint64(int.from_bytes(b"00000000", "little"))


def form_of(pieces: Sequence[bytes]) -> bytes:
    """Return a form as `write` reads it: the lengths of its pieces, then the pieces, between which the slots are."""
    return _HEADER.pack(*map(len, pieces)) + b"".join(pieces)


@compiled
def group(
    rows: int, size: int, kind_at: int, kinds: NDArray[np.int64], firsts: NDArray[np.int64], counts: NDArray[np.int64]
) -> int:
    """Number the kinds of rows in the order in which they turn up; return how many there are.

    Parameters
    ----------
    rows
        Their address.
    size
        Of a row, bytes.
    kind_at
        From here to its end, at least 8 bytes, a row says of what kind it is.
    kinds
        Takes the number of each row's kind; shape (n,).
    firsts, counts
        Take each kind's first row, and how many it has; shape (n,).
    """
    slots = 2
    while slots < 2 * len(kinds):
        slots *= 2
    table = np.full(slots, -1, np.int32)
    found = 0
    kind_bytes = size - kind_at
    for row in range(len(kinds)):
        place = rows + row * size + kind_at
        slot = _hash(place, kind_bytes) & (slots - 1)
        while table[slot] >= 0 and not _same(rows + firsts[table[slot]] * size + kind_at, place, kind_bytes):
            slot = (slot + 1) & (slots - 1)
        if table[slot] < 0:
            table[slot] = found
            firsts[found] = row
            counts[found] = 0
            found += 1
        kinds[row] = table[slot]
        counts[table[slot]] += 1
    return found


@compiled
def _hash(place: int, length: int) -> int:
    mixed = np.uint64(0)
    for at in range(0, length, _WORD):
        # The last word overlaps the one before it, rather than reach beyond the end.
        mixed = (mixed ^ load_word(place + min(at, length - _WORD))) * _MIX
        mixed ^= mixed >> np.uint64(32)
    return _signed(mixed >> np.uint64(1))


@compiled
def _signed(word: np.uint64) -> int:
    # Numba makes a float of a signed and an unsigned number.
    return np.int64(word)  # type: ignore[return-value]  # an int here, as everywhere in compiled code


@compiled
def _same(one: int, other: int, length: int) -> bool:
    for at in range(0, length, _WORD):
        offset = min(at, length - _WORD)
        if load_word(one + offset) != load_word(other + offset):
            return False
    return True


@compiled
def write(
    ids: int,
    size: int,
    scores: int,
    numbers: NDArray[np.int64],
    forms: int,
    form_count: int,
    kinds: NDArray[np.int64],
    messages: int,
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
) -> None:
    """Write each row's message: the pieces of its form, and between them id, score and numbers.

    Parameters
    ----------
    ids
        Address of the first; an id ends where only zeros follow in its 32 bytes.
    size
        How far two ids are apart, bytes.
    scores
        Address of a JSON array, one score a row: each is written as it is there. Behind it is `PADDING`.
    numbers
        As they are written; the last of a row is null where it is below 0. Shape (n, `NUMBERS`).
    forms, form_count
        Address of what `form_of` made for each kind, one after the other, behind them `PADDING`; and how many.
    kinds
        The number of each row's kind; shape (n,).
    messages
        Address of room for each row's form and `ROOM`, and behind it for `PADDING`.
    starts, lengths
        Take where each message begins and how long it is; shape (n,).
    """
    places = _places(forms, form_count)
    place = messages
    score = scores
    for row in range(len(kinds)):
        begin = place
        header = places[kinds[row]]
        source = header + _HEADER_BYTES
        for piece in range(_PIECES):
            length = _signed(load_word(header + _WORD * piece))
            _copy(place, source, length)
            place += length
            source += length
            if piece == 0:
                place = _write_id(place, ids + row * size)
            elif piece == 1:
                score += 1  # the bracket or comma before it
                length = _element_length(score)
                _copy(place, score, length)
                place += length
                score += length
            elif piece <= NUMBERS:
                place = _write_number(place, numbers[row, piece - 2])
            elif piece == NUMBERS + 1:
                place = _write_number_or_null(place, numbers[row, piece - 2])
        starts[row] = begin - messages
        lengths[row] = place - begin


@compiled
def _places(forms: int, count: int) -> NDArray[np.int64]:
    places = np.empty(count, np.int64)
    place = forms
    for form in range(count):
        places[form] = place
        header = place
        place += _HEADER_BYTES
        for piece in range(_PIECES):
            place += _signed(load_word(header + _WORD * piece))
    return places


@compiled
def _copy(target: int, source: int, length: int) -> None:
    """Copy by whole words: up to 7 bytes behind the target are lost, which are written later or are padding."""
    for at in range(0, length, _WORD):
        store(target + at, load_word(source + at))


@compiled
def _write_id(place: int, source: int) -> int:
    length = _ID_BYTES
    while length and not load_byte(source + length - 1):
        length -= 1
    _copy(place, source, length)
    return place + length


@compiled
def _element_length(place: int) -> int:
    end = place
    while load_byte(end) != _COMMA and load_byte(end) != _BRACKET:
        end += 1
    return end - place


@compiled
def _write_number_or_null(place: int, number: int) -> int:
    if number < 0:
        store(place, _NULL)
        return place + 4
    return _write_number(place, number)


@compiled
def _write_number(place: int, number: int) -> int:
    left = np.uint64(number)
    if number < 0:
        store(place, np.uint8(_MINUS))
        place += 1
        left = np.uint64(0) - left
    if left < _EIGHT_DIGITS:
        return _write_leading(place, left)
    high = left // _EIGHT_DIGITS
    if high < _EIGHT_DIGITS:
        place = _write_leading(place, high)
    else:
        place = _write_leading(place, high // _EIGHT_DIGITS)
        store(place, _digits(high % _EIGHT_DIGITS) | _ZEROS)
        place += 8
    store(place, _digits(left % _EIGHT_DIGITS) | _ZEROS)
    return place + 8


@compiled
def _write_leading(place: int, number: np.uint64) -> int:
    """Write a number below 10**8 without the zeros before it."""
    digits = _digits(number)
    absent = min(trailing_zeros(digits) >> 3, 7)
    store(place, (digits | _ZEROS) >> np.uint64(8 * absent))
    return place + 8 - absent


@compiled
def _digits(number: np.uint64) -> np.uint64:
    """Return the eight digits of a number below 10**8, a byte each, the first the lowest: all lanes divided at once."""
    fours = (number // _FOUR_DIGITS) | (number % _FOUR_DIGITS) << np.uint64(32)
    hundreds = (fours * np.uint64(10_486) >> np.uint64(20)) & np.uint64(0x0000_007F_0000_007F)
    twos = hundreds | (fours - hundreds * np.uint64(100)) << np.uint64(16)
    tens = (twos * np.uint64(103) >> np.uint64(10)) & np.uint64(0x000F_000F_000F_000F)
    return tens | (twos - tens * np.uint64(10)) << np.uint64(8)
