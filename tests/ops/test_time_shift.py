"""Moved payments keep their meaning: ages, retries and faults stay, and ids are new and valid."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.pix_keys import is_end_to_end_id
from ops.files import Chunk
from ops.time_shift import moved_id, shift_chunks

NOON_MS = 1_790_078_400_000  # 2026-09-22 12:00 UTC
ID = "E12345678202609221158abcDEF12345"
DAY_MS = 86_400_000


def moved(*messages: bytes, shift_ms: int = DAY_MS) -> Chunk:
    """Move messages whose id and time are read as `ops.files` reads them."""
    heads = []
    for message in messages:
        try:
            heads.append(json.loads(message))
        except ValueError:
            heads.append({})
    ids = [head.get("end_to_end_id") for head in heads]
    times = [head.get("timestamp") for head in heads]
    chunk = Chunk([*range(len(messages))], [None] * len(messages), [*messages], ids, times, {})
    (found,) = shift_chunks(iter([chunk]), shift_ms)
    return found


def message(identifier: str = ID, time_ms: int = NOON_MS, more: str = "") -> bytes:
    """Return a message of which the shift sees the essentials."""
    return f'{{"end_to_end_id": "{identifier}", "timestamp":{time_ms}{more}}}'.encode()


@given(
    st.integers(1_577_836_800_000, 4_102_444_800_000),
    st.integers(1_577_836_800_000, 4_102_444_800_000),
    st.datetimes(),
)
def test_a_moved_id_is_valid(before_ms: int, after_ms: int, minute: datetime) -> None:
    """From any valid id, between any two times that a payment may have."""
    old = f"E00000000{minute.year:04d}{minute:%m%d%H%M}abcDEF12345"
    new = moved_id(old, before_ms, after_ms - before_ms)
    assert is_end_to_end_id(new)
    assert new[:9] == old[:9]


def test_an_id_follows_from_the_old_one_and_the_shift() -> None:
    """The same payment moved alike has one id; another payment, or another shift, another one."""
    assert moved_id(ID, NOON_MS, 7) == moved_id(ID, NOON_MS, 7)
    others = {moved_id(ID, NOON_MS, 8), moved_id(ID[:-1] + "6", NOON_MS, 7), moved_id(ID.swapcase(), NOON_MS, 7)}
    assert len(others | {moved_id(ID, NOON_MS, 7), ID}) == 5


@pytest.mark.parametrize(
    ("minute", "moved_minute"),
    [("202609221158", "202609231158"), ("202609221200", "202609231200"), ("202401010000", "202609231200")],
)
def test_the_minute_moves_with_the_payment(minute: str, moved_minute: str) -> None:
    """A look-up stays as long before its payment; what was no look-up's time becomes the payment's own minute."""
    assert moved_id(f"E12345678{minute}abcDEF12345", NOON_MS, DAY_MS)[9:21] == moved_minute


def test_times_and_id_move_and_the_rest_stays() -> None:
    """Byte by byte, unknown fields and other mentions of the id included; DICT's "no data" is no time."""
    more = f', "remittance_text":"{ID}", "dict_watermark":0, "payer_account_opened_at": {NOON_MS - 5}'
    chunk = moved(message(more=more))
    new = moved_id(ID, NOON_MS, DAY_MS)
    expected = message(new, NOON_MS + DAY_MS, more.replace(str(NOON_MS - 5), str(NOON_MS - 5 + DAY_MS)))
    assert chunk.values == [expected]
    assert chunk.ids == [new]


def test_retries_stay_retries() -> None:
    """Equal bytes stay equal."""
    chunk = moved(message(), message(), message(ID[:-1] + "6"))
    assert chunk.values[0] == chunk.values[1]
    assert len({*chunk.ids}) == 2


@pytest.mark.parametrize(
    "bad",
    [
        message("E1"),
        message(time_ms=10**17),
        b'{"end_to_end_id": "' + ID.encode() + b'"}',
        message("\\u0045" + ID[1:]),
        b"{",
    ],
)
def test_what_will_be_rejected_keeps_its_id(bad: bytes) -> None:
    """And so does an id that is written with escapes: what is sent and what is waited for agree."""
    chunk = moved(bad)
    assert chunk.ids == [json.loads(bad).get("end_to_end_id") if bad != b"{" else None]
