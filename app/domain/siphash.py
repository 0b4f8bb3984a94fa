"""Keyed SipHash-1-3: the pseudonyms under which accounts, keys and devices go through the system.

A 64-bit pseudonym is the index into the state tables, and it tells nothing without the bank's key. Zero stands for a
missing value, so no value hashes to it. The compiled functions live here and not in the scanner because they are
finished: Numba's cache of a caller does not notice a change in another file, and SipHash does not change.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from app.domain.memory import PADDING, compiled, load_word

__all__ = [
    "HashKey",
    "hash_account",
    "hash_bytes",
    "hash_device",
    "hash_ip",
    "hash_pix_key",
    "hash_tax_id",
    "siphash13",
]


@dataclass(frozen=True, slots=True)
class HashKey:
    """The 128-bit key of all pseudonyms. Changing it makes every stored state unreachable.

    Parameters
    ----------
    first, second
        Its two little-endian words; never shown.
    """

    first: int = field(repr=False)
    second: int = field(repr=False)

    @classmethod
    def from_bytes(cls, key: bytes) -> HashKey:
        """Return the key of these 16 bytes.

        Raises
        ------
        ValueError
            Where there are not 16.
        """
        if len(key) != 16:
            raise ValueError(f"hash key: expected 16 bytes, got {len(key)}")
        return cls(int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little"))


@compiled
def _rotate(word: np.uint64, bits: int) -> np.uint64:
    return (word << np.uint64(bits)) | (word >> np.uint64(64 - bits))


@compiled
def _round(
    v0: np.uint64, v1: np.uint64, v2: np.uint64, v3: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    v0 += v1
    v1 = _rotate(v1, 13) ^ v0
    v0 = _rotate(v0, 32)
    v2 += v3
    v3 = _rotate(v3, 16) ^ v2
    v0 += v3
    v3 = _rotate(v3, 21) ^ v0
    v2 += v1
    v1 = _rotate(v1, 17) ^ v2
    return v0, v1, _rotate(v2, 32), v3


@compiled
def siphash13(start: int, length: int, first: np.uint64, second: np.uint64) -> np.uint64:
    """Return SipHash-1-3 of the bytes at an address; 0, which stands for missing, becomes 1.

    `PADDING` must follow the last of them.
    """
    v0 = first ^ np.uint64(0x736F6D6570736575)
    v1 = second ^ np.uint64(0x646F72616E646F6D)
    v2 = first ^ np.uint64(0x6C7967656E657261)
    v3 = second ^ np.uint64(0x7465646279746573)
    end = start + (length & ~7)
    for place in range(start, end, 8):
        word = load_word(place)
        v3 ^= word
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0 ^= word
    rest = np.uint64(length & 7)
    word = load_word(end) & ((np.uint64(1) << (rest << np.uint64(3))) - np.uint64(1))
    word |= np.uint64(length & 255) << np.uint64(56)
    v3 ^= word
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0 ^= word
    v2 ^= np.uint64(255)
    for _ in range(3):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    value = v0 ^ v1 ^ v2 ^ v3
    return value if value != np.uint64(0) else np.uint64(1)


def hash_bytes(data: bytes, key: HashKey) -> int:
    """Return the 64-bit pseudonym of bytes, never 0."""
    buffer = np.frombuffer(data + PADDING, np.uint8)
    return int(siphash13(buffer.ctypes.data, len(data), np.uint64(key.first), np.uint64(key.second)))


def hash_account(ispb: str, account: str, key: HashKey) -> int:
    """Return the pseudonym of an account: column `payer_account` or `receiver_account`.

    The bank is part of it: two banks may use one number.
    """
    return hash_bytes(f"{ispb}/{account}".encode(), key)


def hash_pix_key(pix_key: str, key: HashKey) -> int:
    """Return the pseudonym of a Pix key: column `pix_key`, and `receiver` where the payment has one."""
    return hash_bytes(f"key/{pix_key}".encode(), key)


def hash_tax_id(tax_id: str, key: HashKey) -> int:
    """Return the pseudonym of a CPF or CNPJ: column `payer_tax_id` or `receiver_tax_id`."""
    return hash_bytes(f"tax/{tax_id}".encode(), key)


def hash_device(device_id: str, key: HashKey) -> int:
    """Return the pseudonym of a device: column `device_id`."""
    return hash_bytes(f"dev/{device_id}".encode(), key)


def hash_ip(ip: str, key: HashKey) -> int:
    """Return the pseudonym of an IP address: column `ip`."""
    return hash_bytes(f"ip/{ip}".encode(), key)
