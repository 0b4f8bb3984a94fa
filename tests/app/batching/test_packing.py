"""Packing records: byte for byte what aiokafka builds of them, and sent by its producer."""

from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import RequestTimedOutError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.batching.packing import PackedBatch, PackedRecords, pack
from app.batching.unpacking import HEADER_BYTES, survey, unpack
from app.domain.byte_column import ByteColumn
from tests.app.batching.recording import Cluster

Record = tuple[bytes | None, bytes | None, int]

MEBIBYTE = 1024 * 1024
STRINGS = st.none() | st.binary(max_size=80)
# Times may go backwards by any number of bytes. Not below zero: of -1, aiokafka takes the next record's.
RECORDS = st.lists(st.tuples(STRINGS, STRINGS, st.integers(0, 2**62)), max_size=30)


def packed(records: list[Record], max_bytes: int = MEBIBYTE) -> list[PackedRecords]:
    """Pack rows."""
    return pack(
        ByteColumn.from_list([key for key, _, _ in records]),
        ByteColumn.from_list([value for _, value, _ in records]),
        np.array([timestamp_ms for _, _, timestamp_ms in records], np.int64),
        max_bytes=max_bytes,
    )


def built(records: list[Record], producer: tuple[int, int, int]) -> bytes:
    """Return the record batch that aiokafka makes of rows."""
    builder = BatchBuilder(64 * MEBIBYTE, 0)
    for key, value, timestamp_ms in records:
        builder.append(timestamp=timestamp_ms, key=key, value=value)
    builder._set_producer_state(*producer)
    return bytes(builder._build())


@settings(deadline=None)
@given(
    records=RECORDS,
    max_bytes=st.integers(0, 400),
    producer=st.tuples(st.integers(-1, 2**63 - 1), st.integers(-1, 2**15 - 1), st.integers(0, 2**31 - 1)),
)
def test_batches_are_those_of_aiokafka_and_as_full_as_can_be(
    records: list[Record], max_bytes: int, producer: tuple[int, int, int]
) -> None:
    """Each batch equals the builder's of the same records; it keeps to the limit, into which no more would fit."""
    first = 0
    for batch in packed(records, max_bytes):
        part = records[first : first + batch.record_count]
        more = records[first : first + batch.record_count + 1]
        assert batch.seal(*producer) == built(part, producer)
        assert batch.size == len(built(part, producer))
        assert batch.max_timestamp_ms == max(timestamp_ms for _, _, timestamp_ms in part)
        assert batch.size <= max_bytes or batch.record_count == 1
        assert more == part or len(built(more, producer)) > max_bytes
        first += batch.record_count
    assert first == len(records)


@pytest.mark.parametrize("length", [0, 63, 64, 8_191, 8_192, 1_048_575, 1_048_576])
def test_lengths_around_every_size_of_their_encoding(length: int) -> None:
    """A value's length takes one byte up to 63, two up to 8191, and so on."""
    records: list[Record] = [(b"k" * length, b"v" * length, 5), (None, bytes(length), 4)]
    (batch,) = packed(records, 64 * MEBIBYTE)
    assert batch.seal(1, 2, 3) == built(records, (1, 2, 3))


def test_places_of_records_around_every_size_of_their_encoding() -> None:
    """A batch of 20,000 records counts them in up to three bytes."""
    records: list[Record] = [(b"k", None, number) for number in range(20_000)]
    (batch,) = packed(records)
    assert batch.seal(1, 2, 3) == built(records, (1, 2, 3))


def test_a_batch_may_have_exactly_the_limit() -> None:
    """One byte less, and its last record begins another, whose counts begin anew however many came before."""
    records: list[Record] = [(b"k", b"v" * (number % 9), 1_000 * number) for number in range(300)]
    size = len(built(records, (1, 2, 3)))
    (whole,) = packed(records, size)
    assert whole.size == size
    most, last = packed(records, size - 1)
    assert most.seal(1, 2, 3) == built(records[:-1], (1, 2, 3))
    assert last.seal(1, 2, 302) == built(records[-1:], (1, 2, 302))


def test_columns_may_be_slices_of_larger_ones() -> None:
    """Strings are taken from where they lie, whatever their order there."""
    keys = ByteColumn.from_list([b"a", None, b"ccc", b"dd"])[::-1]
    values = ByteColumn.fixed(np.array([b"1", b"22", b"333", b"4444"], "S4"))[1:]
    (batch,) = pack(keys[:3], values, np.arange(10, 16)[::2], max_bytes=MEBIBYTE)
    expected: list[Record] = [(b"dd", b"22\0\0", 10), (b"ccc", b"333\0", 12), (None, b"4444", 14)]
    assert batch.seal(-1, -1, 0) == built(expected, (-1, -1, 0))


