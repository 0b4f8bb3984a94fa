"""The forms of Pix keys and of the identifiers beside them, with their check digits.

Every function takes the text as it stands in the message: no trimming, no change of case, no punctuation removed. DICT
holds keys in one canonical form, and a key in another form would be a different Kafka key and so a different receiver.
"""

from __future__ import annotations

import re
from operator import mul

__all__ = ["deduce_key_type", "is_cnpj", "is_cpf", "is_email", "is_end_to_end_id", "is_evp", "is_phone", "is_tax_id"]

_CPF = re.compile(r"[0-9]{11}")
_CNPJ = re.compile(r"[0-9A-Z]{12}[0-9]{2}")
_PHONE = re.compile(r"\+[1-9][0-9][0-9]{1,14}")
_EMAIL = re.compile(
    r"[a-z0-9.!#$&'*+/=?^_`{|}~-]+"
    r"@[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
)
_EVP = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_END_TO_END_ID = re.compile(r"E[0-9]{8}([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})[A-Za-z0-9]{11}")

_CNPJ_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6)
"""From the last character on; the first check digit needs one less."""

_MAX_EMAIL_CHARACTERS = 77
_DAYS_IN_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def is_cpf(text: str) -> bool:
    """Return whether the text is a CPF: 11 digits, not all equal, both check digits right.

    Examples
    --------
    >>> is_cpf("52998224725"), is_cpf("52998224724"), is_cpf("11111111111")
    (True, False, False)
    """
    if _CPF.fullmatch(text) is None or text == text[0] * 11:
        return False
    digits = [ord(character) - 48 for character in text]
    return digits[9] == _cpf_digit(digits[:9]) and digits[10] == _cpf_digit(digits[:10])


def _cpf_digit(digits: list[int]) -> int:
    weighted: int = sum(map(mul, digits, range(len(digits) + 1, 1, -1)))
    return weighted * 10 % 11 % 10


def is_cnpj(text: str) -> bool:
    """Return whether the text is a CNPJ: 12 digits or capital letters (these since July 2026) and two check digits.

    Examples
    --------
    >>> is_cnpj("00000000000191"), is_cnpj("12ABC34501DE35"), is_cnpj("12ABC34501DE36")
    (True, True, False)
    """
    if _CNPJ.fullmatch(text) is None or text == "0" * 14:
        return False
    values = [ord(character) - 48 for character in text]
    return values[12] == _cnpj_digit(values[:12]) and values[13] == _cnpj_digit(values[:13])


def _cnpj_digit(values: list[int]) -> int:
    remainder: int = sum(map(mul, reversed(values), _CNPJ_WEIGHTS)) % 11
    return 0 if remainder < 2 else 11 - remainder


def is_tax_id(text: str) -> bool:
    """Return whether the text is a CPF or a CNPJ."""
    return is_cpf(text) or is_cnpj(text)


def is_phone(text: str) -> bool:
    """Return whether the text is a phone number as DICT keeps it: `+`, country, number.

    Examples
    --------
    >>> is_phone("+5511987654321"), is_phone("5511987654321")
    (True, False)
    """
    return _PHONE.fullmatch(text) is not None


def is_email(text: str) -> bool:
    """Return whether the text is an e-mail key: lower case, at most 77 characters.

    Examples
    --------
    >>> is_email("pix@bcb.gov.br"), is_email("Pix@bcb.gov.br")
    (True, False)
    """
    return len(text) <= _MAX_EMAIL_CHARACTERS and _EMAIL.fullmatch(text) is not None


def is_evp(text: str) -> bool:
    """Return whether the text is a random key: a UUID in lower case.

    Examples
    --------
    >>> is_evp("123e4567-e89b-12d3-a456-426655440000")
    True
    """
    return _EVP.fullmatch(text) is not None


def deduce_key_type(key: str) -> str | None:
    """Return the one type whose form the key has, check digits included, or None. The forms exclude each other.

    Examples
    --------
    >>> deduce_key_type("52998224725"), deduce_key_type("+5511987654321"), deduce_key_type("11987654321")
    ('CPF', 'PHONE', None)
    """
    if "@" in key:
        return "EMAIL" if is_email(key) else None
    if key.startswith("+"):
        return "PHONE" if is_phone(key) else None
    if len(key) == 11:
        return "CPF" if is_cpf(key) else None
    if len(key) == 14:
        return "CNPJ" if is_cnpj(key) else None
    return "EVP" if is_evp(key) else None


def is_end_to_end_id(text: str) -> bool:
    """Return whether the text is an EndToEndId: `E`, 8 digits, an existing minute `yyyyMMddHHmm`, 11 letters or digits.

    The minute is UTC and that of the key's look-up; it is not compared with the time of acceptance, which may be hours
    away.

    Examples
    --------
    >>> is_end_to_end_id("E12345678202611240756abcDEF12345")
    True
    """
    match = _END_TO_END_ID.fullmatch(text)
    if match is None:
        return False
    year, month, day, hour, minute = (int(part) for part in match.groups())
    if not 1 <= month <= 12 or hour > 23 or minute > 59:
        return False
    is_leap_year = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days = 28 if month == 2 and not is_leap_year else _DAYS_IN_MONTH[month - 1]
    return 1 <= day <= days
