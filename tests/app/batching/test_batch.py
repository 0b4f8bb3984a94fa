"""Batches: their parts follow each other without a gap, whatever holes the offsets have."""

import pytest
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from app.batching import Batch

SOURCE = TP("source", 3)


def batch_at(base: int, offsets: list[int], next_offset: int) -> Batch:
    """Build a batch whose values name their offsets."""
    names: list[bytes | None] = [str(offset).encode() for offset in offsets]
    return Batch(
        SOURCE, base, next_offset, names, list(names), offsets, [1_000 + each for each in offsets], generation=1
    )


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Draw a batch with holes at its start, inside and at its end."""
    base = draw(st.integers(0, 50))
    offsets = sorted(draw(st.sets(st.integers(base, base + 40), max_size=30)))
    end = max([base, *(offset + 1 for offset in offsets)])
    return batch_at(base, offsets, end + draw(st.integers(1 if end == base else 0, 5)))


@given(batch=batches(), max_records=st.integers(1, 10), max_bytes=st.integers(1, 40))
def test_pieces_cover_the_batch_in_order_without_gap_or_overlap(batch: Batch, max_records: int, max_bytes: int) -> None:
    """Each piece starts where the previous ended, none is too long, and together they are the batch."""
    pieces = list(batch.pieces(max_records, max_bytes))
    assert sum(piece.nbytes for piece in pieces) == batch.nbytes == sum(len(value or b"") for value in batch.values)
    longest = max((len(value or b"") for value in batch.values), default=0)
    assert all(len(piece) == 1 or len(piece) * batch.nbytes <= max_bytes * len(batch) for piece in pieces)
    assert all(piece.nbytes <= max(longest, max_bytes * longest) for piece in pieces)
    assert [piece.base for piece in pieces] == [batch.base, *(piece.next_offset for piece in pieces[:-1])]
    assert pieces[-1].next_offset == batch.next_offset
    assert all(len(piece) <= max_records for piece in pieces)
    assert [offset for piece in pieces for offset in piece.offsets] == list(batch.offsets)
    assert [value for piece in pieces for value in piece.values] == batch.values
    assert all(piece.base <= offset < piece.next_offset for piece in pieces for offset in piece.offsets)


@given(batch=batches(), data=st.data())
def test_trim_keeps_what_lies_at_and_after_the_offset(batch: Batch, data: st.DataObject) -> None:
    """A trimmed batch holds exactly the records from the offset on, and ends where the batch ended."""
    offset = data.draw(st.integers(0, batch.next_offset))
    trimmed = batch.trim(offset)
    assert list(trimmed.offsets) == [each for each in batch.offsets if each >= offset]
    assert (trimmed.base, trimmed.next_offset) == (max(offset, batch.base), batch.next_offset)
    assert len(trimmed.keys) == len(trimmed.timestamps_ms) == len(trimmed)


def test_trim_beyond_the_batch_is_an_error() -> None:
    """There is no batch from an offset that the batch does not reach."""
    with pytest.raises(ValueError, match="expected at most 7, got 8"):
        batch_at(0, [0, 1], 7).trim(8)


def test_a_batch_never_prints_its_records() -> None:
    """What may end up in a log names the range and the number of records only."""
    assert repr(batch_at(5, [5, 6], 9)) == "<Batch source-3 [5, 9) records=2>"


@settings(deadline=None)  # columns are compiled at first
@given(batches(), st.integers(1, 6))
def test_pieces_joined_are_the_batch(batch: Batch, max_records: int) -> None:
    """However it was cut."""
    joined = Batch.joined(list(batch.pieces(max_records, 10**9)))
    assert (joined.tp, joined.base, joined.next_offset) == (batch.tp, batch.base, batch.next_offset)
    for column in ("keys", "values", "offsets", "timestamps_ms"):
        assert list(getattr(joined, column)) == list(getattr(batch, column))


def test_what_does_not_follow_is_not_joined() -> None:
    """A gap would be lost in what is one batch then; nor is nothing a batch."""
    one = Batch(TP("topic", 0), 0, 2, [None] * 2, [b"a"] * 2, [0, 1], [1, 2], 1)
    for other in (one, Batch(TP("topic", 1), 2, 3, [None], [b"a"], [2], [1], 1)):
        with pytest.raises(ValueError, match="expected one that follows on <Batch topic-0"):
            Batch.joined([one, other])
    with pytest.raises(ValueError, match="expected at least one"):
        Batch.joined([])
