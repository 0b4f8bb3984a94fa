"""Decided rows as messages."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.byte_column import ByteColumn
from app.domain.decision import ACTIONS
from models.rules.file import default_pack_text, load_rule_pack
from models.stages.judging import DECIDED_DTYPE
from models.wording import writer as writer_module
from models.wording.writer import DecisionWriter
from tables.catalog import CATALOG

_PACK = load_rule_pack(default_pack_text(), CATALOG.column_types(), "default")
_HOSTILE = dataclasses.replace(
    _PACK,
    version='100 % "sure" "score":0.123456789 "partition":-900000001',
    rules=_PACK.rules[:3],
    fingerprint="hostile",
)
_PACKS = {pack.fingerprint.encode(): pack for pack in (_PACK, _HOSTILE)}


_EDGES = [sign * (10**digits - less) for digits in range(19) for less in (0, 1) for sign in (1, -1)]
"""Where a number gets a digit more."""


def _integers(bits: int) -> st.SearchStrategy[int]:
    least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    edges = [number for number in (*_EDGES, least, most) if least <= number <= most]
    return st.sampled_from(edges) | st.integers(least, most)


_SCORES = st.sampled_from([0.0, 1.0, 0.5, 1e-6, 0.123457, 0.999999]) | st.floats(0, 1) | st.floats()


@st.composite
def _rows(draw: st.DrawFn) -> np.ndarray:
    count = draw(st.integers(0, 8))
    rows = np.zeros(count, DECIDED_DTYPE)
    for row in rows:
        row["id"] = b"E123456782026010112" + draw(st.text("09azAZ", min_size=13, max_size=13)).encode()
        row["timestamp"] = draw(_integers(64))
        row["event_time"] = draw(_integers(64))
        row["score"] = draw(_SCORES)
        row["source_partition"] = draw(_integers(32))
        row["source_offset"] = draw(_integers(64))
        row["lists"] = draw(st.integers(0, 2**62))
        row["action"] = draw(st.integers(0, len(ACTIONS) - 1))
        row["scored"] = draw(st.booleans())
        row["pack"] = draw(st.sampled_from(sorted(_PACKS)))
        fired = draw(st.sets(st.integers(0, len(_PACKS[row["pack"]].rules) - 1), max_size=4))
        mask = np.zeros(8 * row["fired"].size, np.bool_)
        mask[list(fired)] = True
        row["fired"] = np.packbits(mask)
    return rows


def _writer() -> DecisionWriter:
    return DecisionWriter(_PACKS.__getitem__, "0123456789abcdef")


def _expected(rows: np.ndarray) -> list[bytes]:
    return [msgspec.json.encode(decision) for decision in _writer().decisions(rows)]


def _of_kinds(numbers: np.ndarray) -> np.ndarray:
    """Rows whose messages have one form only where they have one number."""
    rows = np.zeros(len(numbers), DECIDED_DTYPE)
    rows["id"] = [b"E%031d" % place for place in range(len(rows))]
    rows["pack"] = _PACK.fingerprint.encode()
    rows["lists"] = numbers
    rows["score"] = np.arange(len(rows)) / 7
    rows["source_offset"] = np.arange(len(rows)) ** 3
    return rows


@settings(deadline=None)  # the first example may compile
@given(_rows())
def test_a_message_is_the_json_of_its_decision(rows: np.ndarray) -> None:
    """Forms that are encoded once and filled in give what encoding each decision gives, whatever a pack is called."""
    writer = _writer()
    expected = _expected(rows)
    assert writer.encode(rows) == expected
    assert writer.encode(rows) == expected
    assert writer.encode(rows[::2]) == expected[::2]


@settings(deadline=None)  # the first example may compile
@given(st.lists(st.text("09azAZ", max_size=32), max_size=4))
def test_an_id_may_be_short(ids: list[str]) -> None:
    """A row holds 32 bytes: the zeros behind a shorter id are none of its message."""
    rows = _of_kinds(np.zeros(len(ids), np.int64))
    rows["id"] = [one.encode() for one in ids]
    assert _writer().encode(rows) == _expected(rows)


def test_no_rows_no_messages() -> None:
    """A step may bring no payment."""
    messages = _writer().encode(np.zeros(0, DECIDED_DTYPE))
    assert isinstance(messages, ByteColumn)
    assert list(messages) == []


def test_many_kinds_in_one_call() -> None:
    """Kinds are told apart however many there are, and in whatever order they come."""
    numbers = np.random.default_rng(1).integers(0, 700, 2000)
    rows = _of_kinds(numbers)
    assert _writer().encode(rows) == _expected(rows)


def test_forgotten_forms_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more forms are kept than the bound says, even where one call needs more."""
    monkeypatch.setattr(writer_module, "_MAX_FORMS", 3)
    writer = _writer()
    for numbers in (np.arange(10), np.arange(10)[::-1] % 4, np.arange(5)):
        rows = _of_kinds(numbers)
        assert writer.encode(rows) == _expected(rows)
        assert len(writer._forms) <= 3


def test_messages_lie_in_one_buffer() -> None:
    """They go to the socket from where they are: one behind the other."""
    messages = ByteColumn.of(_writer().encode(_of_kinds(np.arange(50) % 3)))
    ends = messages.starts + messages.lengths
    assert messages.starts[0] == 0
    assert np.array_equal(messages.starts[1:], ends[:-1])
    assert ends[-1] <= len(messages.buffer)
