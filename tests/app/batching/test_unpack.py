"""Unpacking of fetched bytes: holes, codecs, checksums, transactions, and the fetch position after each."""

import json

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from app.batching import Batch
from app.batching.fetching import unpack
from app.domain.byte_column import ByteColumn

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


def old_batch(offset: int, magic: int, values: list[bytes], *, codec: int = 0) -> bytearray:
    """Build messages of a format before Kafka 0.11: one, or, compressed, those that end at `offset`."""
    builder = LegacyRecordBatchBuilder(magic, codec, 1_000_000)
    for number, value in enumerate(values):
        builder.append(number, 5_000 if magic else None, None, value)
    data: bytearray = builder.build()
    data[:BASE_OFFSET_BYTES] = offset.to_bytes(BASE_OFFSET_BYTES, "big")
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


@settings(deadline=None)  # the first call compiles
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


def test_columns_are_what_each_reader_needs() -> None:
    """Kernels find one buffer; JSON finds plain numbers; and a batch without records is false in its columns."""
    batch = unpacked(fetched(record_batch(0, [0, 2, 3]), position=0))
    assert isinstance(batch.keys, ByteColumn)
    assert isinstance(batch.values, ByteColumn)
    assert json.dumps([batch.offsets[1], *batch.timestamps_ms]) == "[2, 5000, 5002, 5003]"
    assert not unpacked(fetched(control_batch(4, 9, commit=True), position=4)).timestamps_ms


def test_a_damaged_batch_is_named_and_nothing_is_taken() -> None:
    """The error says where, with the checksum unchecked too, and comes again at the next call."""
    bad = record_batch(2, [2, 3])
    bad[-1] ^= 1
    records = fetched(record_batch(0, [0, 1]), bad, position=0)
    for _ in range(2):
        with pytest.raises(CorruptRecordException, match="source-0: record batch at 2: expected 2 records"):
            unpacked(records)
        assert records.next_fetch_offset == 0


@pytest.mark.parametrize("magic", [0, 1])
def test_old_formats_are_read_too(magic: int) -> None:
    """Brokers before 4.0 keep what old producers have sent; records of the first format have no time."""
    records = fetched(*(old_batch(offset, magic, [b"v%d" % offset]) for offset in (3, 4, 7)), position=4)
    batch = unpacked(records)
    assert (list(batch.offsets), batch.values) == ([4, 7], [b"v4", b"v7"])
    assert list(batch.timestamps_ms) == [5_000 if magic else -1] * 2
    assert (batch.base, batch.next_offset, batch.keys) == (4, 8, [None, None])


def test_old_compressed_messages_are_read_from_the_position_on() -> None:
    """They are one message that holds the others."""
    batch = unpacked(fetched(old_batch(12, 1, [b"v10", b"v11", b"v12"], codec=1), position=11, check_crcs=True))
    assert (list(batch.offsets), batch.values, batch.next_offset) == ([11, 12], [b"v11", b"v12"], 13)


def test_a_wrong_checksum_of_an_old_message_is_refused() -> None:
    """As of a new one."""
    bad = old_batch(2, 1, [b"value"])
    bad[-1] ^= 1
    with pytest.raises(CorruptRecordException, match="source-0: checksum of the record batch at 2 is wrong"):
        unpacked(fetched(bad, position=2, check_crcs=True))


def test_formats_are_told_apart_batch_by_batch() -> None:
    """A call ends where the format changes, and the next goes on there, in either direction."""
    records = fetched(
        old_batch(0, 1, [b"v0"]),
        old_batch(1, 0, [b"v1"]),
        record_batch(2, [2, 3]),
        old_batch(4, 1, [b"v4"]),
        position=0,
    )
    values = []
    while records._records.has_next():
        batch = unpacked(records)
        values.append(list(batch.values))
    assert values == [[b"v0", b"v1"], [b"v2", b"v3"], [b"v4"]]
    assert records.next_fetch_offset == 5
