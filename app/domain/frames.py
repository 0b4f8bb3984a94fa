"""The binary rows that stage 1 hands to stage 2, many transactions in one Kafka message.

A frame holds what one step of a worker has for one `pix-enriched` partition, of as many `pix-transactions` partitions
as the step took in: debits (the transaction as columns, with its receiver's features), credit notices (money in, for
the receiver's account) and marks (a payment of the payer's was confirmed as fraud, or is no more). JSON here would cost
more than everything that stage 2 does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from app.domain.fields import TRANSACTION_DTYPE

__all__ = ["CREDIT_DTYPE", "MARK_DTYPE", "Frame", "FrameError", "debit_dtype", "decode_frame", "encode_frame"]

MAGIC = b"PXF3"

CREDIT_DTYPE = np.dtype(
    [
        ("receiver_account", "u8"),
        ("payer_account", "u8"),
        ("device_id", "u8"),
        ("timestamp", "i8"),
        ("amount_centavos", "i8"),
        ("source_offset", "i8"),
        ("source_partition", "i4"),
        ("flags", "u2"),  # of the event, as `tables.events` derives them
    ]
)
"""A credit notice: what the receiver's account must learn to see money that comes in and goes out again."""

MARK_DTYPE = np.dtype(
    [
        ("id", "S16"),  # of the report and its state: the same change comes once
        ("key", "u8"),  # of whom it marks, as in the transactions
        ("timestamp", "i8"),  # when it became known, epoch ms
        ("fraud_type", "i4"),  # position in `tables.layout.FRAUD_TYPES`
        ("delta", "i4"),  # 1: registered, -1: cancelled
    ]
)
"""A mark: one change of the payer's confirmed frauds. It comes this way so that `pix-enriched` alone decides all."""

_HEADER_DTYPE = np.dtype(
    [
        ("magic", "S4"),
        ("fingerprint", "S16"),
        ("debits", "u4"),
        ("credits", "u4"),
        ("marks", "u4"),
    ]
)


_NO_MARKS = np.zeros(0, MARK_DTYPE)


class FrameError(ValueError):
    """A frame that this version cannot read; the worker must stop, since skipping it would lose transactions."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame.

    Parameters
    ----------
    debits
        Rows of `debit_dtype(n)`, ascending by `source_partition`, then by `source_offset`.
    credits
        Rows of `CREDIT_DTYPE`, likewise.
    marks
        Rows of `MARK_DTYPE`, in the order in which they became known; they precede the frame's payments.
    """

    debits: NDArray[np.void]
    credits: NDArray[np.void]
    marks: NDArray[np.void]


@cache
def debit_dtype(receiver_features: int) -> np.dtype[np.void]:
    """Columns of a debit: the transaction and what stage 1 knows of it.

    `received_at` is when Kafka received it (epoch ms), `retry` whether its id was known already, `receiver` its
    receiver's features (float32).
    """
    return np.dtype(
        [
            ("transaction", TRANSACTION_DTYPE),
            ("received_at", "i8"),
            ("retry", "?"),
            ("receiver", "f4", (receiver_features,)),
        ]
    )


def encode_frame(
    fingerprint: str, debits: NDArray[np.void], credit: NDArray[np.void], marks: NDArray[np.void] = _NO_MARKS
) -> bytes:
    """Pack one frame; `fingerprint` names the catalog that gave the features their meaning."""
    header = np.zeros(1, _HEADER_DTYPE)
    header[0] = (MAGIC, fingerprint.encode(), len(debits), len(credit), len(marks))
    return b"".join((header.tobytes(), debits.tobytes(), credit.tobytes(), marks.tobytes()))


def decode_frame(value: bytes, fingerprint: str, receiver_features: int) -> Frame:
    """Read one frame without copying its rows.

    Raises
    ------
    FrameError
        When it is no frame, is cut, or was written under another catalog.
    """
    size = _HEADER_DTYPE.itemsize
    if len(value) < size or value[:4] != MAGIC:
        raise FrameError(f"pix-enriched: expected a frame that starts with {MAGIC!r}, got {value[:4]!r}")
    header = np.frombuffer(value, _HEADER_DTYPE, 1)[0]
    found = bytes(header["fingerprint"]).decode(errors="replace")
    if found != fingerprint:
        raise FrameError(
            f"pix-enriched: expected catalog {fingerprint}, got {found}: another version of pixguard wrote this frame. "
            "Let workers of that version drain the topic before this one starts."
        )
    dtype = debit_dtype(receiver_features)
    debits, credit, marks = int(header["debits"]), int(header["credits"]), int(header["marks"])
    credits_at = size + debits * dtype.itemsize
    marks_at = credits_at + credit * CREDIT_DTYPE.itemsize
    expected = marks_at + marks * MARK_DTYPE.itemsize
    if len(value) != expected:
        raise FrameError(f"pix-enriched: expected a frame of {expected} bytes, got {len(value)}")
    return Frame(
        np.frombuffer(value, dtype, debits, size),
        np.frombuffer(value, CREDIT_DTYPE, credit, credits_at),
        np.frombuffer(value, MARK_DTYPE, marks, marks_at),
    )
