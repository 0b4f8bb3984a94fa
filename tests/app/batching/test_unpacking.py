"""Taking record batches apart: what aiokafka reads, and an error for whatever is damaged."""

import numpy as np
import pytest
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from app.batching.unpacking import (
    CHECKED_FROM,
    HEADER_BYTES,
    MAGIC,
    Columns,
    Extent,
    _read_varint,
    first_wrong_checksum,
    next_extent,
    survey,
    unpack,
)

MANY = 2**40
COUNT_AT = HEADER_BYTES - 4
LAST_OFFSET_DELTA_AT = 23
ATTRIBUTES_AT = 22
MAGIC_AT = 16
LOG_APPEND_TIME = 8

STRINGS = st.none() | st.binary(max_size=80)
HEADERS = st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=3)
RECORDS = st.lists(st.tuples(STRINGS, STRINGS, st.integers(0, 2**62), HEADERS), min_size=1, max_size=10)
Record = tuple[bytes | None, bytes | None, int, list[tuple[str, bytes | None]]]


def built(records: list[Record], codec: int = 0) -> bytes:
    """Return the record batch that aiokafka makes of rows."""
    builder = DefaultRecordBatchBuilder(MAGIC, codec, 0, -1, -1, 0, 2**30)
    for number, (key, value, timestamp_ms, headers) in enumerate(records):
        builder.append(number, timestamp_ms, key, value, headers)
    return bytes(builder.build())


def unpacked(data: bytes, position: int = 0) -> Columns:
    """Unpack all record batches."""
    return unpack(data, survey(data, 0, MANY), position)


def one_record(body: bytes) -> bytes:
    """Return a record batch that claims one record, of this body."""
    assert len(body) < 64
    data = bytearray(built([(b"key", b"value", 5, [])])[:HEADER_BYTES]) + bytes([2 * len(body)]) + body
    data[8:12] = (len(data) - 12).to_bytes(4, "big")
    return bytes(data)


@settings(deadline=None)
@given(batches=st.lists(RECORDS, min_size=1, max_size=4), codec=st.sampled_from([0, 0, 1, 4]))
def test_records_are_those_that_aiokafka_reads(batches: list[list[Record]], codec: int) -> None:
    """Keys, values, offsets and times agree, over several batches, one of which may be compressed."""
    parts = [built(records, codec if number == 1 else 0) for number, records in enumerate(batches)]
    stock = [record for part in parts for record in DefaultRecordBatch(part)]
    columns = unpacked(b"".join(parts))
    assert list(columns.keys) == [record.key for record in stock]
    assert list(columns.values) == [record.value for record in stock]
    assert columns.offsets.tolist() == [record.offset for record in stock]
    assert columns.timestamps_ms.tolist() == [record.timestamp for record in stock]


def test_strings_stay_where_they_are_fetched() -> None:
    """Without compression nothing is copied: the columns span all batches of the fetched bytes."""
    data = built([(b"k", b"v", 5, [])]) * 2
    columns = unpacked(data)
    assert bytes(columns.values.buffer) == data
    assert columns.keys.buffer is columns.values.buffer


def test_records_before_the_position_are_left_out() -> None:
    """The broker returns the whole batch that holds the position."""
    data = built([(None, b"%d" % number, 5, []) for number in range(10)])
    columns = unpacked(data, position=7)
    assert (list(columns.values), columns.offsets.tolist()) == ([b"7", b"8", b"9"], [7, 8, 9])


def test_times_are_the_brokers_where_it_says_so() -> None:
    """With LogAppendTime all records of a batch have the batch's time."""
    data = bytearray(built([(None, b"a", 5, []), (None, b"b", 9, [])]))
    data[ATTRIBUTES_AT] |= LOG_APPEND_TIME
    assert unpacked(bytes(data)).timestamps_ms.tolist() == [9, 9]


def test_the_checksum_tells_of_every_changed_byte_that_it_covers() -> None:
    """All but offset, length, leader epoch and format, which the broker may write; the batch is named by its offset."""
    sound = built([(b"key", b"value", 5, [])])
    later = bytearray(sound)
    later[:8] = (7).to_bytes(8, "big")
    batches = survey(sound + bytes(later), 0, MANY)
    assert first_wrong_checksum(sound + bytes(later), batches) is None
    for place in range(CHECKED_FROM, len(sound)):
        changed = bytearray(sound + later)
        changed[len(sound) + place] ^= 0x10
        assert first_wrong_checksum(bytes(changed), batches) == 7


