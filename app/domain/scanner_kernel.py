"""The compiled scanner: bytes of many messages to rows, one pass, without a Python object.

It reads a subset of JSON: a flat object, names in ASCII without escapes, strings without escapes, no repeated names. It
answers for each message whether it could read all of it and found nothing wrong; it never says what is wrong. Every
message is followed by a NUL byte, which no token contains, so no loop needs to ask whether the message has ended.

What it calls in other files (JSON's tokens, the forms of identifiers, SipHash) is finished, since Numba's cache does not
notice a change there (see `app.domain.memory.compiled`). Everything that derives from `FIELDS` comes in as an argument:
Numba would freeze a global into its cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.domain.compiled_forms import is_end_to_end_id, is_tax_id, key_form
from app.domain.json_tokens import (
    are_digits,
    characters,
    decimal,
    integer_end,
    number_end,
    number_of,
    skip_space,
    string_end,
)
from app.domain.memory import Buffer, compiled, load_word, store
from app.domain.siphash import siphash13

__all__ = ["FIELD_DTYPE", "KIND_CODES", "MAX_UNKNOWN_FIELDS", "ROLES_DTYPE", "STATE_DTYPE", "WORD_DTYPE", "scan_batch"]

Records = NDArray[Any]

_END_TO_END_ID, _ISPB, _IDENTIFIER, _TAX_ID, _PIX_KEY, _ENUM, _TEXT = range(7)
_FLAGS, _BOOLEAN, _NUMBER, _TIMESTAMP, _CENTAVOS, _COUNT = range(7, 13)
KIND_CODES = (
    "end_to_end_id ispb identifier tax_id pix_key enum text flags boolean number timestamp centavos count".split()
)
"""Values of `Kind` in the order of the codes above; strings come first."""

FIELD_DTYPE = np.dtype(
    [
        ("head", "u8"),  # first 8 bytes of the name, zeros behind a shorter one
        ("name", "i8"),  # where the name stands in the vocabulary
        ("name_length", "i8"),
        ("kind", "i8"),
        ("required", "i8"),
        ("column", "i8"),  # byte offset in the row
        ("low", "f8"),
        ("high", "f8"),
        ("first_word", "i8"),  # ENUM, FLAGS: rows of the table of words
        ("words", "i8"),
        ("prefix", "i8"),  # hashed kinds: what is hashed first, in the vocabulary
        ("prefix_length", "i8"),
        ("after", "i8"),  # or the field whose value and a slash are hashed first; -1 for none
    ]
)
WORD_DTYPE = np.dtype([("start", "i8"), ("length", "i8")])
ROLES_DTYPE = np.dtype(
    [
        ("timestamp", "i8"),
        ("pix_key", "i8"),
        ("pix_key_type", "i8"),
        ("receiver_account", "i8"),
        ("receiver_column", "i8"),  # byte offset in the row
        ("required", "i8"),  # number of required fields
        ("row_size", "i8"),
    ]
)
STATE_DTYPE = np.dtype(
    [
        ("named", "i8"),  # the last message (counted from 1) in which the field was named
        ("present", "i8"),  # the last one in which it had a value
        ("start", "i8"),  # where its string stands in the text
        ("stop", "i8"),
        ("number", "i8"),  # its integer, or the code of an ENUM
        ("successor", "i8"),  # the field that came next when last seen: a guess that only saves time
        ("hash", "u8"),
    ]
)
MAX_UNKNOWN_FIELDS = 16

_QUOTE, _COMMA, _COLON, _SLASH = 34, 44, 58, 47
_OPEN_BRACE, _CLOSE_BRACE, _OPEN_BRACKET, _CLOSE_BRACKET = 123, 125, 91, 93
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(8)] + [2**64 - 1], np.uint64)
_NULL, _TRUE, _FALSE = (np.uint64(int.from_bytes(token, "little")) for token in (b"null", b"true", b"false"))
_MAX_INTEGER_DIGITS = 18
_OTHER_FLAG_BIT = 31


@compiled
def _equal(text: Buffer, start: int, other: Buffer, other_start: int, length: int) -> bool:
    """Compare bytes by words; both buffers are padded."""
    done = 0
    while done < length:
        mask = _MASKS[min(length - done, 8)]
        if (load_word(text, start + done) ^ load_word(other, other_start + done)) & mask != np.uint64(0):
            return False
        done += 8
    return True


@compiled
def _copy(text: Buffer, start: int, length: int, target: Buffer, place: int) -> None:
    for at in range(length):
        target[place + at] = text[start + at]


@compiled
def _find_field(text: Buffer, start: int, length: int, fields: Records, vocabulary: Buffer, guess: int) -> int:
    """Return the field of that name, -1 if there is none, trying the guess first."""
    head = load_word(text, start) & _MASKS[min(length, 8)]
    at = guess
    for _ in range(len(fields)):
        if fields[at].head == head and fields[at].name_length == length:
            if length <= 8 or _equal(text, start, vocabulary, fields[at].name, length):
                return at
        at = at + 1 if at + 1 < len(fields) else 0
    return -1


@compiled
def _find_word(text: Buffer, start: int, length: int, field: Any, words: Records, vocabulary: Buffer) -> int:
    """Return the place of a string among the field's values, -1 if there is none."""
    for at in range(field.words):
        word = words[field.first_word + at]
        if word.length == length and _equal(text, start, vocabulary, word.start, length):
            return at
    return -1


