"""Record batches taken apart by compiled code: no object and no interpreter step per record.

Each length in a record is checked against what encloses it before anything is read, so that a damaged record is an
error and never a read outside of its record batch.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c
import numpy as np
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError

from app.domain.byte_column import ByteColumn
from app.domain.memory import compiled, load_byte

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CHECKED_FROM",
    "CONTROL",
    "HEADER_BYTES",
    "MAGIC",
    "TRANSACTIONAL",
    "Columns",
    "Extent",
    "crc32c",
    "first_wrong_checksum",
    "next_extent",
    "survey",
    "unpack",
    "warm_up",
]

if google_crc32c.implementation != "c":
    raise ImportError("google-crc32c: expected its C extension: the checksum in Python takes seconds per megabyte")

MAGIC = 2
"""The format of record batches since Kafka 0.11."""

HEADER_BYTES = 61
"""What precedes the records of a record batch."""

CHECKED_FROM = 21
"""Where the part of a record batch begins that its checksum covers: after the checksum."""

TRANSACTIONAL = 0x10
"""The attribute of a record batch that is part of a transaction."""

CONTROL = 0x20
"""The attribute of a record batch that is a transaction's marker."""

_CODEC_MASK = 0x07
_LOG_APPEND_TIME = 0x08
_DECODERS = {1: gzip_decode, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode}

_PREFIX = Struct(">qi")  # base offset, length of what follows
_PREFIX_BYTES = _PREFIX.size
_MAGIC_AT = 16
_SMALLEST_OLD_MESSAGE = 26
_SMALLEST_RECORD = 7
_MAX_SURVEYED = 65_536

_BATCH_DTYPE = np.dtype(
    [
        (name, np.int64)
        for name in (
            "start",
            "end",
            "base_offset",
            "last_offset_delta",
            "records",
            "first_ms",
            "max_ms",
            "attributes",
            "producer_id",
            "checksum",
        )
    ]
)

# The columns that the kernel writes.
_KEY_STARTS, _KEY_LENGTHS, _VALUE_STARTS, _VALUE_LENGTHS, _OFFSETS, _TIMES = range(6)


class Extent(NamedTuple):
    """Where a record batch ends in the fetched bytes, and its format."""

    end: int
    magic: int


class Columns(NamedTuple):
    """Records, as columns of equal length."""

    keys: ByteColumn
    values: ByteColumn
    offsets: NDArray[np.int64]
    timestamps_ms: NDArray[np.int64]
    """Epoch milliseconds; -1 where the record has none."""


def crc32c(data: NDArray[np.uint8]) -> int:
    """Return the CRC-32C of bytes, by the processor's instruction."""
    # The extension's stub knows bytes only; it takes all that has a buffer of fixed place, as an array's is.
    return int(google_crc32c.value(data))  # type: ignore[arg-type,unused-ignore]


def next_extent(data: bytes, place: int) -> Extent | None:
    """Return end and format of what lies at `place`, or None where nothing whole is left.

    Raises
    ------
    CorruptRecordException
        If its length is below that of any message.
    """
    left = len(data) - place
    if left < _PREFIX_BYTES:
        return None
    size = _PREFIX_BYTES + _PREFIX.unpack_from(data, place)[1]
    if size > left:
        return None  # the broker cuts the last one off where the fetch has its limit
    if size < _SMALLEST_OLD_MESSAGE:
        raise CorruptRecordException(f"message: expected {_SMALLEST_OLD_MESSAGE} bytes or more, got {size}")
    return Extent(place + size, data[place + _MAGIC_AT])


