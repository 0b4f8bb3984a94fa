"""The forms of `pix_keys.py` in compiled code, on strings that still stand in their message.

A closing quote follows each string. No form contains a quote, so each loop ends there. The tests hold these functions
against `pix_keys.py`.
"""

from __future__ import annotations

import numpy as np

from app.domain.json_tokens import are_digits, number_of
from app.domain.memory import Buffer, compiled

__all__ = ["KEY_FORMS", "is_end_to_end_id", "is_tax_id", "key_form"]

KEY_FORMS = ("", "CPF", "CNPJ", "PHONE", "EMAIL", "EVP")
_NO_KEY, _CPF, _CNPJ, _PHONE, _EMAIL, _EVP = range(6)

_MINUS, _PLUS, _DOT, _AT = 45, 43, 46, 64
_DAYS_IN_MONTH = np.array([31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_IN_LOCAL_PART = np.zeros(256, np.bool_)
_IN_LOCAL_PART[list(b"abcdefghijklmnopqrstuvwxyz0123456789.!#$&'*+/=?^_`{|}~-")] = True
_MAX_EMAIL, _MAX_LABEL = 77, 63


@compiled
def _is_cpf(text: Buffer, start: int) -> bool:
    """Judge 11 digits; the weights 11..2 of the second check digit are the first one's and one more each."""
    first, second, is_varied = 0, 0, False
    for place in range(9):
        digit = np.int64(text[start + place]) - 48
        first += digit * (10 - place)
        second += digit * (11 - place)
        is_varied |= text[start + place] != text[start + 10]
    first = first * 10 % 11 % 10
    second = (second + first * 2) * 10 % 11 % 10
    is_varied |= text[start + 9] != text[start + 10]
    return is_varied and text[start + 9] == first + 48 and text[start + 10] == second + 48


@compiled
def _is_cnpj(text: Buffer, start: int) -> bool:
    """Judge 14 characters."""
    first, second, any_bits = 0, 0, 0
    for place in range(12):
        character = text[start + place]
        if not (48 <= character <= 57 or 65 <= character <= 90):
            return False
        value = np.int64(character) - 48
        any_bits |= value
        first += value * (2 + (11 - place) % 8)
        second += value * (2 + (12 - place) % 8)
    first %= 11
    first = 0 if first < 2 else 11 - first
    second = (second + first * 2) % 11
    second = 0 if second < 2 else 11 - second
    return any_bits != 0 and text[start + 12] == first + 48 and text[start + 13] == second + 48


@compiled
def is_tax_id(text: Buffer, start: int, stop: int) -> bool:
    """Return whether the bytes are a CPF or a CNPJ."""
    if stop - start == 11:
        return are_digits(text, start, stop) and _is_cpf(text, start)
    return stop - start == 14 and _is_cnpj(text, start)


@compiled
def _is_evp(text: Buffer, start: int, stop: int) -> bool:
    if stop - start != 36:
        return False
    for place in range(36):
        character = text[start + place]
        if place == 8 or place == 13 or place == 18 or place == 23:
            if character != _MINUS:
                return False
        elif not (48 <= character <= 57 or 97 <= character <= 102):
            return False
    return True


@compiled
def _is_email(text: Buffer, start: int, stop: int) -> bool:
    at = start
    while _IN_LOCAL_PART[text[at]]:
        at += 1
    if at == start or text[at] != _AT or stop - start > _MAX_EMAIL:
        return False
    label = at + 1
    for place in range(label, stop + 1):
        character = text[place]
        if place == stop or character == _DOT:
            if place == label or place - label > _MAX_LABEL or text[label] == _MINUS or text[place - 1] == _MINUS:
                return False
            label = place + 1
        elif not (97 <= character <= 122 or 48 <= character <= 57 or character == _MINUS):
            return False
    return True


@compiled
def key_form(text: Buffer, start: int, stop: int) -> int:
    """Return the place in `KEY_FORMS` of the one form that a key has; 0 for none."""
    size = stop - start
    if text[start] == _PLUS and 4 <= size <= 17 and are_digits(text, start + 1, stop) and text[start + 1] != 48:
        return _PHONE
    if is_tax_id(text, start, stop):
        return _CPF if size == 11 else _CNPJ
    if _is_evp(text, start, stop):
        return _EVP
    return _EMAIL if _is_email(text, start, stop) else _NO_KEY


@compiled
def is_end_to_end_id(text: Buffer, start: int, stop: int) -> bool:
    """Return whether the bytes are an EndToEndId."""
    if stop - start != 32 or text[start] != 69 or not are_digits(text, start + 1, start + 21):
        return False
    for place in range(start + 21, stop):
        character = text[place]
        if not (48 <= character <= 57 or 65 <= character <= 90 or 97 <= character <= 122):
            return False
    year, month = number_of(text, start + 9, start + 13), number_of(text, start + 13, start + 15)
    day, hour = number_of(text, start + 15, start + 17), number_of(text, start + 17, start + 19)
    if month < 1 or month > 12 or hour > 23 or text[start + 19] > 53:
        return False
    is_leap_year = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days = 28 if month == 2 and not is_leap_year else _DAYS_IN_MONTH[month - 1]
    return 1 <= day <= days
