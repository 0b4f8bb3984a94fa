"""Record batches put together by compiled code: no object and no interpreter step per record."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, cast

import numpy as np
from aiokafka.producer.message_accumulator import BatchBuilder
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from app.batching.unpacking import CHECKED_FROM, HEADER_BYTES, MAGIC, crc32c
from app.domain.byte_column import ByteColumn
from app.domain.memory import compiled, store

if TYPE_CHECKING:
    from numba.core.base import BaseContext
    from numba.core.typing.templates import Signature
    from numpy.typing import NDArray

__all__ = ["PackedBatch", "PackedRecords", "pack", "warm_up"]

_HEADER = Struct(">qiibIhiqqqhii")
_AFTER_LENGTH = 12
_CREATE_TIME_UNCOMPRESSED = 0
_NO_LEADER_EPOCH = -1
_NO_PRODUCER = (-1, -1, 0)
_CHECKSUM = Struct(">I")
_CHECKSUM_AT = 17
_PRODUCER = Struct(">qhi")
_PRODUCER_AT = 43
_LAST_SEQUENCE = 2**31 - 1

# A row of the kernel's table of record batches.
_FIRST, _SIZE, _MAX_MS = range(3)


class PackedRecords:
    """One record batch, complete but for its producer and its checksum.

    Attributes
    ----------
    record_count
        At least 1.
    max_timestamp_ms
        Latest timestamp of the records, epoch milliseconds.
    """

    __slots__ = ("_data", "max_timestamp_ms", "record_count")

    def __init__(self, data: bytearray, record_count: int, max_timestamp_ms: int) -> None:
        self._data = data
        self.record_count = record_count
        self.max_timestamp_ms = max_timestamp_ms

    @property
    def size(self) -> int:
        """Bytes of the batch, header included."""
        return len(self._data)

    def seal(self, producer_id: int, epoch: int, base_sequence: int) -> bytearray:
        """Name the producer, and return the batch as Kafka takes it.

        Parameters
        ----------
        producer_id, epoch
            Of an idempotent producer; -1 and -1 for another.
        base_sequence
            Of the first record, below 2**31; of no meaning without a producer id.

        Returns
        -------
        bytearray
            The batch itself and no copy: sealing it again changes it.
        """
        _PRODUCER.pack_into(self._data, _PRODUCER_AT, producer_id, epoch, base_sequence)
        checksum = crc32c(np.frombuffer(self._data, np.uint8)[CHECKED_FROM:])
        _CHECKSUM.pack_into(self._data, _CHECKSUM_AT, checksum)
        return self._data


def pack(
    keys: ByteColumn, values: ByteColumn, timestamps_ms: NDArray[np.int64], *, max_bytes: int
) -> list[PackedRecords]:
    """Put records, in order, into as few record batches as possible: format 2, uncompressed, without headers.

    Parameters
    ----------
    keys, values
        The records, n of each.
    timestamps_ms
        Their times, epoch milliseconds, shape (n,).
    max_bytes
        What a batch may have; a record that is larger has a batch of its own.

    Raises
    ------
    ValueError
        If the columns have different lengths.
    """
    if not len(keys) == len(values) == len(timestamps_ms):
        sizes = f"{len(keys)}, {len(values)}, {len(timestamps_ms)}"
        raise ValueError(f"keys, values, timestamps_ms: expected one length, got {sizes}")
    times = np.array(timestamps_ms, np.int64)  # contiguous and writable: compiled code has one signature
    bodies = np.empty(len(times), np.int64)
    table = np.empty((len(times) + 1, 3), np.int64)
    batches = _plan(keys.lengths, values.lengths, times, HEADER_BYTES, max_bytes, bodies, table)
    packed = []
    for number, (first, size, max_ms) in enumerate(table[:batches].tolist()):
        last = int(table[number + 1, _FIRST])
        data = bytearray(size)
        _HEADER.pack_into(
            data,
            0,
            0,  # the base offset, which the broker assigns
            size - _AFTER_LENGTH,
            _NO_LEADER_EPOCH,
            MAGIC,
            0,  # the checksum, by `seal`
            _CREATE_TIME_UNCOMPRESSED,
            last - first - 1,
            int(times[first]),
            max_ms,
            *_NO_PRODUCER,
            last - first,
        )
        _write(
            np.frombuffer(data, np.uint8).ctypes.data + HEADER_BYTES,
            keys.buffer.ctypes.data,
            keys.starts[first:last],
            keys.lengths[first:last],
            values.buffer.ctypes.data,
            values.starts[first:last],
            values.lengths[first:last],
            times[first:last],
            bodies[first:last],
        )
        packed.append(PackedRecords(data, last - first, max_ms))
    return packed


class PackedBatch(BatchBuilder):  # type: ignore[misc]  # aiokafka is untyped
    """Packed records in the form that ``AIOKafkaProducer.send_batch`` takes. It is closed: nothing can be appended.

    Parameters
    ----------
    records
        The record batch, which is this object's from now on.
    stamp
        Producer id, epoch and first sequence that it carries, instead of those of the producer which sends it.
    """

    def __init__(self, records: PackedRecords, stamp: tuple[int, int, int] | None = None) -> None:
        super().__init__(records.size, 0)
        self._records = records
        self._stamp = stamp
        self._producer = stamp or _NO_PRODUCER
        self._sealed: bytearray | None = None
        self._relative_offset = records.record_count
        self.close()

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        # aiokafka's sequences go on below zero after 2**31 - 1; the broker expects zero there, and refuses the rest.
        self._producer = self._stamp or (producer_id, producer_epoch, base_sequence & _LAST_SEQUENCE)

    def _build(self) -> bytearray:
        # A retry must send the same bytes, by which the broker knows it.
        if self._sealed is None:
            self._sealed = self._records.seal(*self._producer)
        return self._sealed

    def size(self) -> int:
        """Bytes of the batch."""
        return self._records.size


def warm_up() -> None:
    """Compile what packing needs: seconds without Numba's cache."""
    column = ByteColumn.from_list([b"", None])
    pack(column, column, np.zeros(2, np.int64), max_bytes=HEADER_BYTES)


