"""The binary rows between the stages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.domain.fields import TRANSACTION_DTYPE
from app.domain.frames import CREDIT_DTYPE, MARK_DTYPE, FrameError, debit_dtype, decode_frame, encode_frame

FINGERPRINT = "0123456789abcdef"
FEATURES = 3


def _noise(dtype: np.dtype[np.void], count: int, seed: int) -> NDArray[np.void]:
    """Rows of arbitrary bytes: what is packed must come back bit by bit, NaN and all."""
    return np.frombuffer(np.random.default_rng(seed).bytes(count * dtype.itemsize), dtype)


def _frame(debits: int = 2, notices: int = 1, marks: int = 1, fingerprint: str = FINGERPRINT) -> bytes:
    rows = (_noise(debit_dtype(FEATURES), debits, 1), _noise(CREDIT_DTYPE, notices, 2), _noise(MARK_DTYPE, marks, 3))
    return encode_frame(fingerprint, *rows)


@settings(max_examples=100, deadline=None)
@given(
    debits=st.integers(0, 5),
    notices=st.integers(0, 5),
    marks=st.integers(0, 5),
    features=st.integers(0, 70),
    fingerprint=st.text("0123456789abcdef", min_size=1, max_size=16),
    seed=st.integers(0, 2**32),
)
def test_what_goes_in_comes_out(
    debits: int, notices: int, marks: int, features: int, fingerprint: str, seed: int
) -> None:
    """Bit by bit, for any rows, none included."""
    debit_rows = _noise(debit_dtype(features), debits, seed)
    credit_rows = _noise(CREDIT_DTYPE, notices, seed + 1)
    mark_rows = _noise(MARK_DTYPE, marks, seed + 2)
    frame = decode_frame(encode_frame(fingerprint, debit_rows, credit_rows, mark_rows), fingerprint, features)
    assert frame.debits.dtype == debit_rows.dtype
    assert frame.debits.tobytes() == debit_rows.tobytes()
    assert frame.credits.tobytes() == credit_rows.tobytes()
    assert frame.marks.tobytes() == mark_rows.tobytes()


def test_named_columns_survive() -> None:
    """A transaction with its receiver's features, read back by name."""
    debits = np.zeros(1, debit_dtype(FEATURES))
    debits["transaction"]["end_to_end_id"] = b"E12345678202601011200abcdefghijk"
    debits["transaction"]["payer_account"] = 2**64 - 1
    debits["received_at"], debits["retry"], debits["receiver"] = 1_767_225_600_000, True, [1.5, np.nan, -0.0]
    row = decode_frame(encode_frame(FINGERPRINT, debits, np.zeros(0, CREDIT_DTYPE)), FINGERPRINT, FEATURES).debits[0]
    assert row["transaction"]["end_to_end_id"] == b"E12345678202601011200abcdefghijk"
    assert row["transaction"]["payer_account"] == 2**64 - 1
    assert (row["received_at"], row["retry"]) == (1_767_225_600_000, True)
    assert str(row["receiver"].tolist()) == "[1.5, nan, -0.0]"
    assert row["transaction"].dtype == TRANSACTION_DTYPE


def test_rows_are_not_copied() -> None:
    """Decoding costs the same for one row and for thousands; nobody may write into Kafka's bytes."""
    value = _frame()
    frame = decode_frame(value, FINGERPRINT, FEATURES)
    assert not frame.debits.flags.owndata
    assert not frame.debits.flags.writeable


def test_every_cut_is_an_error() -> None:
    """So is a byte too many: a cut frame would lose transactions."""
    value = _frame()
    for length in range(len(value)):
        with pytest.raises(FrameError, match="pix-enriched: expected"):
            decode_frame(value[:length], FINGERPRINT, FEATURES)
    with pytest.raises(FrameError, match=f"expected a frame of {len(value)} bytes, got {len(value) + 1}"):
        decode_frame(value + b"\0", FINGERPRINT, FEATURES)


@pytest.mark.parametrize("value", [b"", b"{}", b"PXGF" + bytes(100), b"pxf2" + bytes(100)])
def test_what_is_no_frame_is_an_error(value: bytes) -> None:
    """The error shows what was there instead."""
    with pytest.raises(FrameError, match="expected a frame that starts with"):
        decode_frame(value, FINGERPRINT, FEATURES)


def test_a_foreign_fingerprint_is_an_error() -> None:
    """Features of another catalog mean something else; the message says how to upgrade."""
    with pytest.raises(FrameError, match=r"expected catalog 0123456789abcdef, got fedcba.*Let workers of that version"):
        decode_frame(_frame(fingerprint="fedcba"), FINGERPRINT, FEATURES)


def test_another_number_of_features_is_an_error() -> None:
    """Even where the fingerprint agrees."""
    with pytest.raises(FrameError, match="bytes, got"):
        decode_frame(_frame(), FINGERPRINT, FEATURES + 1)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 31), st.integers(0, 255))
def test_a_damaged_header_is_an_error(place: int, byte: int) -> None:
    """No damage ends in an error of another kind, or in other rows."""
    value = bytearray(_frame())
    value[place] = byte
    try:
        frame = decode_frame(bytes(value), FINGERPRINT, FEATURES)
    except FrameError:
        return
    assert (len(frame.debits), len(frame.credits), len(frame.marks)) == (2, 1, 1)
    assert bytes(value) == _frame()
