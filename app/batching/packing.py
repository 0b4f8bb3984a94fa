"""Record batches written by compiled code into the request that carries them: each byte is copied once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from app.batching.unpacking import CHECKED_FROM, HEADER_BYTES, MAGIC, crc32c
from app.domain.byte_column import ByteColumn
from app.domain.memory import compiled, copy_bytes, store

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FRAME_BYTES", "NO_PRODUCER", "Pile", "Records", "Stamp", "warm_up", "write_batches"]

FRAME_BYTES = 8
"""What a produce request says of a record batch in front of it: partition and size."""

_CHECKSUM = Struct(">I")
_CHECKSUM_AT = 17
_AFTER_LENGTH = 12

# Of a record, at most, beside key and value: six numbers of variable length, and two of one byte.
_RECORD_BYTES = 32

# A row of the kernel's tables.
_PARTITION, _COLUMNS, _PRODUCER, _EPOCH, _SEQUENCE = range(5)
_KEYS, _VALUES, _COUNT = range(3)


class Stamp(NamedTuple):
    """What a record batch says of its producer, and by what the partition's leader refuses repeats and the fenced."""

    producer_id: int
    epoch: int
    sequence: int
    """Of the batch's first record, below 2**31."""


NO_PRODUCER = Stamp(-1, -1, -1)
"""Of a producer that is not idempotent."""


@dataclass(frozen=True, slots=True)
class Records:
    """Records for one partition, in order, as columns of equal length.

    Parameters
    ----------
    keys, values
        As Kafka holds them.
    timestamps_ms
        Epoch milliseconds, C-contiguous int64, shape (n,).
    """

    keys: ByteColumn
    values: ByteColumn
    timestamps_ms: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int] | NDArray[np.int64] | int,
    ) -> Records:
        """Return the columns of records; one number is the time of all.

        Raises
        ------
        ValueError
            If the columns have different lengths.
        """
        if isinstance(timestamps_ms, int):
            times = np.full(len(values), timestamps_ms, np.int64)
        else:
            times = np.array(timestamps_ms, np.int64)  # contiguous and writable: compiled code has one signature
        if not len(keys) == len(values) == len(times):
            raise ValueError(
                f"keys, values, timestamps_ms: expected one length, got {len(keys)}, {len(values)}, {len(times)}"
            )
        return cls(ByteColumn.of(keys), ByteColumn.of(values), times)

    def __len__(self) -> int:
        return len(self.timestamps_ms)

    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each record in a batch, at most; shape (n,)."""
        return np.maximum(self.keys.lengths, 0) + np.maximum(self.values.lengths, 0) + _RECORD_BYTES

    def pieces(self, max_bytes: int) -> Iterator[tuple[Records, int]]:
        """Yield the records in parts, each with its bytes: at most so many, unless a single record has more."""
        ends = np.cumsum(self.sizes())
        first = before = 0
        while first < len(ends):
            past = max(int(np.searchsorted(ends, before + max_bytes, "right")), first + 1)
            part = slice(first, past)
            whole = first == 0 and past == len(ends)
            piece = self if whole else Records(self.keys[part], self.values[part], self.timestamps_ms[part].copy())
            yield piece, int(ends[past - 1]) - before
            first, before = past, int(ends[past - 1])


@dataclass(frozen=True, slots=True)
class Pile:
    """What becomes one record batch: at least one record.

    Parameters
    ----------
    partition
        Of the topic.
    parts
        The records, in order.
    stamp
        Of the batch.
    """

    partition: int
    parts: Sequence[Records]
    stamp: Stamp


def write_batches(request: NDArray[np.uint8], place: int, piles: Sequence[Pile]) -> NDArray[np.int64]:
    """Write piles as a produce request lists them, each behind its partition and size: format 2, uncompressed.

    Parameters
    ----------
    request
        Has room for `FRAME_BYTES`, `HEADER_BYTES` and `Records.sizes` of each pile.
    place
        Where to begin.
    piles
        At least one.

    Returns
    -------
    Begin and end of each record batch; shape (n, 2). The list ends where the last batch ends.
    """
    parts = [part for pile in piles for part in pile.parts]
    columns = np.array(
        [(part.keys.buffer.ctypes.data, part.values.buffer.ctypes.data, len(part)) for part in parts], np.int64
    )
    table = np.array([(pile.partition, len(pile.parts), *pile.stamp) for pile in piles], np.int64)
    extents = np.empty((len(piles), 2), np.int64)
    _write(
        request.ctypes.data,
        place,
        table,
        columns,
        _joined([part.keys.starts for part in parts]),
        _joined([part.keys.lengths for part in parts]),
        _joined([part.values.starts for part in parts]),
        _joined([part.values.lengths for part in parts]),
        _joined([part.timestamps_ms for part in parts]),
        extents,
    )
    for begin, end in extents.tolist():
        _CHECKSUM.pack_into(request.data, begin + _CHECKSUM_AT, crc32c(request[begin + CHECKED_FROM : end]))
    return extents


def _joined(columns: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return columns[0] if len(columns) == 1 else np.concatenate(columns)


def warm_up() -> None:
    """Compile what packing needs: seconds without Numba's cache."""
    records = Records.of([b"", None], [b"", None], 0)
    write_batches(np.empty(400, np.uint8), 0, [Pile(0, [records, records], NO_PRODUCER)])