def test_a_survey_reads_every_header() -> None:
    """Numbers are as the producer wrote them, the largest and negative ones too."""
    builder = DefaultRecordBatchBuilder(MAGIC, 0, 1, 2**62 + 1, 9, 8, 2**30)
    builder.append(0, 2**61 + 3, b"k", None, [])
    builder.append(5, 4, None, b"v", [])
    data = bytes(builder.build())
    stock = DefaultRecordBatch(data)
    (first, second) = survey(built([(None, None, 5, [])]) + data, 0, MANY)
    assert (first["producer_id"], first["start"], first["end"]) == (-1, 0, second["start"])
    for field in ("base_offset", "attributes", "last_offset_delta", "producer_id"):
        assert second[field] == getattr(stock, field)
    assert (second["first_ms"], second["max_ms"]) == (stock.first_timestamp, stock.max_timestamp)
    assert (second["checksum"], second["records"]) == (stock.crc, 2)


def test_a_survey_ends_with_the_batch_that_reaches_the_limit() -> None:
    """The rest is left to the next."""
    data = built([(b"k", b"v", 5, [])] * 3)
    assert [len(survey(data * 4, 0, limit)) for limit in (1, 3, 4, 6, 7, 100)] == [1, 1, 2, 2, 3, 4]
    assert survey(data * 4, len(data), 4)["start"].tolist() == [len(data), 2 * len(data)]


def test_a_batch_that_is_cut_off_is_left_to_the_next_fetch() -> None:
    """The broker cuts off at the limit of the fetch, also in the middle of a header."""
    data = built([(b"key", b"value", 5, [])])
    assert [len(survey(data + data[:length], 0, MANY)) for length in range(len(data) + 1)] == [1] * len(data) + [2]
    assert all(next_extent(data[:length], 0) is None for length in range(len(data)))
    assert next_extent(data, 0) == Extent(len(data), MAGIC)


def test_a_survey_stops_before_an_older_format() -> None:
    """Its messages have another header."""
    data = built([(b"key", b"value", 5, [])])
    old = bytearray(data)
    old[MAGIC_AT] = 1
    assert len(survey(data + bytes(old) + data, 0, MANY)) == 1


@pytest.mark.parametrize("behind", [0, 5, 1_000])
@pytest.mark.parametrize("size", [-(2**31) + 12, 0, 11, 12, 13, 20, 60])
def test_a_length_below_a_header_is_an_error(size: int, behind: int) -> None:
    """Nothing is read of a header that is not there, and nothing is passed over in silence."""
    sound = built([(b"key", b"value", 5, [])])
    data = bytearray(max(size, 17) + behind)
    data[8:12] = (size - 12).to_bytes(4, "big", signed=True)
    data[MAGIC_AT] = MAGIC
    with pytest.raises(CorruptRecordException, match=f"at byte {len(sound)} of the fetch: expected a length"):
        survey(sound + bytes(data), 0, MANY)


def test_a_length_below_any_message_is_an_error() -> None:
    """In the older formats a message has 26 bytes at least."""
    data = bytearray(100)
    data[8:12] = (25 - 12).to_bytes(4, "big")
    with pytest.raises(CorruptRecordException, match="expected 26 bytes or more, got 25"):
        next_extent(bytes(data), 0)


@pytest.mark.parametrize("at", [COUNT_AT, LAST_OFFSET_DELTA_AT], ids=["count of records", "last offset"])
def test_a_header_with_negative_numbers_is_an_error(at: int) -> None:
    """They would count records or offsets backwards."""
    data = bytearray(built([(b"key", b"value", 5, [])]))
    data[at : at + 4] = (-1).to_bytes(4, "big", signed=True)
    with pytest.raises(CorruptRecordException, match="at byte 0 of the fetch: expected a length, a count"):
        survey(bytes(data), 0, MANY)


@pytest.mark.parametrize("end", range(5))
def test_a_number_is_read_up_to_its_end_only(end: int) -> None:
    """The bytes behind the end are not looked at, whatever number they would complete."""
    data = np.frombuffer(b"\xff\xff\xff\x01\x00", np.uint8)
    address = data.ctypes.data
    assert _read_varint(address, address + end) == ((-2_097_152, address + 4) if end == 4 else (0, 0))


