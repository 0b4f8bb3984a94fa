"""Messages of `pix-features`: what is written comes back, and nothing else is read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.domain.vectors import VECTOR_ROW_DTYPE, FeatureVectorError, decode_vectors, encode_vectors

FINGERPRINT = "0123456789abcdef"


def random_rows(count: int, seed: int) -> NDArray[np.void]:
    """Rows of any bits, but for flags, of which a byte is 0 or 1."""
    rows = np.frombuffer(np.random.default_rng(seed).bytes(count * VECTOR_ROW_DTYPE.itemsize), VECTOR_ROW_DTYPE).copy()
    rows["scored"] = rows["channel"] % 2
    return rows


@settings(max_examples=100)
@given(st.integers(1, 4), st.integers(1, 80), st.integers(0, 2**32), st.text("0123456789abcdef", max_size=16))
def test_vectors_come_back(count: int, width: int, seed: int, fingerprint: str) -> None:
    """Bit by bit, with what is told of their payments and the fingerprint of their catalog, one message a row."""
    matrix = np.frombuffer(np.random.default_rng(seed).bytes(count * width * 4), np.float32).reshape(count, width)
    rows = random_rows(count, seed)
    messages = encode_vectors(rows, matrix, fingerprint)
    assert len(messages) == count
    found = decode_vectors(list(messages))
    assert found.fingerprint == fingerprint
    assert found.matrix.tobytes() == matrix.tobytes()
    assert found.rows.tobytes() == rows.tobytes()


def test_no_messages_are_no_vectors() -> None:
    """A batch may be empty on both ways."""
    assert len(encode_vectors(random_rows(0, 1), np.empty((0, 3), np.float32), FINGERPRINT)) == 0
    assert len(decode_vectors([]).rows) == 0


def test_a_slice_of_a_matrix_is_packed_as_it_reads() -> None:
    """Strides and byte order of the array do not reach the message."""
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    rows = random_rows(3, 7)
    assert encode_vectors(rows[::2], matrix[::2, 1:3], FINGERPRINT) == encode_vectors(
        rows[[0, 2]], np.array([[1, 2], [9, 10]], np.float32), FINGERPRINT
    )
    assert encode_vectors(rows, matrix.astype(">f4"), FINGERPRINT) == encode_vectors(rows, matrix, FINGERPRINT)


def test_every_cut_of_a_vector_is_an_error() -> None:
    """So is a byte too many, in the first message and in a later one."""
    (message,) = encode_vectors(random_rows(1, 1), np.ones((1, 3), np.float32), FINGERPRINT)
    for wrong in (*(message[:length] for length in range(len(message))), message + b"\0"):
        for messages in ([wrong], [message, wrong]):
            with pytest.raises(FeatureVectorError, match="pix-features: expected"):
                decode_vectors(messages)


@pytest.mark.parametrize("value", [None, b"", b"{}" * 200, b"PXF2" + bytes(300), b"PXGV" + bytes(300)])
def test_what_is_no_vector_is_an_error(value: bytes | None) -> None:
    """A frame of stage 1 is none either, nor a vector of an earlier version."""
    with pytest.raises(FeatureVectorError, match="expected a vector that starts with"):
        decode_vectors([value])


def test_vectors_of_two_catalogs_are_not_mixed() -> None:
    """Their columns do not mean the same."""
    rows, matrix = random_rows(1, 1), np.ones((1, 3), np.float32)
    (first,), (second,) = (encode_vectors(rows, matrix, fingerprint) for fingerprint in (FINGERPRINT, "f" * 16))
    with pytest.raises(FeatureVectorError, match="expected fingerprint"):
        decode_vectors([first, second])
