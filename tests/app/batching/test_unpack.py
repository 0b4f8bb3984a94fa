"""Unpacking of fetched bytes: holes, codecs, checksums, transactions, and the fetch position after each."""

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from app.batching import Batch
from app.batching.fetching import unpack

SOURCE = TP("source", 0)
BASE_OFFSET_BYTES = 8
ATTRIBUTES_AT = 21
CONTROL = 0x20


def record_batch(
    base: int, offsets: list[int], *, codec: int = 0, producer_id: int = -1, transactional: bool = False
) -> bytearray:
    """Build a record batch at offset `base`; offsets left out are as compaction leaves them."""
    builder = DefaultRecordBatchBuilder(2, codec, int(transactional), producer_id, 0, 0, 1_000_000)
    for offset in offsets:
        builder.append(offset - base, 5_000 + offset, b"k%d" % offset, b"v%d" % offset, [])
    data: bytearray = builder.build()
    data[:BASE_OFFSET_BYTES] = base.to_bytes(BASE_OFFSET_BYTES, "big")
    return data


def control_batch(offset: int, producer_id: int, *, commit: bool) -> bytearray:
    """Build the marker that ends a transaction."""
    builder = DefaultRecordBatchBuilder(2, 0, 1, producer_id, 0, 0, 1_000)
    builder.append(0, 5_000, bytes([0, 0, 0, int(commit)]), bytes(6), [])
    data: bytearray = builder.build()
    data[:BASE_OFFSET_BYTES] = offset.to_bytes(BASE_OFFSET_BYTES, "big")
    # The builder has no say in this bit; what it makes of the checksum is not looked at (see `fetched`).
    data[ATTRIBUTES_AT + 1] |= CONTROL
    return data


def fetched(
    *batches: bytearray,
    position: int,
    isolation: int = READ_UNCOMMITTED,
    aborted: list[tuple[int, int]] | None = None,
    check_crcs: bool = False,
) -> PartitionRecords:
    """Return what aiokafka's fetcher makes of a response with these record batches."""
    data = b"".join(batches)
    return PartitionRecords(SOURCE, MemoryRecords(data), aborted, position, None, None, check_crcs, isolation)


def unpacked(records: PartitionRecords, max_records: int = 1_000) -> Batch:
    """Unpack one batch."""
    return unpack(records, SOURCE, 7, max_records)


@given(
    layout=st.lists(st.lists(st.booleans(), min_size=1, max_size=8), min_size=1, max_size=6),
    skipped=st.integers(0, 7),
)
def test_unpack_agrees_with_aiokafka(layout: list[list[bool]], skipped: int) -> None:
    """Records and final position are those of aiokafka's own reader, for any holes and any start inside a batch."""
    parts, base = [], 0
    for kept in layout:
        # The last record stays: its builder derives the end of the batch from it.
        parts.append(
            record_batch(base, [base + at for at, keep in enumerate(kept[:-1]) if keep] + [base + len(kept) - 1])
        )
        base += len(kept)
    position = min(skipped, len(layout[0]) - 1)
    stock = fetched(*parts, position=position)
    expected = [(each.offset, each.key, each.value, each.timestamp) for each in stock]
    batch = unpacked(fetched(*parts, position=position))
    assert list(zip(batch.offsets, batch.keys, batch.values, batch.timestamps_ms, strict=True)) == expected
    assert (batch.base, batch.next_offset) == (position, stock.next_fetch_offset)


def test_unpack_ends_with_the_record_batch_that_reaches_the_limit() -> None:
    """The next call goes on with the record batch after it."""
    records = fetched(record_batch(0, [0, 1, 2]), record_batch(3, [3, 4, 5]), record_batch(6, [6]), position=0)
    first = unpacked(records, max_records=4)
    second = unpacked(records, max_records=4)
    assert (list(first.offsets), first.next_offset) == ([0, 1, 2, 3, 4, 5], 6)
    assert (list(second.offsets), second.base, second.next_offset) == ([6], 6, 7)


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4], ids=["none", "gzip", "snappy", "lz4", "zstd"])
def test_unpack_reads_every_codec_of_kafka(codec: int) -> None:
    """Any producer may send to the topic, whatever it compresses with."""
    batch = unpacked(fetched(record_batch(0, list(range(100)), codec=codec), position=0, check_crcs=True))
    assert batch.values == [b"v%d" % offset for offset in range(100)]


def test_unpack_refuses_a_wrong_checksum_and_names_the_place() -> None:
    """Corruption is an error, never a record, and what came before it is not delivered either."""
    bad = record_batch(2, [2, 3])
    bad[-1] ^= 1
    with pytest.raises(CorruptRecordException, match="source-0: checksum of the record batch at 2 is wrong"):
        unpacked(fetched(record_batch(0, [0, 1]), bad, position=0, check_crcs=True))


def test_transaction_markers_carry_no_record_but_are_passed() -> None:
    """A batch may be without records; it still moves the position."""
    batch = unpacked(fetched(control_batch(4, 9, commit=True), position=4))
    assert (len(batch), batch.base, batch.next_offset) == (0, 4, 5)


@pytest.mark.parametrize(
    ("isolation", "expected"),
    [(READ_UNCOMMITTED, [0, 1, 2, 4, 6, 7]), (READ_COMMITTED, [2, 4, 7])],
    ids=["read_uncommitted", "read_committed"],
)
def test_aborted_records_are_skipped_only_when_reading_committed(isolation: int, expected: list[int]) -> None:
    """A producer's records count again once its aborted transaction has ended."""
    records = fetched(
        record_batch(0, [0, 1], producer_id=9, transactional=True),
        record_batch(2, [2], producer_id=8, transactional=True),
        control_batch(3, 8, commit=True),
        record_batch(4, [4]),
        control_batch(5, 9, commit=False),
        record_batch(6, [6], producer_id=7, transactional=True),
        record_batch(7, [7], producer_id=9, transactional=True),
        position=0,
        isolation=isolation,
        aborted=[(9, 0), (7, 6)],
    )
    batch = unpacked(records)
    assert list(batch.offsets) == expected
    assert (batch.base, batch.next_offset) == (0, 8)
