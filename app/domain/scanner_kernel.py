"""The compiled scanner: bytes of many messages to rows, one pass, without a Python object.

It reads a subset of JSON: a flat object, names in ASCII without escapes, no repeated names, escapes only in strings of
which no more than the length is kept. It answers for each message whether it could read all of it and found nothing
wrong; it never says what is wrong. Places are addresses (see `app.domain.memory`). Every message is followed by a NUL
byte, which no token contains, so no loop asks whether the message has ended; one that is not is read from a copy. What
stands behind the NUL byte may be anything: no loop may begin there.

What it calls in other files (JSON's tokens, the forms of identifiers, SipHash, copying) is finished, since Numba's
cache does not notice a change there. Everything that derives from `FIELDS` comes in as an argument: Numba would freeze
a global into its cache.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.domain.compiled_forms import is_end_to_end_id, is_tax_id, key_form
from app.domain.json_tokens import (
    are_digits,
    decimal,
    escaped_text_end,
    integer_end,
    number_end,
    number_of,
    skip_space,
    string_end,
    text_end,
)
from app.domain.memory import compiled, copy_bytes, load_byte, load_word, store
from app.domain.siphash import siphash13

__all__ = ["KIND_CODES", "scan_batch"]

KIND_CODES = (
    "end_to_end_id", "ispb", "identifier", "tax_id", "pix_key", "enum", "text",
    "flags", "boolean", "number", "timestamp", "centavos", "count",
)  # fmt: skip
"""Values of `Kind` in the order of the codes below; strings come first."""
_END_TO_END_ID, _ISPB, _IDENTIFIER, _TAX_ID, _PIX_KEY, _ENUM, _TEXT = range(7)
_FLAGS, _BOOLEAN, _NUMBER, _TIMESTAMP, _CENTAVOS, _COUNT = range(7, 13)

_QUOTE, _COMMA, _MINUS, _COLON, _SLASH = 34, 44, 45, 58, 47
_OPEN_BRACE, _CLOSE_BRACE, _OPEN_BRACKET, _CLOSE_BRACKET, _SMALL_N = 123, 125, 91, 93, 110
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(8)] + [2**64 - 1], np.uint64)
_NULL, _TRUE, _FALSE = (np.uint64(int.from_bytes(token, "little")) for token in (b"null", b"true", b"false"))
_MAX_INTEGER_DIGITS = 18
_OTHER_FLAG_BIT = 31

Table = NDArray[np.void]


class Record(Protocol):
    """One element of a table of `scanner.py`: Numba gives its members as attributes."""

    def __getattr__(self, name: str, /) -> int: ...

    def __setattr__(self, name: str, value: int | np.uint64, /) -> None: ...


@compiled
def _equal(start: int, other: int, length: int) -> bool:
    done = 0
    while done < length:
        mask = _MASKS[min(length - done, 8)]
        if (load_word(start + done) ^ load_word(other + done)) & mask != np.uint64(0):
            return False
        done += 8
    return True


@compiled
def _copy(start: int, length: int, target: int) -> None:
    """Copy by whole words: up to 7 bytes more are written."""
    for done in range(0, length, 8):
        store(target + done, load_word(start + done))


@compiled
def _find_field(start: int, length: int, fields: Table, guess: int) -> int:
    """Return the field of that name, -1 if there is none, trying the guess first."""
    head = load_word(start) & _MASKS[min(length, 8)]
    at = guess
    for _ in range(len(fields)):
        is_alike = fields[at].head == head and fields[at].name_length == length
        if is_alike and (length <= 8 or _equal(start, fields[at].name, length)):
            return at
        at = at + 1 if at + 1 < len(fields) else 0
    return -1


@compiled
def _find_value(start: int, length: int, values: int) -> int:
    """Return the place of a string among a field's values, -1 if there is none."""
    at = 0
    size = load_byte(values)
    while size != 0:
        if size == length and _equal(start, values + 1, length):
            return at
        at += 1
        values += 1 + size
        size = load_byte(values)
    return -1


@compiled
def _read_string(start: int, stop: int, size: int, field: Record, place: Record, column: int) -> bool:
    """Check a string of `size` characters and write its column; what is hashed is only noted until all is read."""
    kind = field.kind
    place.start = start
    place.stop = stop
    if kind == _ENUM:
        code = _find_value(start, stop - start, field.values) + 1
        place.number = code
        store(column, np.uint8(code))
        is_right = code > 0
    elif kind == _TAX_ID:
        is_right = is_tax_id(start, stop)
    elif kind == _PIX_KEY:
        place.number = key_form(start, stop)
        is_right = place.number > 0
    elif kind == _ISPB:
        is_right = stop - start == 8 and are_digits(start, stop)
        store(column, load_word(start))
    elif kind == _END_TO_END_ID:
        is_right = is_end_to_end_id(start, stop)
        if is_right:
            _copy(start, 32, column)
    else:
        is_right = field.low <= size <= field.high
        if kind == _TEXT:
            store(column, np.int32(size))
    return is_right