def survey(data: bytes, place: int, max_records: int) -> NDArray[np.void]:
    """Read the headers of the record batches of format 2 that follow each other from `place` on.

    Parameters
    ----------
    data
        Fetched bytes, at whose end a batch may be cut off.
    place
        Where to begin.
    max_records
        With the batch that reaches as many records, by the count in its header, the survey ends.

    Returns
    -------
    batches
        Shape (k,); k is 0 if an older format comes first, or nothing whole: see `next_extent`. Fields, all int64:
        ``start`` and ``end`` in `data`; ``base_offset``, ``last_offset_delta``, ``records`` (their number),
        ``first_ms``, ``max_ms``, ``attributes``, ``producer_id`` and ``checksum`` as Kafka has them.

    Raises
    ------
    CorruptRecordException
        If a length is below that of a header, or a count or the last offset below zero.
    """
    buffer = np.frombuffer(data, np.uint8)
    # Room for one more than can be whole: a length that is wrong must be found at the end too.
    batches = np.empty(min((len(data) - place) // HEADER_BYTES + 1, _MAX_SURVEYED), _BATCH_DTYPE)
    found, corrupt = _survey(buffer.ctypes.data, place, len(data), max_records, batches)
    if corrupt >= 0:
        raise CorruptRecordException(
            f"record batch at byte {corrupt} of the fetch: expected a length, a count and a last offset, "
            f"got the header {data[corrupt : corrupt + HEADER_BYTES].hex()}"
        )
    return batches[:found]


def first_wrong_checksum(data: bytes, batches: NDArray[np.void]) -> int | None:
    """Return the base offset of the first batch that is not as its producer sealed it."""
    buffer = np.frombuffer(data, np.uint8)
    fields = ("start", "end", "checksum", "base_offset")
    for start, end, checksum, offset in zip(*(batches[name].tolist() for name in fields), strict=True):
        if crc32c(buffer[start + CHECKED_FROM : end]) != checksum:
            return int(offset)
    return None


def unpack(data: bytes, batches: NDArray[np.void], position: int) -> Columns:
    """Take record batches apart.

    Keys and values stay where they are: in `data`, which the columns keep alive, or, where one of the batches is
    compressed, in one new buffer.

    Parameters
    ----------
    data
        The fetched bytes.
    batches
        What to unpack of them, from `survey`.
    position
        Offset below which records are left out.

    Raises
    ------
    CorruptRecordException
        If a batch cannot be decompressed, its records and their lengths do not fill it exactly, or their offsets do
        not ascend within the batch.
    UnsupportedCodecError
        If a batch is compressed with a codec that Kafka did not have in 2026.
    """
    if (batches["attributes"] & _CODEC_MASK).any():
        payloads = [_payload(data, batch) for batch in batches]
        lengths = np.array([len(payload) for payload in payloads])
        batches = batches.copy()
        batches["end"] = np.cumsum(lengths)
        batches["start"] = batches["end"] - lengths - HEADER_BYTES  # as if each had its header
        data = b"".join(payloads)
    # Before memory is taken for as many.
    room = (batches["end"] - batches["start"] - HEADER_BYTES) // _SMALLEST_RECORD
    wrong = np.flatnonzero(batches["records"] > room)
    if len(wrong):
        raise _corrupt(batches[wrong[0]])
    buffer = np.frombuffer(data, np.uint8)
    columns = np.empty((6, int(batches["records"].sum())), np.int64)
    written, corrupt = _walk(buffer.ctypes.data, batches, position, columns)
    if corrupt >= 0:
        raise _corrupt(batches[corrupt])
    columns = columns[:, :written]
    return Columns(
        ByteColumn(buffer, columns[_KEY_STARTS], columns[_KEY_LENGTHS]),
        ByteColumn(buffer, columns[_VALUE_STARTS], columns[_VALUE_LENGTHS]),
        columns[_OFFSETS],
        columns[_TIMES],
    )


def warm_up() -> None:
    """Compile what unpacking needs: seconds without Numba's cache."""
    unpack(b"", survey(b"", 0, 1), 0)


def _payload(data: bytes, batch: np.void) -> bytes:
    codec = int(batch["attributes"]) & _CODEC_MASK
    packed = data[batch["start"] + HEADER_BYTES : batch["end"]]
    if codec == 0:
        return packed
    if codec not in _DECODERS:
        raise UnsupportedCodecError(f"record batch: expected a codec of {sorted(_DECODERS)}, got {codec}")
    try:
        unpacked: bytes = _DECODERS[codec](packed)
    except Exception as exc:  # each codec has errors of its own
        raise _corrupt(batch) from exc
    return unpacked


def _corrupt(batch: np.void) -> CorruptRecordException:
    return CorruptRecordException(
        f"record batch at {batch['base_offset']}: expected {batch['records']} records that fill it, got others"
    )


@compiled
def _read_number(place: int, size: int) -> int:
    """Return the signed big-endian number of up to 8 bytes at an address."""
    number = -(load_byte(place) >> 7)
    for byte in range(size):
        number = (number << 8) | load_byte(place + byte)
    return number


@compiled
def _survey(address: int, place: int, length: int, max_records: int, batches: NDArray[np.void]) -> tuple[int, int]:
    """Write the headers; return how many there are, and the place of the first that is corrupt, or -1."""
    records = 0
    for number in range(len(batches)):
        header = address + place
        if records >= max_records or length - place < _PREFIX_BYTES:
            return number, -1
        size = _PREFIX_BYTES + _read_number(header + 8, 4)
        if size > length - place:
            return number, -1  # the broker cuts the last one off where the fetch has its limit
        if size > _MAGIC_AT and load_byte(header + _MAGIC_AT) < MAGIC:
            return number, -1
        if size < HEADER_BYTES:
            return number, place
        batch = batches[number]
        batch.start, batch.end = place, place + size
        batch.base_offset = _read_number(header, 8)
        batch.checksum = _read_number(header + 17, 4) & 0xFFFFFFFF
        batch.attributes = _read_number(header + 21, 2)
        batch.last_offset_delta = _read_number(header + 23, 4)
        batch.first_ms = _read_number(header + 27, 8)
        batch.max_ms = _read_number(header + 35, 8)
        batch.producer_id = _read_number(header + 43, 8)
        batch.records = _read_number(header + 57, 4)
        if batch.records < 0 or batch.last_offset_delta < 0:
            return number, place
        records += batch.records
        place += size
    return len(batches), -1


@compiled
def _read_varint(place: int, end: int) -> tuple[int, int]:
    """Return the number at an address and the address after it, which is 0 if the number does not end before `end`.

    From address 0 on nothing is read, here and below, so that a failure can be looked for once, after many numbers.
    """
    number = 0
    for shift in range(0, 64, 7):
        if place == 0 or place >= end:
            return 0, 0
        byte = load_byte(place)
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return ((number >> 1) & 0x7FFFFFFFFFFFFFFF) ^ -(number & 1), place
    return 0, 0


@compiled
def _read_string(place: int, end: int) -> tuple[int, int, int]:
    """Return start, length (-1: null) and the address after a string; this is 0 if it does not end before `end`."""
    length, place = _read_varint(place, end)
    if place == 0 or length > end - place:
        return 0, 0, 0
    if length < 0:
        return place, -1, place
    return place, length, place + length


@compiled
def _skip_headers(place: int, end: int) -> int:
    """Return the address after a record's headers, 0 if they do not end before `end`."""
    count, place = _read_varint(place, end)
    if place == 0 or count < 0:
        return 0
    for _ in range(count):
        _, length, place = _read_string(place, end)
        if place == 0 or length < 0:
            return 0
        _, _, place = _read_string(place, end)
        if place == 0:
            return 0
    return place


@compiled
def _walk(address: int, batches: NDArray[np.void], position: int, columns: NDArray[np.int64]) -> tuple[int, int]:
    """Write the records from `position` on into the columns.

    Returns how many they are, and the number of the first batch that is corrupt, or -1.
    """
    written = 0
    for number in range(len(batches)):
        batch = batches[number]
        place, stop = address + batch.start + HEADER_BYTES, address + batch.end
        previous = -1
        for _ in range(batch.records):
            length, place = _read_varint(place, stop)
            if place == 0 or length < 1 or length > stop - place:
                return written, number
            end = place + length
            delta_ms, place = _read_varint(place + 1, end)  # after a byte of attributes, of which none is in use
            delta, place = _read_varint(place, end)
            key, key_length, place = _read_string(place, end)
            value, value_length, place = _read_string(place, end)
            if _skip_headers(place, end) != end or delta <= previous or delta > batch.last_offset_delta:
                return written, number
            previous, place = delta, end
            offset = batch.base_offset + delta
            if offset < position:
                continue
            columns[_KEY_STARTS, written] = key - address
            columns[_KEY_LENGTHS, written] = key_length
            columns[_VALUE_STARTS, written] = value - address
            columns[_VALUE_LENGTHS, written] = value_length
            columns[_OFFSETS, written] = offset
            columns[_TIMES, written] = (
                batch.max_ms if batch.attributes & _LOG_APPEND_TIME else batch.first_ms + delta_ms
            )
            written += 1
        if place != stop:
            return written, number
    return written, -1
