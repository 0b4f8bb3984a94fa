"""Packing records: byte for byte what aiokafka builds of them."""

from collections.abc import Sequence

import numpy as np
import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from app.batching.packing import FRAME_BYTES, NO_PRODUCER, Pile, Records, Stamp, write_batches
from app.batching.unpacking import HEADER_BYTES, survey, unpack
from app.domain.byte_column import ByteColumn

Record = tuple[bytes | None, bytes | None, int]

MEBIBYTE = 1024 * 1024
STRINGS = st.none() | st.binary(max_size=80)
# Times may go backwards by any number of bytes. Not below zero: of -1, aiokafka takes the next record's.
RECORD = st.tuples(STRINGS, STRINGS, st.integers(0, 2**62))
STAMPS = st.builds(Stamp, st.integers(-1, 2**63 - 1), st.integers(-1, 2**15 - 1), st.integers(0, 2**31 - 1))
PILES = st.tuples(
    st.integers(0, 2**31 - 1), st.lists(st.lists(RECORD, min_size=1, max_size=9), min_size=1, max_size=4), STAMPS
)
STAMP = Stamp(1, 2, 3)


def columns(records: Sequence[Record]) -> Records:
    """Return rows as columns."""
    return Records.of(
        [key for key, _, _ in records],
        [value for _, value, _ in records],
        [timestamp_ms for _, _, timestamp_ms in records],
    )


def written(*piles: Pile) -> list[bytes]:
    """Return what is written of piles, each with what stands in front of it."""
    size = sum(FRAME_BYTES + HEADER_BYTES + int(part.sizes().sum()) for pile in piles for part in pile.parts)
    request = np.empty(5 + size, np.uint8)
    extents = write_batches(request, 5, piles).tolist()
    assert [begin for begin, _ in extents] == [FRAME_BYTES + end for end in [5, *(end for _, end in extents[:-1])]]
    return [request[begin - FRAME_BYTES : end].tobytes() for begin, end in extents]


def packed(records: Sequence[Record], stamp: Stamp = STAMP) -> bytes:
    """Return the record batch of rows."""
    return written(Pile(0, [columns(records)], stamp))[0][FRAME_BYTES:]


def built(records: Sequence[Record], producer: tuple[int, int, int] = STAMP) -> bytes:
    """Return the record batch that aiokafka makes of rows."""
    builder = BatchBuilder(64 * MEBIBYTE, 0)
    for key, value, timestamp_ms in records:
        builder.append(timestamp=timestamp_ms, key=key, value=value)
    builder._set_producer_state(*producer)
    return bytes(builder._build())


@settings(deadline=None)
@given(piles=st.lists(PILES, min_size=1, max_size=4))
def test_batches_are_those_of_aiokafka(piles: list[tuple[int, list[list[Record]], Stamp]]) -> None:
    """Whatever parts a batch is made of, and whatever others are written with it; partition and size in front."""
    found = written(*(Pile(partition, [columns(part) for part in parts], stamp) for partition, parts, stamp in piles))
    for (partition, parts, stamp), batch in zip(piles, found, strict=True):
        expected = built([record for part in parts for record in part], stamp)
        assert batch == partition.to_bytes(4, "big") + len(expected).to_bytes(4, "big") + expected


@pytest.mark.parametrize("length", [0, 63, 64, 8_191, 8_192, 1_048_575, 1_048_576])
def test_lengths_around_every_size_of_their_encoding(length: int) -> None:
    """A value's length takes one byte up to 63, two up to 8191, and so on."""
    records: list[Record] = [(b"k" * length, b"v" * length, 5), (None, bytes(length), 4)]
    assert packed(records) == built(records)


def test_places_of_records_around_every_size_of_their_encoding() -> None:
    """A batch of 20,000 records counts them in up to three bytes."""
    records: list[Record] = [(b"k", None, number) for number in range(20_000)]
    assert packed(records) == built(records)


def test_columns_may_be_slices_of_larger_ones() -> None:
    """Strings are taken from where they lie, whatever their order there."""
    keys = ByteColumn.from_list([b"a", None, b"ccc", b"dd"])[::-1]
    values = ByteColumn.fixed(np.array([b"1", b"22", b"333", b"4444"], "S4"))[1:]
    records = Records.of(keys[:3], values, np.arange(10, 16)[::2])
    expected: list[Record] = [(b"dd", b"22\0\0", 10), (b"ccc", b"333\0", 12), (None, b"4444", 14)]
    assert written(Pile(0, [records], STAMP))[0][FRAME_BYTES:] == built(expected)


@settings(deadline=None)
@given(times=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5))
def test_every_time_comes_back(times: list[int]) -> None:
    """Also -1, which stands for none, before others, and times as far apart as their numbers go."""
    data = packed([(None, b"v", timestamp_ms) for timestamp_ms in times], NO_PRODUCER)
    assert unpack(data, survey(data, 0, 1), 0).timestamps_ms.tolist() == times


def test_one_time_may_be_that_of_all() -> None:
    """As that of a step's outputs is."""
    (batch,) = written(Pile(0, [Records.of([b"a", None], [b"b", b"c"], 7)], STAMP))
    assert batch[FRAME_BYTES:] == built([(b"a", b"b", 7), (None, b"c", 7)])


def test_columns_of_different_lengths_are_refused() -> None:
    """The error names the lengths."""
    with pytest.raises(ValueError, match="expected one length, got 2, 1, 3"):
        Records.of([b"a", b"b"], [b"a"], [0, 0, 0])


@settings(deadline=None)
@given(records=st.lists(RECORD, max_size=30), max_bytes=st.integers(0, 400))
def test_pieces_keep_to_the_limit_and_to_the_order(records: list[Record], max_bytes: int) -> None:
    """Each is as long as it can be, unless a single record is longer; none is empty, none is lost."""
    found = list(columns(records).pieces(max_bytes))
    first = 0
    for piece, size in found:
        past = first + len(piece)
        assert len(piece) > 0
        assert size == columns(records[first:past]).sizes().sum()
        assert size <= max_bytes or len(piece) == 1
        assert past == len(records) or size + columns(records[past : past + 1]).sizes()[0] > max_bytes
        assert list(zip(piece.keys, piece.values, piece.timestamps_ms.tolist(), strict=True)) == records[first:past]
        first = past
    assert first == len(records)


@settings(deadline=None)
@given(records=st.lists(RECORD, min_size=1, max_size=30))
def test_a_batch_has_no_more_bytes_than_its_records_are_said_to_have(records: list[Record]) -> None:
    """Room is made by what they have at most."""
    assert len(packed(records)) <= HEADER_BYTES + columns(records).sizes().sum()