@compiled
def _read_flags(at: int, field: Record, column: int) -> int:
    """Read an array of strings; return where it ends, or -1."""
    bits = 0
    at = skip_space(at + 1)
    while load_byte(at) == _QUOTE:
        start = at + 1
        stop, size = text_end(start)
        if size < 0:
            return -1
        bit = _find_value(start, stop - start, field.values)
        bits |= 1 << (bit if bit >= 0 else _OTHER_FLAG_BIT)
        at = skip_space(stop + 1)
        if load_byte(at) == _CLOSE_BRACKET:
            break
        if load_byte(at) != _COMMA:
            return -1
        at = skip_space(at + 1)
        if load_byte(at) != _QUOTE:
            return -1
    store(column, np.uint32(bits))
    return at + 1 if load_byte(at) == _CLOSE_BRACKET else -1


@compiled
def _read_number(at: int, field: Record, place: Record, column: int) -> int:
    """Read an integer or a decimal number; return where it ends, or -1."""
    if field.kind == _NUMBER:
        stop, number = decimal(at)
        store(column, number)
        return stop if field.low <= number <= field.high else -1
    is_negative = load_byte(at) == _MINUS
    at += is_negative
    stop = integer_end(at)
    if stop < 0 or stop - at > _MAX_INTEGER_DIGITS:
        return -1
    integer = -number_of(at, stop) if is_negative else number_of(at, stop)
    place.number = integer
    if field.kind == _COUNT:
        store(column, np.float32(integer))
    else:
        store(column, np.int64(integer))
    return stop if field.low <= integer <= field.high else -1


@compiled
def _read_value(at: int, stamp: int, field: Record, place: Record, row: int) -> int:
    """Read a known field's value; return where it ends, or -1."""
    if load_byte(at) == _SMALL_N:
        is_null = load_word(at) & _MASKS[4] == _NULL
        return at + 4 if is_null and field.required == 0 else -1
    place.present = stamp
    column = row + field.column
    if field.kind <= _TEXT:
        if load_byte(at) != _QUOTE:
            return -1
        stop, size = escaped_text_end(at + 1) if field.kind == _TEXT else text_end(at + 1)
        return stop + 1 if size >= 0 and _read_string(at + 1, stop, size, field, place, column) else -1
    if field.kind == _FLAGS:
        return _read_flags(at, field, column) if load_byte(at) == _OPEN_BRACKET else -1
    if field.kind == _BOOLEAN:
        is_true = load_word(at) & _MASKS[4] == _TRUE
        store(column, np.int8(is_true))
        at += 4 if is_true else 5
        return at if is_true or load_word(at - 5) & _MASKS[5] == _FALSE else -1
    return _read_number(at, field, place, column)


@compiled
def _skip_value(at: int) -> int:
    """Pass over an unknown field's value, which is not nested; return where it ends, or -1."""
    if load_byte(at) == _QUOTE:
        stop, size = escaped_text_end(at + 1)
        return stop + 1 if size >= 0 else -1
    word = load_word(at)
    if word & _MASKS[4] == _TRUE or word & _MASKS[4] == _NULL:
        return at + 4
    return at + 5 if word & _MASKS[5] == _FALSE else number_end(at)


@compiled
def _skip_unknown(start: int, length: int, at: int, unknown: Table, count: int) -> int:
    """Keep an unknown name and pass over its value; -1 where the name is not new or there is no room."""
    if count >= len(unknown):
        return -1
    for earlier in range(count):
        if unknown[earlier].length == length and _equal(start, unknown[earlier].start, length):
            return -1
    unknown[count].start = start
    unknown[count].length = length
    return _skip_value(at)


@compiled
def _name_end(at: int) -> int:
    """Return the place of a name's closing quote where a colon follows and all is plain, else -1."""
    if load_byte(at) != _QUOTE:
        return -1
    stop, is_ascii = string_end(at + 1)
    return stop if stop >= 0 and is_ascii and load_byte(skip_space(stop + 1)) == _COLON else -1


@compiled
def _scan_object(
    at: int, end: int, stamp: int, fields: Table, state: Table, unknown: Table, required: int, row: int
) -> bool:
    """Read one message; return whether all of it was understood and nothing required is missing."""
    previous, strangers, separator = len(fields), 0, _COMMA
    at = skip_space(at)
    if load_byte(at) != _OPEN_BRACE:
        return False
    while separator == _COMMA:
        start = skip_space(at + 1) + 1
        stop = _name_end(start - 1)
        if stop < 0:
            return False
        at = skip_space(skip_space(stop + 1) + 1)
        number = _find_field(start, stop - start, fields, state[previous].successor)
        if number < 0:
            at = _skip_unknown(start, stop - start, at, unknown, strangers)
            strangers += 1
        elif state[number].named == stamp:
            at = -1
        else:
            state[number].named = stamp
            state[previous].successor = number
            previous = number
            required -= fields[number].required
            at = _read_value(at, stamp, fields[number], state[number], row)
        if at < 0:
            return False
        at = skip_space(at)
        separator = load_byte(at)
    return separator == _CLOSE_BRACE and skip_space(at + 1) == end and required == 0