@compiled
def _zigzag(number: int) -> np.uint64:
    return np.uint64((number << 1) ^ (number >> 63))


@compiled
def _varint_size(number: int) -> int:
    left = _zigzag(number) >> np.uint64(7)
    size = 1
    while left:
        left >>= np.uint64(7)
        size += 1
    return size


@compiled
def _write_varint(place: int, number: int) -> int:
    left = _zigzag(number)
    while left > np.uint64(0x7F):
        store(place, np.uint8(left | np.uint64(0x80)))
        left >>= np.uint64(7)
        place += 1
    store(place, np.uint8(left))
    return place + 1


@compiled
def _string_size(length: int) -> int:
    return 1 if length < 0 else _varint_size(length) + length


@compiled
def _write_number(place: int, number: int, size: int) -> int:
    """Write a number as Kafka's protocol has it: the highest byte first."""
    for byte in range(size):
        store(place + byte, np.uint8((number >> (8 * (size - 1 - byte))) & 0xFF))
    return place + size


@compiled
def _write_string(place: int, source: int, length: int) -> int:
    if length < 0:
        return _write_varint(place, -1)
    place = _write_varint(place, length)
    copy_bytes(source, length, place)
    return place + length


@compiled
def _write(
    request: int,
    place: int,
    table: NDArray[np.int64],
    columns: NDArray[np.int64],
    key_starts: NDArray[np.int64],
    key_lengths: NDArray[np.int64],
    value_starts: NDArray[np.int64],
    value_lengths: NDArray[np.int64],
    times: NDArray[np.int64],
    extents: NDArray[np.int64],
) -> None:
    place += request
    column = 0
    row = 0
    for batch in range(len(table)):
        begin = place + FRAME_BYTES
        place = begin + HEADER_BYTES
        first = row
        for _ in range(table[batch, _COLUMNS]):
            keys = columns[column, _KEYS]
            values = columns[column, _VALUES]
            for _ in range(columns[column, _COUNT]):
                delta_ms = times[row] - times[first]
                number = row - first
                body = 2 + _varint_size(delta_ms) + _varint_size(number)
                body += _string_size(key_lengths[row]) + _string_size(value_lengths[row])
                place = _write_varint(place, body)
                store(place, np.uint8(0))  # attributes
                place = _write_varint(place + 1, delta_ms)
                place = _write_varint(place, number)
                place = _write_string(place, keys + key_starts[row], key_lengths[row])
                place = _write_string(place, values + value_starts[row], value_lengths[row])
                store(place, np.uint8(0))  # no headers
                place += 1
                row += 1
            column += 1
        _write_number(begin - FRAME_BYTES, table[batch, _PARTITION], 4)
        _write_number(begin - 4, place - begin, 4)
        _write_header(begin, place - begin, times[first:row], table[batch])
        extents[batch, 0] = begin - request
        extents[batch, 1] = place - request


@compiled
def _write_header(place: int, size: int, times: NDArray[np.int64], stamp: NDArray[np.int64]) -> None:
    """Write a record batch's header; its checksum is still to come."""
    place = _write_number(place, 0, 8)  # the base offset, which the broker assigns
    place = _write_number(place, size - _AFTER_LENGTH, 4)
    place = _write_number(place, -1, 4)  # no leader epoch
    place = _write_number(place, MAGIC, 1)
    place = _write_number(place, 0, 4)  # the checksum
    place = _write_number(place, 0, 2)  # attributes: times are those of creation, nothing is compressed
    place = _write_number(place, len(times) - 1, 4)
    place = _write_number(place, times[0], 8)
    place = _write_number(place, times.max(), 8)
    place = _write_number(place, stamp[_PRODUCER], 8)
    place = _write_number(place, stamp[_EPOCH], 2)
    place = _write_number(place, stamp[_SEQUENCE], 4)
    _write_number(place, len(times), 4)
