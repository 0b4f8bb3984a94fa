"""Messages of `pix-labelled`: what is written is read back, and nothing else is read."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from app.domain.labelled import Labelled, LabelledError, decode_labelled, encode_labelled

_VECTOR = np.array([1.5, np.nan, -3.25], "<f4")

_MESSAGE = Labelled(
    end_to_end_id="E12345678202511301200abcdefghijk",
    kind="MATURED",
    label=1,
    basis="MARKER",
    fraud_type="MULE_ACCOUNT",
    situation=None,
    event_time=1,
    decided_at=2,
    known_at=3,
    weight=1.0,
    amount_centavos=12_345,
    channel=2,
    action=1,
    rules_score=0.25,
    online_score=None,
    batch_score=None,
    challenger_score=None,
    score=0.25,
    online_version=0,
    batch_version=0,
    challenger_version=0,
    source_partition=3,
    source_offset=42,
    fingerprint="0123456789abcdef",
    vector=_VECTOR.tobytes(),
)


def test_a_message_comes_back_as_it_was() -> None:
    """Missing features stay missing, and what made it one of its kind is its place."""
    found = decode_labelled(encode_labelled(_MESSAGE))
    assert found == _MESSAGE
    np.testing.assert_array_equal(found.features, _VECTOR)
    assert found.place == (3, 42)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"noise",
        encode_labelled(_MESSAGE)[:-1],
        encode_labelled(msgspec.structs.replace(_MESSAGE, vector=b"123")),
        encode_labelled(msgspec.structs.replace(_MESSAGE, label=2)),  # type: ignore[arg-type]
        encode_labelled(msgspec.structs.replace(_MESSAGE, kind="GUESS")),  # type: ignore[arg-type]
    ],
)
def test_anything_else_is_refused(value: bytes | None) -> None:
    """The error names the topic."""
    with pytest.raises(LabelledError, match="pix-labelled"):
        decode_labelled(value)
