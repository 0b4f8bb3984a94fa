"""The forms of `pix_keys.py` in compiled code, on strings where they stand in their message.

Strings are given by the addresses of their first byte and of the one behind their last. A closing quote follows each.
No form contains a quote, so each loop ends there. The tests hold these functions against `pix_keys.py`.
"""

from __future__ import annotations

import numpy as np

from app.domain.json_tokens import are_digits, number_of
from app.domain.memory import compiled, load_byte

__all__ = ["KEY_FORMS", "is_end_to_end_id", "is_tax_id", "key_form"]

KEY_FORMS = ("", "CPF", "CNPJ", "PHONE", "EMAIL", "EVP")
_NO_KEY, _CPF, _CNPJ, _PHONE, _EMAIL, _EVP = range(6)

_MINUS, _PLUS, _DOT, _AT = 45, 43, 46, 64
_DAYS_IN_MONTH = np.array([31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_IN_LOCAL_PART = np.zeros(256, np.bool_)
_IN_LOCAL_PART[list(b"abcdefghijklmnopqrstuvwxyz0123456789.!#$&'*+/=?^_`{|}~-")] = True
_MAX_EMAIL, _MAX_LABEL = 77, 63


@compiled
def _is_cpf(start: int) -> bool:
    """Judge 11 digits; the weights 11..2 of the second check digit are the first one's and one more each."""
    first, second, is_varied = 0, 0, False
    for place in range(9):
        digit = load_byte(start + place) - 48
        first += digit * (10 - place)
        second += digit * (11 - place)
        is_varied |= load_byte(start + place) != load_byte(start + 10)
    first = first * 10 % 11 % 10
    second = (second + first * 2) * 10 % 11 % 10
    is_varied |= load_byte(start + 9) != load_byte(start + 10)
    return is_varied and load_byte(start + 9) == first + 48 and load_byte(start + 10) == second + 48


@compiled
def _is_cnpj(start: int) -> bool:
    """Judge 14 characters."""
    first, second, any_bits = 0, 0, 0
    for place in range(12):
        character = load_byte(start + place)
        if not (48 <= character <= 57 or 65 <= character <= 90):
            return False
        value = character - 48
        any_bits |= value
        first += value * (2 + (11 - place) % 8)
        second += value * (2 + (12 - place) % 8)
    first %= 11
    first = 0 if first < 2 else 11 - first
    second = (second + first * 2) % 11
    second = 0 if second < 2 else 11 - second
    return any_bits != 0 and load_byte(start + 12) == first + 48 and load_byte(start + 13) == second + 48


@compiled
def is_tax_id(start: int, stop: int) -> bool:
    """Return whether the bytes are a CPF or a CNPJ."""
    if stop - start == 11:
        return are_digits(start, stop) and _is_cpf(start)
    return stop - start == 14 and _is_cnpj(start)


@compiled
def _is_evp(start: int, stop: int) -> bool:
    if stop - start != 36:
        return False
    for place in range(36):
        character = load_byte(start + place)
        if place in (8, 13, 18, 23):
            if character != _MINUS:
                return False
        elif not (48 <= character <= 57 or 97 <= character <= 102):
            return False
    return True


@compiled
def _is_email(start: int, stop: int) -> bool:
    at = start
    while _IN_LOCAL_PART[load_byte(at)]:
        at += 1
    if at == start or load_byte(at) != _AT or stop - start > _MAX_EMAIL:
        return False
    label = at + 1
    for place in range(label, stop + 1):
        character = load_byte(place)
        if place == stop or character == _DOT:
            is_empty_or_long = place == label or place - label > _MAX_LABEL
            if is_empty_or_long or load_byte(label) == _MINUS or load_byte(place - 1) == _MINUS:
                return False
            label = place + 1
        elif not (97 <= character <= 122 or 48 <= character <= 57 or character == _MINUS):
            return False
    return True


@compiled
def key_form(start: int, stop: int) -> int:
    """Return the place in `KEY_FORMS` of the one form that a key has; 0 for none."""
    size = stop - start
    if load_byte(start) == _PLUS and 4 <= size <= 17 and are_digits(start + 1, stop) and load_byte(start + 1) != 48:
        return _PHONE
    if is_tax_id(start, stop):
        return _CPF if size == 11 else _CNPJ
    if _is_evp(start, stop):
        return _EVP
    return _EMAIL if _is_email(start, stop) else _NO_KEY


@compiled
def is_end_to_end_id(start: int, stop: int) -> bool:
    """Return whether the bytes are an EndToEndId."""
    if stop - start != 32 or load_byte(start) != 69 or not are_digits(start + 1, start + 21):
        return False
    for place in range(start + 21, stop):
        character = load_byte(place)
        if not (48 <= character <= 57 or 65 <= character <= 90 or 97 <= character <= 122):
            return False
    year, month = number_of(start + 9, start + 13), number_of(start + 13, start + 15)
    day, hour = number_of(start + 15, start + 17), number_of(start + 17, start + 19)
    if month < 1 or month > 12 or hour > 23 or load_byte(start + 19) > 53:
        return False
    is_leap_year = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days = 28 if month == 2 and not is_leap_year else _DAYS_IN_MONTH[month - 1]
    return 1 <= day <= days