@compiled
def _write_pseudonyms(
    stamp: int, fields: Table, state: Table, hashed: NDArray[np.int64], role: Record, row: int
) -> bool:
    """Return whether each hashed field had room, and what is hashed before it."""
    for number in hashed:
        place, field = state[number], fields[number]
        if place.present != stamp:
            continue
        source, length = field.prefix, field.prefix_length
        if field.after >= 0:
            before = state[field.after]
            if before.present != stamp:
                return False
            source, length = before.start, before.stop - before.start
        size = place.stop - place.start
        if length + size + 32 > role.scratch_size:
            return False
        _copy(source, length, role.scratch)
        if field.after >= 0:
            store(role.scratch + length, np.uint8(_SLASH))
            length += 1
        _copy(place.start, size, role.scratch + length)
        place.hash = siphash13(role.scratch, length + size, np.uint64(role.hash_key_1), np.uint64(role.hash_key_2))
        store(row + field.column, place.hash)
    return True


@compiled
def _agrees(
    stamp: int,
    fields: Table,
    state: Table,
    role: Record,
    key_codes: NDArray[np.uint8],
    key: int,
    key_length: int,
    row: int,
) -> bool:
    """Complete the row; return whether key, type and Kafka key agree."""
    has_key = state[role.pix_key].present == stamp
    has_type = state[role.pix_key_type].present == stamp
    receiver = state[role.pix_key if has_key else role.receiver_account]
    code = key_codes[receiver.number] if has_key else np.uint8(0)
    store(row + fields[role.pix_key_type].column, code)
    store(row + role.receiver_column, receiver.hash)
    if has_type and (not has_key or state[role.pix_key_type].number != code):
        return False
    if key_length != receiver.stop - receiver.start:
        return False
    # What was hashed last may be overwritten. The receiver was in it, so a key of its length has room.
    copy_bytes(key, key_length, role.scratch)
    return _equal(role.scratch, receiver.start, key_length)


@compiled
def scan_batch(
    messages: NDArray[np.int64],
    lengths: NDArray[np.int64],
    limits: NDArray[np.int64],
    keys: NDArray[np.int64],
    key_lengths: NDArray[np.int64],
    kafka_ms: NDArray[np.int64],
    fields: Table,
    hashed: NDArray[np.int64],
    roles: Table,
    key_codes: NDArray[np.uint8],
    state: Table,
    unknown: Table,
    copy: int,
    row: int,
    accepted: NDArray[np.bool_],
) -> None:
    """Scan n messages.

    Parameters
    ----------
    messages, lengths
        Addresses of the messages and their lengths, below 0 for none; shape (n,).
    limits
        The last addresses that `PADDING` fits behind in the messages' memory, shape (n,).
    keys, key_lengths
        Addresses of their Kafka keys and their lengths, below 0 for none; shape (n,).
    kafka_ms
        Their Kafka timestamps, shape (n,); below 0 for none.
    fields, hashed, roles, key_codes
        What `app.domain.scanner` derives from `FIELDS`; `roles` has one element.
    state, unknown
        Working memory; the guesses in `successor` stay from call to call.
    copy
        Address of memory for the longest message and `PADDING`.
    row
        Address of n rows of `TRANSACTION_DTYPE`, every field missing. Where `accepted` stays false they hold rubbish.
    accepted
        Out, shape (n,).
    """
    role = roles[0]
    for number in range(len(state)):
        state[number].named = 0
        state[number].present = 0
    for number in range(len(lengths)):
        text, length, stamp = messages[number], max(lengths[number], 0), number + 1
        # A record tells the number of its headers behind its value: where that is none, and nearly always it is, there
        # stands the NUL byte. What is missing has no address either, so nothing is looked up there.
        if lengths[number] < 0 or text + length > limits[number] or load_byte(text + length) != 0:
            copy_bytes(text, length, copy)
            text = copy
            store(text + length, np.uint8(0))
        if (
            _scan_object(text, text + length, stamp, fields, state, unknown, role.required, row)
            and _write_pseudonyms(stamp, fields, state, hashed, role, row)
            and _agrees(stamp, fields, state, role, key_codes, keys[number], key_lengths[number], row)
        ):
            lead_ms = state[role.timestamp].number - kafka_ms[number]
            accepted[number] = kafka_ms[number] < 0 or -role.max_age_ms <= lead_ms <= role.max_lead_ms
        row += role.row_size
