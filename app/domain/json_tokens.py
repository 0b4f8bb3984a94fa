"""JSON's tokens in compiled code: strings, UTF-8, numbers.

A place is an address in memory. Every text is followed by a NUL byte, which no token contains, and by
`app.domain.memory.PADDING`, so no loop asks whether the text has ended. JSON does not change; what depends on our
messages stands in `scanner_kernel.py`.
"""

from __future__ import annotations

import numpy as np

from app.domain.memory import compiled, load_byte, load_word, trailing_zeros

__all__ = [
    "are_digits",
    "decimal",
    "digits_end",
    "escaped_text_end",
    "integer_end",
    "number_end",
    "number_of",
    "skip_space",
    "string_end",
    "text_end",
]

_QUOTE, _BACKSLASH, _MINUS, _DOT, _PLUS, _SMALL_U = 34, 92, 45, 46, 43, 117
_ONES, _HIGHS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_QUOTES, _BACKSLASHES, _SPACES = (_ONES * np.uint64(character) for character in (0x22, 0x5C, 0x20))
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(8)], np.uint64)
_POWERS_OF_TEN = np.array([10.0**power for power in range(20)])
_MAX_DIGITS = 19


@compiled
def skip_space(place: int) -> int:
    """Return the place of the first byte that is no white space."""
    while load_byte(place) == 32 or load_byte(place) == 10 or load_byte(place) == 13 or load_byte(place) == 9:
        place += 1
    return place


@compiled
def _ends_of_string(word: np.uint64) -> np.uint64:
    """Set the high bit of the first byte that is a quote, a backslash or below a space; later ones may be spoilt."""
    quote, backslash = word ^ _QUOTES, word ^ _BACKSLASHES
    return (((quote - _ONES) & ~quote) | ((backslash - _ONES) & ~backslash) | ((word - _SPACES) & ~word)) & _HIGHS


@compiled
def string_end(place: int) -> tuple[int, bool]:
    """Return where the closing quote stands (-1: an escape or a control character first), and whether all is ASCII."""
    seen = np.uint64(0)
    word = load_word(place)
    ends = _ends_of_string(word)
    while ends == np.uint64(0):
        seen |= word
        place += 8
        word = load_word(place)
        ends = _ends_of_string(word)
    size = trailing_zeros(ends) >> 3
    seen |= word & _MASKS[size]
    place += size
    return (place if load_byte(place) == _QUOTE else -1), (seen & _HIGHS) == np.uint64(0)


@compiled
def _characters(start: int, stop: int) -> int:
    """Return the number of characters of well-formed UTF-8, or -1. A quote or a backslash follows."""
    count = 0
    while start < stop:
        lead, following, low, high = load_byte(start), 0, 0x80, 0xBF
        if lead >= 0x80:
            if 0xC2 <= lead <= 0xDF:
                following = 1
            elif 0xE0 <= lead <= 0xEF:
                following = 2
                low = 0xA0 if lead == 0xE0 else 0x80  # no overlong form
                high = 0x9F if lead == 0xED else 0xBF  # no surrogate
            elif 0xF0 <= lead <= 0xF4:
                following = 3
                low = 0x90 if lead == 0xF0 else 0x80
                high = 0x8F if lead == 0xF4 else 0xBF  # not beyond U+10FFFF
            else:
                return -1
            for place in range(start + 1, start + 1 + following):
                if load_byte(place) < low or load_byte(place) > high:
                    return -1
                low, high = 0x80, 0xBF
        start += 1 + following
        count += 1
    return count


@compiled
def text_end(start: int) -> tuple[int, int]:
    """Return where the closing quote stands and the number of characters; -1 for these where the text is not plain."""
    stop, is_ascii = string_end(start)
    if stop < 0:
        return stop, -1
    return stop, (stop - start if is_ascii else _characters(start, stop))


@compiled
def _escape_size(place: int) -> int:
    """Return the length of an escape that stands for one character; 0 for any other, a surrogate's too."""
    letter = load_byte(place + 1)
    if letter != _SMALL_U:
        return 2 if letter in (34, 92, 47, 98, 102, 110, 114, 116) else 0  # "\\/bfnrt
    code = 0
    for at in range(place + 2, place + 6):
        digit = load_byte(at)
        if 48 <= digit <= 57:
            code = code * 16 + digit - 48
        elif 65 <= digit & ~32 <= 70:  # either case
            code = code * 16 + (digit & ~32) - 55
        else:
            return 0
    return 0 if 0xD800 <= code <= 0xDFFF else 6


