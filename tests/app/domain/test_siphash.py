"""The pseudonyms: SipHash-1-3 against two other implementations, and the separation of sorts."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.siphash import (
    HashKey,
    hash_account,
    hash_bytes,
    hash_device,
    hash_ip,
    hash_pix_key,
    hash_tax_id,
)

KEY = HashKey.from_bytes(bytes(range(16)))
WORD = 2**64 - 1


def naive_siphash13(data: bytes, key: HashKey) -> int:
    """Return SipHash-1-3 as its paper tells it, one step after the other."""
    v = [
        key.first ^ 0x736F6D6570736575,
        key.second ^ 0x646F72616E646F6D,
        key.first ^ 0x6C7967656E657261,
        key.second ^ 0x7465646279746573,
    ]

    def rotated(word: int, bits: int) -> int:
        return (word << bits | word >> (64 - bits)) & WORD

    def add_and_mix(a: int, b: int, bits: int) -> None:
        v[a] = (v[a] + v[b]) & WORD
        v[b] = rotated(v[b], bits) ^ v[a]

    def mix() -> None:
        add_and_mix(0, 1, 13)
        v[0] = rotated(v[0], 32)
        add_and_mix(2, 3, 16)
        add_and_mix(0, 3, 21)
        add_and_mix(2, 1, 17)
        v[2] = rotated(v[2], 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    for start in range(0, len(padded), 8):
        word = int.from_bytes(padded[start : start + 8], "little")
        v[3] ^= word
        mix()
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(3):
        mix()
    return (v[0] ^ v[1] ^ v[2] ^ v[3]) or 1


def test_published_vector() -> None:
    """The first of the reference vectors: no bytes under the key 00 01 ... 0f."""
    assert hash_bytes(b"", KEY) == 0xABAC0158050FC4DC


@given(st.binary(max_size=300), st.binary(min_size=16, max_size=16))
def test_equals_the_naive_form(data: bytes, key: bytes) -> None:
    """Any bytes under any key."""
    hash_key = HashKey.from_bytes(key)
    assert hash_bytes(data, hash_key) == naive_siphash13(data, hash_key)


@pytest.mark.skipif(sys.hash_info.algorithm != "siphash13", reason="this Python hashes otherwise")
def test_equals_pythons_own() -> None:
    """CPython hashes bytes by SipHash-1-3, under a key of zeros when its seed is 0."""
    program = "print([hash(bytes(range(n))) for n in range(1, 65)])"
    run = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONHASHSEED": "0"}, capture_output=True, check=True, text=True
    )
    ours = [hash_bytes(bytes(range(n)), HashKey(0, 0)) for n in range(1, 65)]
    assert np.array(ours, np.uint64).view(np.int64).tolist() == [int(x) for x in run.stdout.strip("[]\n").split(",")]


def test_sorts_never_collide_by_their_text() -> None:
    """One text as account, key, tax id, device and address gives five pseudonyms."""
    text = "52998224725"
    hashes = {
        hash_account("12345678", text, KEY),
        hash_pix_key(text, KEY),
        hash_tax_id(text, KEY),
        hash_device(text, KEY),
        hash_ip(text, KEY),
    }
    assert len(hashes) == 5


def test_one_number_at_two_banks_is_two_accounts() -> None:
    """The ISPB is part of an account's identity."""
    assert hash_account("12345678", "1", KEY) != hash_account("00000000", "1", KEY)


def test_key_depends_on_all_its_bytes_and_is_not_shown() -> None:
    """Each byte counts; the representation tells none of them."""
    assert len({hash_bytes(b"x", HashKey.from_bytes(bytes(i) + b"\1" + bytes(15 - i))) for i in range(16)}) == 16
    assert repr(HashKey(123456789, 987654321)) == "HashKey()"


def test_key_of_another_length() -> None:
    """Is refused with both lengths."""
    with pytest.raises(ValueError, match="expected 16 bytes, got 15"):
        HashKey.from_bytes(bytes(15))
