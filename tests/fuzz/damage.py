"""Mutators that know nothing of JSON: what networks, disks and wrong serialisers do to bytes."""

from __future__ import annotations

import random
from collections.abc import Callable

from .corpus import Corpus
from .tokens import INVALID_UTF8, awkward_token

__all__ = ["DAMAGES", "Damage", "noise", "truncate"]

_MAX_NOISE_BYTES = 1_000_000
_JSON_BYTES = b'"\\{}[],:0123456789eE+-.tfnu \n\x00'

Damage = Callable[[random.Random, bytes, Corpus], bytes]


def flip_bits(chance: random.Random, value: bytes, _corpus: Corpus) -> bytes:
    """Flip one to eight bits anywhere."""
    data = bytearray(value or b"\0")
    for _ in range(chance.choice((1, 1, 2, 8))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def replace_bytes(chance: random.Random, value: bytes, _corpus: Corpus) -> bytes:
    """Insert, delete, overwrite or repeat a few bytes."""
    start = chance.randrange(len(value) + 1)
    stop = min(len(value), start + chance.choice((0, 1, 1, 2, 9, 100)))
    middle = chance.choice(
        (
            b"",
            value[start:stop] * 2,
            bytes([chance.choice(_JSON_BYTES)]),
            bytes([chance.choice(_JSON_BYTES)]) * max(1, stop - start),
            chance.randbytes(chance.randint(1, 4)),
            chance.choice(INVALID_UTF8),
        )
    )
    return value[:start] + middle + value[stop:]


def insert_token(chance: random.Random, value: bytes, _corpus: Corpus) -> bytes:
    """Insert an awkward value behind a byte that often precedes values."""
    start = value.find(chance.choice((b":", b",", b"{", b'"', b"[")), chance.randrange(len(value) + 1)) + 1
    return value[:start] + awkward_token(chance) + chance.choice((b"", b",")) + value[start:]


def splice(chance: random.Random, value: bytes, corpus: Corpus) -> bytes:
    """Join the head of one message and the tail of another."""
    other = chance.choice(corpus.specimens).value
    return value[: chance.randrange(len(value) + 1)] + other[chance.randrange(len(other)) :]


def truncate(chance: random.Random, value: bytes, _corpus: Corpus) -> bytes:
    """Cut the message off at any offset, the last one included."""
    return value[: chance.randrange(max(1, len(value)))]


def noise(chance: random.Random, _value: bytes, _corpus: Corpus) -> bytes:
    """Return bytes of no meaning: mostly few, at times a megabyte; every second time of JSON's own characters."""
    size = min(int(chance.paretovariate(0.6)) - 1, _MAX_NOISE_BYTES)
    if chance.random() < 0.5:
        return chance.randbytes(size)
    alphabet = bytes(chance.choices(_JSON_BYTES, k=min(size, 97)))
    return (alphabet * (size // 97 + 1))[:size]


DAMAGES: dict[str, Damage] = {
    function.__name__: function for function in (flip_bits, replace_bytes, insert_token, splice, truncate, noise)
}
"""Every mutator of bytes, by its name."""