@compiled
def _read_string(
    text: Buffer,
    start: int,
    stop: int,
    is_ascii: bool,
    field: Any,
    place: Any,
    words: Records,
    vocabulary: Buffer,
    rows: Buffer,
    column: int,
) -> bool:
    """Check a string and write its column; what is hashed is only noted, for it may need other fields."""
    kind = field.kind
    if kind == _END_TO_END_ID:
        if not is_end_to_end_id(text, start, stop):
            return False
        _copy(text, start, 32, rows, column)
        return True
    if kind == _ISPB:
        place.start = start
        place.stop = stop
        store(rows, column, load_word(text, start))
        return stop - start == 8 and are_digits(text, start, stop)
    if kind == _ENUM:
        code = _find_word(text, start, stop - start, field, words, vocabulary) + 1
        place.number = code
        store(rows, column, np.uint8(code))
        return code > 0
    place.start = start
    place.stop = stop
    if kind == _TAX_ID:
        return is_tax_id(text, start, stop)
    if kind == _PIX_KEY:
        place.number = key_form(text, start, stop)
        return place.number > 0
    size = stop - start if is_ascii else characters(text, start, stop)
    if kind == _TEXT:
        store(rows, column, np.int32(size))
    return field.low <= size <= field.high and size >= 0


@compiled
def _read_flags(
    text: Buffer, at: int, field: Any, words: Records, vocabulary: Buffer, rows: Buffer, column: int
) -> int:
    """Read an array of strings; return where it ends, or -1."""
    bits = np.uint32(0)
    at = skip_space(text, at + 1)
    while text[at] == _QUOTE:
        start = at + 1
        stop, is_ascii = string_end(text, start)
        if stop < 0 or (not is_ascii and characters(text, start, stop) < 0):
            return -1
        bit = _find_word(text, start, stop - start, field, words, vocabulary)
        bits |= np.uint32(1) << np.uint32(bit if bit >= 0 else _OTHER_FLAG_BIT)
        at = skip_space(text, stop + 1)
        if text[at] != _COMMA:
            break
        at = skip_space(text, at + 1)
        if text[at] != _QUOTE:
            return -1
    store(rows, column, bits)
    return at + 1 if text[at] == _CLOSE_BRACKET else -1


@compiled
def _read_number(text: Buffer, at: int, field: Any, place: Any, rows: Buffer, column: int) -> int:
    """Read a number or a boolean; return where it ends, or -1."""
    kind = field.kind
    if kind == _BOOLEAN:
        word = load_word(text, at)
        is_true = word & _MASKS[4] == _TRUE
        if not is_true and word & _MASKS[5] != _FALSE:
            return -1
        store(rows, column, np.int8(is_true))
        return at + 4 if is_true else at + 5
    if kind == _NUMBER:
        stop, number = decimal(text, at)
        store(rows, column, number)
        return stop if field.low <= number <= field.high else -1
    stop = integer_end(text, at)
    if stop < 0 or stop - at > _MAX_INTEGER_DIGITS:
        return -1
    integer = number_of(text, at, stop)
    place.number = integer
    if kind == _COUNT:
        store(rows, column, np.float32(integer))
    else:
        store(rows, column, np.int64(integer))
    return stop if field.low <= integer <= field.high else -1