@compiled
def escaped_text_end(place: int) -> tuple[int, int]:
    """Return what `text_end` does, for a text that may have escapes. Python's `json` escapes whatever is not ASCII."""
    start, count = place, 0
    byte = load_byte(place)
    while byte != _QUOTE:
        if byte < 32:
            return -1, -1
        if byte == _BACKSLASH:
            size, plain = _escape_size(place), _characters(start, place)
            if size == 0 or plain < 0:
                return -1, -1
            count += plain + 1
            place += size
            start = place
        else:
            place += 1
        byte = load_byte(place)
    plain = _characters(start, place)
    return place, (count + plain if plain >= 0 else -1)


@compiled
def digits_end(place: int) -> int:
    """Return the place of the first byte that is no digit."""
    while 48 <= load_byte(place) <= 57:
        place += 1
    return place


@compiled
def are_digits(start: int, stop: int) -> bool:
    """Return whether all bytes are digits."""
    return digits_end(start) >= stop


@compiled
def number_of(start: int, stop: int) -> int:
    """Return the number that up to 18 digits spell."""
    number = 0
    for place in range(start, stop):
        number = number * 10 + load_byte(place) - 48
    return number


@compiled
def integer_end(place: int) -> int:
    """Return where an unsigned JSON integer of any length ends, or -1."""
    stop = digits_end(place)
    return -1 if stop == place or (load_byte(place) == 48 and stop > place + 1) else stop


@compiled
def number_end(place: int) -> int:
    """Return where any JSON number ends, or -1."""
    if load_byte(place) == _MINUS:
        place += 1
    place = integer_end(place)
    if place >= 0 and load_byte(place) == _DOT:
        start = place + 1
        place = digits_end(start)
        if place == start:
            return -1
    if place >= 0 and (load_byte(place) == 101 or load_byte(place) == 69):
        start = place + 1
        if load_byte(start) == _PLUS or load_byte(start) == _MINUS:
            start += 1
        place = digits_end(start)
        if place == start:
            return -1
    return place


@compiled
def _quotient(digits: np.uint64, power: int) -> float:
    """Return digits / 10**power correctly rounded, or NaN where twice the precision of a double does not settle it."""
    divisor = _POWERS_OF_TEN[power]
    high = np.float64(digits)
    low = np.float64(np.int64(digits - np.uint64(high)))
    quotient = high / divisor
    # quotient * divisor = product + error exactly (Dekker); the remainder of a rounded division is exact too.
    product = quotient * divisor
    split = quotient * 134217729.0
    quotient_high = split - (split - quotient)
    quotient_low = quotient - quotient_high
    split = divisor * 134217729.0
    divisor_high = split - (split - divisor)
    divisor_low = divisor - divisor_high
    error = quotient_high * divisor_high - product + quotient_high * divisor_low + quotient_low * divisor_high
    error += quotient_low * divisor_low
    correction = (high - product - error + low) / divisor
    rounded = quotient + correction
    rest = correction - (rounded - quotient)
    return rounded if rounded + rest * 1.0000001 == rounded else np.nan


@compiled
def decimal(place: int) -> tuple[int, float]:
    """Read a JSON number without exponent; the place is -1 where it is none, or needs the strict decoder."""
    is_negative = load_byte(place) == _MINUS
    if is_negative:
        place += 1
    stop = integer_end(place)
    if stop < 0 or stop - place > _MAX_DIGITS:
        return -1, np.nan
    digits = np.uint64(0)
    for at in range(place, stop):
        digits = digits * np.uint64(10) + np.uint64(load_byte(at) - 48)
    power = 0
    if load_byte(stop) == _DOT:
        start = stop + 1
        first, stop = stop - place, digits_end(start)
        power = stop - start
        if power == 0 or first + power > _MAX_DIGITS:
            return -1, np.nan
        for at in range(start, stop):
            digits = digits * np.uint64(10) + np.uint64(load_byte(at) - 48)
    value = _quotient(digits, power)
    if is_negative:
        value = -value
    return (-1 if np.isnan(value) else stop), value + 0.0  # -0.0 becomes 0.0, as in the strict decoder
