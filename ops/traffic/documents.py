"""Identifiers as Brazil writes them: CPF, CNPJ (alphanumeric ones too), telephone, e-mail and EVP keys.

All of them are invented from counters and random bits. They have right check digits and belong to nobody by design:
the e-mail domains are the reserved ones, and the IP addresses come from the shared space of RFC 6598.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["AREA_CODES", "cnpj", "cpf_numbers", "email", "evp", "ip_address", "phone"]

AREA_CODES = (11, 11, 11, 19, 21, 21, 27, 31, 31, 41, 47, 48, 51, 61, 62, 71, 81, 85, 91, 92)
"""DDD codes of the larger cities; the repeated ones are the more populous."""

_ALPHANUMERIC = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CNPJ_WEIGHTS = (5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)
_MAIL_DOMAINS = ("example.com", "example.org", "example.net")


def cpf_numbers(bases: NDArray[np.int64]) -> NDArray[np.int64]:
    """Append both check digits to nine-digit bases.

    Parameters
    ----------
    bases
        Shape (n,), each below 10**9 and not nine equal digits.

    Returns
    -------
    NDArray[np.int64]
        Shape (n,): eleven-digit CPFs as integers (leading zeros are lost; format with ``011d``).

    Examples
    --------
    >>> cpf_numbers(np.array([529982247]))
    array([52998224725])
    """
    digits = (bases[:, None] // 10 ** np.arange(8, -1, -1, dtype=np.int64)) % 10
    first = _mod11(digits @ np.arange(10, 1, -1, dtype=np.int64))
    second = _mod11(digits @ np.arange(11, 2, -1, dtype=np.int64) + 2 * first)
    return np.asarray(bases * 100 + first * 10 + second, dtype=np.int64)


def _mod11(weighted_sum: NDArray[np.int64]) -> NDArray[np.int64]:
    remainder = weighted_sum % 11
    return np.where(remainder < 2, 0, 11 - remainder)


def cnpj(number: int, *, letters: bool) -> str:
    """Return a CNPJ with right check digits.

    Parameters
    ----------
    number
        At least 0; distinct numbers below 36**8 give distinct CNPJs.
    letters
        Whether the eight-character root is base 36 (issued since July 2026) or decimal (the number is then taken
        modulo 10**8).

    Examples
    --------
    >>> cnpj(0, letters=False)
    '00000000000191'
    """
    if letters:
        root = "".join(_ALPHANUMERIC[number // 36**position % 36] for position in range(7, -1, -1))
    else:
        root = f"{number % 10**8:08d}"
    body = root + "0001"
    total = sum(weight * (ord(character) - 48) for weight, character in zip(_CNPJ_WEIGHTS, body, strict=True))
    first = 0 if total % 11 < 2 else 11 - total % 11
    total = sum(
        weight * (ord(character) - 48) for weight, character in zip((6, *_CNPJ_WEIGHTS), f"{body}{first}", strict=True)
    )
    second = 0 if total % 11 < 2 else 11 - total % 11
    return f"{body}{first}{second}"


def phone(number: int) -> str:
    """Return a Brazilian mobile number in E.164; distinct below 10**8."""
    return f"+55{AREA_CODES[number % len(AREA_CODES)]}9{number % 10**8:08d}"


def email(number: int) -> str:
    """Return a lower-case address under a reserved domain."""
    return f"c{number:08d}@{_MAIL_DOMAINS[number % len(_MAIL_DOMAINS)]}"


def evp(high: int, low: int) -> str:
    """Return the random key (lower-case UUID version 4) of two 64-bit halves."""
    text = f"{high & (2**64 - 1):016x}{low & (2**64 - 1):016x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def ip_address(number: int) -> str:
    """Return an address of 100.64.0.0/10, which no public host owns."""
    number %= 2**22
    return f"100.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