def _copy_bytes(
    _typing: BaseContext, target: types.Type, source: types.Type, length: types.Type
) -> tuple[Signature, Callable[..., ir.Value]]:
    def generate(
        context: BaseContext, builder: ir.IRBuilder, _signature: Signature, arguments: list[ir.Value]
    ) -> ir.Value:
        pointers = [builder.inttoptr(address, cgutils.voidptr_t) for address in arguments[:2]]
        cgutils.raw_memcpy(builder, pointers[0], pointers[1], arguments[2], 1)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()  # type: ignore[no-untyped-call]

    return types.void(target, source, length), generate


_copy = cast("Callable[[int, int, int], None]", intrinsic(_copy_bytes))
"""Copy bytes from one address to another, as many as the last argument says; the two do not overlap."""


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
def _write_string(place: int, source: int, length: int) -> int:
    if length < 0:
        return _write_varint(place, -1)
    place = _write_varint(place, length)
    _copy(place, source, length)
    return place + length


@compiled
def _plan(
    key_lengths: NDArray[np.int64],
    value_lengths: NDArray[np.int64],
    times: NDArray[np.int64],
    header_bytes: int,
    max_bytes: int,
    bodies: NDArray[np.int64],
    table: NDArray[np.int64],
) -> int:
    """Find the size of each record without its length, and what each batch holds; return how many batches there are.

    The row after the last batch's says where the records end.
    """
    batches = 0
    first = 0
    size = header_bytes
    for record in range(len(times)):
        strings = _string_size(key_lengths[record]) + _string_size(value_lengths[record])
        delta_ms = times[record] - times[first]
        # Attributes and the count of headers have a byte each.
        body = 2 + _varint_size(delta_ms) + _varint_size(record - first) + strings
        if record == 0 or size + _varint_size(body) + body > max_bytes:
            first = record
            size = header_bytes
            body = 4 + strings  # both deltas are zero
            table[batches, _FIRST] = first
            table[batches, _MAX_MS] = times[record]
            batches += 1
        bodies[record] = body
        size += _varint_size(body) + body
        table[batches - 1, _SIZE] = size
        table[batches - 1, _MAX_MS] = max(table[batches - 1, _MAX_MS], times[record])
    table[batches, _FIRST] = len(times)
    return batches


@compiled
def _write(
    place: int,
    keys: int,
    key_starts: NDArray[np.int64],
    key_lengths: NDArray[np.int64],
    values: int,
    value_starts: NDArray[np.int64],
    value_lengths: NDArray[np.int64],
    times: NDArray[np.int64],
    bodies: NDArray[np.int64],
) -> None:
    """Write the records of one batch to an address, after which there is room for what `_plan` found."""
    for record in range(len(times)):
        place = _write_varint(place, bodies[record])
        store(place, np.uint8(0))  # attributes
        place = _write_varint(place + 1, times[record] - times[0])
        place = _write_varint(place, record)
        place = _write_string(place, keys + key_starts[record], key_lengths[record])
        place = _write_string(place, values + value_starts[record], value_lengths[record])
        store(place, np.uint8(0))  # no headers
        place += 1