@compiled
def _read_value(
    text: Buffer,
    at: int,
    stamp: int,
    field: Any,
    place: Any,
    words: Records,
    vocabulary: Buffer,
    rows: Buffer,
    row: int,
) -> int:
    """Read a known field's value; return where it ends, or -1."""
    if text[at] == 110:
        is_null = load_word(text, at) & _MASKS[4] == _NULL
        return at + 4 if is_null and field.required == 0 else -1
    place.present = stamp
    column = row + field.column
    if field.kind <= _TEXT:
        if text[at] != _QUOTE:
            return -1
        stop, is_ascii = string_end(text, at + 1)
        if stop < 0 or not _read_string(text, at + 1, stop, is_ascii, field, place, words, vocabulary, rows, column):
            return -1
        return stop + 1
    if field.kind == _FLAGS:
        return _read_flags(text, at, field, words, vocabulary, rows, column) if text[at] == _OPEN_BRACKET else -1
    return _read_number(text, at, field, place, rows, column)


@compiled
def _skip_value(text: Buffer, at: int) -> int:
    """Pass over an unknown field's value, which is not nested; return where it ends, or -1."""
    if text[at] == _QUOTE:
        stop, is_ascii = string_end(text, at + 1)
        is_text = stop >= 0 and (is_ascii or characters(text, at + 1, stop) >= 0)
        return stop + 1 if is_text else -1
    word = load_word(text, at)
    if word & _MASKS[4] == _TRUE or word & _MASKS[4] == _NULL:
        return at + 4
    return at + 5 if word & _MASKS[5] == _FALSE else number_end(text, at)


@compiled
def _note_unknown(text: Buffer, start: int, length: int, unknown: Records, count: int) -> bool:
    """Keep an unknown name; return whether it is new and there was room."""
    if count >= len(unknown):
        return False
    for at in range(count):
        if unknown[at].length == length and _equal(text, start, text, unknown[at].start, length):
            return False
    unknown[count].start = start
    unknown[count].length = length
    return True


@compiled
def _scan_object(
    text: Buffer,
    at: int,
    end: int,
    stamp: int,
    fields: Records,
    state: Records,
    words: Records,
    vocabulary: Buffer,
    unknown: Records,
    required: int,
    rows: Buffer,
    row: int,
) -> bool:
    """Read one message; return whether all of it was understood and nothing required is missing."""
    previous, found, strangers = len(fields), 0, 0
    at = skip_space(text, at)
    if text[at] != _OPEN_BRACE:
        return False
    at = skip_space(text, at + 1)
    while text[at] == _QUOTE:
        start = at + 1
        stop, is_ascii = string_end(text, start)
        if stop < 0 or not is_ascii:
            return False
        at = skip_space(text, stop + 1)
        if text[at] != _COLON:
            return False
        at = skip_space(text, at + 1)
        guess = state[previous].successor
        number = _find_field(text, start, stop - start, fields, vocabulary, guess)
        if number < 0:
            if not _note_unknown(text, start, stop - start, unknown, strangers):
                return False
            strangers += 1
            at = _skip_value(text, at)
        else:
            if state[number].named == stamp:
                return False
            state[number].named = stamp
            state[previous].successor = number
            previous = number
            found += fields[number].required
            at = _read_value(text, at, stamp, fields[number], state[number], words, vocabulary, rows, row)
        if at < 0:
            return False
        at = skip_space(text, at)
        if text[at] == _CLOSE_BRACE:
            return skip_space(text, at + 1) == end and found == required
        if text[at] != _COMMA:
            return False
        at = skip_space(text, at + 1)
    return False


