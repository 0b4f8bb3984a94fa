"""Kafka's produce request, written into the one buffer that goes out, and its answer: version 3, from Kafka 0.11."""

from collections.abc import Iterable, Mapping, Sequence
from struct import Struct

import numpy as np
from aiokafka.structs import TopicPartition
from numpy.typing import NDArray

from app.batching.packing import FRAME_BYTES, Pile, write_batches
from app.batching.unpacking import HEADER_BYTES

__all__ = ["PRODUCE", "VERSION", "read_answer", "write_again", "write_new"]

PRODUCE = 0
VERSION = 3

_NO_TRANSACTION = -1
_ALL_REPLICAS = -1

_INT = Struct(">i")
_BODY = Struct(">hhii")
_NAME = Struct(">h")
_FRAME = Struct(">ii")
_BLOCK = Struct(">ihqq")


def write_new(
    head_bytes: int, timeout_ms: int, topics: Mapping[str, Sequence[Pile]]
) -> tuple[memoryview, list[memoryview]]:
    """Write a request of new record batches.

    Parameters
    ----------
    head_bytes
        Left free at its start.
    timeout_ms
        How long a leader may take until all replicas have a batch.
    topics
        By topic, what becomes a record batch each; of different partitions.

    Returns
    -------
    The request, and in it the record batches, in the order of `topics`.
    """
    piles = [pile for group in topics.values() for pile in group]
    size = sum(int(part.sizes().sum()) for pile in piles for part in pile.parts) + HEADER_BYTES * len(piles)
    room, place = _begin(head_bytes, timeout_ms, topics, size + FRAME_BYTES * len(piles))
    request = room.data
    batches = []
    for topic, group in topics.items():
        extents = write_batches(room, _write_topic(request, place, topic, len(group)), group).tolist()
        batches += [request[begin:end] for begin, end in extents]
        place = extents[-1][1]
    return request[:place], batches


def write_again(head_bytes: int, timeout_ms: int, topics: Mapping[str, Sequence[tuple[int, memoryview]]]) -> memoryview:
    """Write a request of record batches as they were sent before: by topic, partition and batch."""
    size = sum(FRAME_BYTES + len(batch) for group in topics.values() for _, batch in group)
    room, place = _begin(head_bytes, timeout_ms, topics, size)
    request = room.data
    for topic, group in topics.items():
        place = _write_topic(request, place, topic, len(group))
        for partition, batch in group:
            _FRAME.pack_into(request, place, partition, len(batch))
            place += FRAME_BYTES
            request[place : place + len(batch)] = batch
            place += len(batch)
    return request


def read_answer(answer: memoryview) -> dict[TopicPartition, tuple[int, int]]:
    """Return error code and base offset of each partition."""
    blocks = {}
    (topics,) = _INT.unpack_from(answer, 0)
    place = _INT.size
    for _ in range(topics):
        (length,) = _NAME.unpack_from(answer, place)
        place += _NAME.size
        topic = bytes(answer[place : place + length]).decode()
        place += length
        (partitions,) = _INT.unpack_from(answer, place)
        place += _INT.size
        for _ in range(partitions):
            partition, code, offset, _ = _BLOCK.unpack_from(answer, place)
            place += _BLOCK.size
            blocks[TopicPartition(topic, partition)] = code, offset
    return blocks


def _begin(head_bytes: int, timeout_ms: int, topics: Iterable[str], size: int) -> tuple[NDArray[np.uint8], int]:
    """Return room for a request, and where in it the first topic belongs; `size` is that of all record batches."""
    names = [topic.encode() for topic in topics]
    framing = sum(_NAME.size + len(name) + _INT.size for name in names)
    room = np.empty(head_bytes + _BODY.size + framing + size, np.uint8)
    _BODY.pack_into(room.data, head_bytes, _NO_TRANSACTION, _ALL_REPLICAS, timeout_ms, len(names))
    return room, head_bytes + _BODY.size


def _write_topic(request: memoryview, place: int, topic: str, partitions: int) -> int:
    name = topic.encode()
    _NAME.pack_into(request, place, len(name))
    place += _NAME.size
    request[place : place + len(name)] = name
    place += len(name)
    _INT.pack_into(request, place, partitions)
    return place + _INT.size
