"""Dead letters keep a message byte for byte."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.rejection import Reason, Rejection, Source, decode_dead_letter, encode_dead_letter

FAULT = Rejection("$.amount_centavos", "integer from 1 to 100", "integer 0", Reason.OUT_OF_RANGE)
SOURCE = Source("pix-transactions", 3, 2**40, 1_790_000_000_000)


def test_json_of_a_dead_letter() -> None:
    """Is what the README shows: reason, path, expected, got, source, and both byte strings as base64."""
    letter = encode_dead_letter(FAULT, SOURCE, b"k", b"\xff\x00")
    assert json.loads(letter) == {
        "reason": "out_of_range",
        "path": "$.amount_centavos",
        "expected": "integer from 1 to 100",
        "got": "integer 0",
        "source": {
            "topic": "pix-transactions",
            "partition": 3,
            "offset": 2**40,
            "timestamp": 1_790_000_000_000,
        },
        "kafka_key_base64": "aw==",
        "raw_base64": base64.b64encode(b"\xff\x00").decode(),
    }


@given(st.none() | st.binary(max_size=200), st.none() | st.binary(max_size=2000))
def test_round_trip(key: bytes | None, value: bytes | None) -> None:
    """What goes in comes out, null apart from empty."""
    letter = decode_dead_letter(encode_dead_letter(FAULT, SOURCE, key, value))
    assert (letter.kafka_key_base64, letter.raw_base64, letter.source) == (key, value, SOURCE)
    assert Rejection(letter.path, letter.expected, letter.got, letter.reason) == FAULT


def test_a_megabyte_is_kept_whole() -> None:
    """Noise is not cut."""
    noise = bytes(range(256)) * 4096
    assert decode_dead_letter(encode_dead_letter(FAULT, SOURCE, None, noise)).raw_base64 == noise


def test_what_is_no_dead_letter() -> None:
    """Is an error, not an empty letter."""
    with pytest.raises(msgspec.DecodeError):
        decode_dead_letter(b'{"reason": "because"}')