@compiled
def _hash_strings(
    text: Buffer,
    stamp: int,
    fields: Records,
    state: Records,
    hashed: NDArray[np.int64],
    vocabulary: Buffer,
    scratch: Buffer,
    first: np.uint64,
    second: np.uint64,
    rows: Buffer,
    row: int,
) -> bool:
    """Write the pseudonyms; return whether each had room and what it is hashed with."""
    for number in hashed:
        place, field = state[number], fields[number]
        if place.present != stamp:
            continue
        length = field.prefix_length
        if field.after >= 0:
            before = state[field.after]
            if before.present != stamp:
                return False
            length = before.stop - before.start + 1
            _copy(text, before.start, length - 1, scratch, 0)
            scratch[length - 1] = _SLASH
        else:
            _copy(vocabulary, field.prefix, length, scratch, 0)
        size = place.stop - place.start
        if length + size + 8 > len(scratch):
            return False
        _copy(text, place.start, size, scratch, length)
        place.hash = siphash13(scratch, 0, length + size, first, second)
        store(rows, row + field.column, place.hash)
    return True


@compiled
def _agrees(
    text: Buffer,
    stamp: int,
    fields: Records,
    state: Records,
    roles: Any,
    key_codes: Buffer,
    key: Buffer,
    key_start: int,
    key_length: int,
    rows: Buffer,
    row: int,
) -> bool:
    """Hold key, type and Kafka key against each other; complete the row."""
    has_key = state[roles.pix_key].present == stamp
    has_type = state[roles.pix_key_type].present == stamp
    receiver = state[roles.pix_key if has_key else roles.receiver_account]
    if has_key:
        code = key_codes[receiver.number]
        if has_type and state[roles.pix_key_type].number != code:
            return False
        store(rows, row + fields[roles.pix_key_type].column, code)
    elif has_type:
        return False
    store(rows, row + roles.receiver_column, receiver.hash)
    return key_length == receiver.stop - receiver.start and _equal(text, receiver.start, key, key_start, key_length)


@compiled
def scan_batch(
    text: Buffer,
    lengths: NDArray[np.int64],
    keys: Buffer,
    key_lengths: NDArray[np.int64],
    kafka_ms: NDArray[np.int64],
    max_age_ms: int,
    max_lead_ms: int,
    first: np.uint64,
    second: np.uint64,
    fields: Records,
    words: Records,
    vocabulary: Buffer,
    hashed: NDArray[np.int64],
    roles: Records,
    key_codes: Buffer,
    state: Records,
    unknown: Records,
    scratch: Buffer,
    rows: Buffer,
    accepted: NDArray[np.bool_],
) -> None:
    """Scan n messages.

    Parameters
    ----------
    text
        The messages, each followed by a NUL byte, and padding.
    lengths
        Their lengths in bytes, shape (n,).
    keys, key_lengths
        Their Kafka keys without anything between them, and padding; -1 for a message without key.
    kafka_ms
        Their Kafka timestamps, shape (n,); below 0 for none.
    max_age_ms, max_lead_ms
        How far a message's time may lie from them.
    first, second
        The words of the hash key.
    fields, words, vocabulary, hashed, roles, key_codes
        What `app.domain.scanner` derives from `FIELDS`.
    state, unknown, scratch
        Working memory; `state` is zero but for the guesses in `successor`.
    rows
        n rows of `TRANSACTION_DTYPE` as bytes, every field missing. Where `accepted` stays false they hold rubbish.
    accepted
        Out, shape (n,).
    """
    start, key_start, role = 0, 0, roles[0]
    for number in range(len(lengths)):
        end, stamp, row = start + lengths[number], number + 1, number * role.row_size
        if (
            _scan_object(text, start, end, stamp, fields, state, words, vocabulary, unknown, role.required, rows, row)
            and _hash_strings(text, stamp, fields, state, hashed, vocabulary, scratch, first, second, rows, row)
            and _agrees(text, stamp, fields, state, role, key_codes, keys, key_start, key_lengths[number], rows, row)
        ):
            lead = state[role.timestamp].number - kafka_ms[number]
            accepted[number] = kafka_ms[number] < 0 or -max_age_ms <= lead <= max_lead_ms
        start = end + 1
        key_start += max(key_lengths[number], 0)