def test_a_sound_record_as_the_damaged_ones_begin() -> None:
    """Attributes, time, offset, key, value, no header: so are those below written, each with one fault."""
    columns = unpacked(one_record(b"\0\0\0\2k\2v\0"))
    assert (list(columns.keys), list(columns.values)) == ([b"k"], [b"v"])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        b"\0\0\0\2k\2v",
        b"\0\0\0\2k\2v\0\0",
        b"\0\0\0\6k\2v\0",
        b"\0\0\0\2k\x7ev\0",
        b"\0\0\0\xfe\xff\xff\xff\xff\xff\xff\xff\xff\1k\2v\0",
        b"\0\0\0" + b"\xff" * 11,
        b"\0" + b"\x80" * 12 + b"\0\0\2k\2v\0",
        b"\0\0\0\2k\2v\1",
        b"\0\0\0\2k\2v\2\1\0",
        b"\0\0\0\2k\2v\2\2h\x7e",
        b"\0\0\0\2k\2v\xfe\xff\xff\xff\xff\xff\xff\xff\x7f\2h\2v",
        b"\0\0\1\2k\2v\0",
        b"\0\0\2\2k\2v\0",
    ],
    ids=[
        "empty",
        "attributes only",
        "no count of headers",
        "a byte too many",
        "key beyond the record",
        "value beyond the record",
        "key as long as numbers go",
        "number without an end",
        "number of 13 bytes",
        "negative count of headers",
        "header without a name",
        "header beyond the record",
        "more headers than bytes",
        "negative offset",
        "offset beyond the batch's",
    ],
)
def test_a_damaged_record_is_an_error(body: bytes) -> None:
    """Whatever does not fill its record exactly is corrupt, with other records behind it or without."""
    for records in (one_record(body), one_record(body) + built([(b"k", b"v" * 100, 5, [])])):
        with pytest.raises(CorruptRecordException, match="record batch at 0: expected 1 records that fill it"):
            unpacked(records)


@pytest.mark.parametrize("count", [0, 1, 3, 2**31 - 1])
def test_a_wrong_count_of_records_is_an_error(count: int) -> None:
    """A count below or above what is there, and one for which no memory would suffice."""
    data = bytearray(built([(b"k", b"v", 5, []), (b"k", b"v", 5, [])]))
    data[COUNT_AT:HEADER_BYTES] = count.to_bytes(4, "big")
    with pytest.raises(CorruptRecordException, match=f"expected {count} records"):
        unpacked(bytes(data))


def test_offsets_that_do_not_ascend_are_an_error() -> None:
    """Records are looked up by their offsets."""
    builder = DefaultRecordBatchBuilder(MAGIC, 0, 0, -1, -1, 0, 2**30)
    for offset in (0, 2, 1, 3):
        builder.append(offset, 5, b"k", b"v", [])
    with pytest.raises(CorruptRecordException):
        unpacked(bytes(builder.build()))


@settings(deadline=None, max_examples=300)
@given(
    records=RECORDS,
    damage=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=4),
)
def test_damage_anywhere_is_an_error_or_stays_inside(records: list[Record], damage: list[tuple[int, int]]) -> None:
    """Whatever bytes the records have, nothing that lies outside of their batch becomes a key or value."""
    sound = built(records)
    data = bytearray(sound * 3)
    for place, change in damage:
        data[len(sound) + HEADER_BYTES + place % (len(sound) - HEADER_BYTES)] ^= change
    batches = survey(bytes(data), 0, MANY)
    try:
        columns = unpack(bytes(data), batches[1:2], 0)
    except CorruptRecordException:
        return
    assert len(columns.offsets) == len(records)
    for column in (columns.keys, columns.values):
        present = column.lengths >= 0
        assert (column.lengths >= -1).all()
        assert (column.starts[present] >= batches[1]["start"] + HEADER_BYTES).all()
        assert (column.starts[present] + column.lengths[present] <= batches[1]["end"]).all()


@pytest.mark.parametrize("codec", [1, 2, 3, 4], ids=["gzip", "snappy", "lz4", "zstd"])
def test_what_cannot_be_decompressed_is_an_error(codec: int) -> None:
    """Each codec's own error becomes the one of a corrupt record."""
    data = bytearray(built([(b"key", b"value", 5, [])]))
    data[ATTRIBUTES_AT] |= codec
    with pytest.raises(CorruptRecordException):
        unpacked(bytes(data))


def test_an_unknown_codec_is_named() -> None:
    """A newer Kafka may have more."""
    data = bytearray(built([(b"key", b"value", 5, [])]))
    data[ATTRIBUTES_AT] |= 5
    with pytest.raises(UnsupportedCodecError, match="got 5"):
        unpacked(bytes(data))