@settings(deadline=None)
@given(times=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5))
def test_every_time_comes_back(times: list[int]) -> None:
    """Also -1, which stands for none, before others, and times as far apart as their numbers go."""
    (batch,) = packed([(None, b"v", timestamp_ms) for timestamp_ms in times])
    data = bytes(batch.seal(-1, -1, 0))
    assert unpack(data, survey(data, 0, 1), 0).timestamps_ms.tolist() == times


def test_no_record_is_no_batch() -> None:
    """An empty batch would be refused by the broker."""
    assert packed([]) == []


def test_columns_of_different_lengths_are_refused() -> None:
    """The error names the lengths."""
    column = ByteColumn.from_list([b"a", b"b"])
    with pytest.raises(ValueError, match="expected one length, got 2, 1, 3"):
        pack(column, column[:1], np.zeros(3, np.int64), max_bytes=MEBIBYTE)


def test_a_batch_can_be_sealed_again_by_another_producer() -> None:
    """The checksum is that of what was sealed last."""
    (batch,) = packed([(b"k", b"v", 5)])
    batch.seal(1, 2, 3)
    assert batch.seal(7, 8, 9) == built([(b"k", b"v", 5)], (7, 8, 9))


def test_a_builder_tells_what_it_holds_and_takes_nothing_more() -> None:
    """What the accumulator asks a builder for is true before and after the bytes are made."""
    (records,) = packed([(b"k", b"v", 5), (b"k", b"w", 6)])
    builder = PackedBatch(records)
    assert builder.closed()
    assert builder.append(timestamp=7, key=b"k", value=b"x") is None
    assert (builder.record_count(), builder.size()) == (2, records.size)
    data = builder._build()
    assert (builder.record_count(), builder.size()) == (2, len(data))
    assert DefaultRecordBatch(bytes(data)).validate_crc()


def test_a_stamp_stands_for_the_sending_producer() -> None:
    """What the sending producer says of itself is not written."""
    (records,) = packed([(b"k", b"v", 5)])
    builder = PackedBatch(records, stamp=(7, 8, 9))
    builder._set_producer_state(1, 2, 3)
    assert builder._build() == built([(b"k", b"v", 5)], (7, 8, 9))


def test_sequences_begin_again_at_zero() -> None:
    """In aiokafka they go on below zero after 2**31 - 1, which the broker would refuse."""
    (records,) = packed([(b"k", b"v", 5)])
    builder = PackedBatch(records)
    builder._set_producer_state(1, 2, -(2**31))
    assert read_sequence(builder._build()) == 0


def read_sequence(data: bytearray) -> int:
    """Return the base sequence of a record batch."""
    return int.from_bytes(data[HEADER_BYTES - 8 : HEADER_BYTES - 4], "big", signed=True)


async def test_an_idempotent_producer_sends_packed_batches_in_order(cluster: Cluster) -> None:
    """The broker accepts them beside single messages, and a reader finds all records as they were."""
    topic = await cluster.create()
    records: list[Record] = [(b"%d" % number, b"v" * (number % 700), 5_000 - number) for number in range(3_000)]
    records[7], records[8] = (None, b"no key", 1), (b"no value", None, 2)
    batches = packed(records, 100_000)
    assert len(batches) > 5
    async with AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, enable_idempotence=True) as producer:
        sent = [await producer.send_batch(PackedBatch(batch), topic, partition=0) for batch in batches]
        await producer.send_and_wait(topic, b"single", b"k", 0, timestamp_ms=1)
        offsets = [(await each).offset for each in sent]
    counts = [batch.record_count for batch in batches]
    assert offsets == [sum(counts[:number]) for number in range(len(counts))]
    found = [(record.key, record.value, record.timestamp) for record in await cluster.read(topic)]
    assert found == [*records, (b"k", b"single", 1)]


async def test_a_retry_of_a_packed_batch_appends_nothing_twice(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a lost answer the same bytes are sent again, and the broker knows them by producer and sequence."""
    topic = await cluster.create()
    requests: list[Any] = []
    async with AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, enable_idempotence=True) as producer:
        send = producer.client.send

        async def lose_second_answer(node: int, request: Any, **options: Any) -> object:  # noqa: ANN401
            answer = await send(node, request, **options)
            if type(request).__name__.startswith("Produce"):
                requests.append(request)
                if len(requests) == 2:
                    raise RequestTimedOutError
            return answer

        monkeypatch.setattr(producer.client, "send", lose_second_answer)
        for value in (b"first", b"second", b"third"):
            (records,) = packed([(b"k", value, 5)] * 3)
            await (await producer.send_batch(PackedBatch(records), topic, partition=0))
    assert len(requests) == 4
    assert [record.value for record in await cluster.read(topic)] == [b"first"] * 3 + [b"second"] * 3 + [b"third"] * 3
