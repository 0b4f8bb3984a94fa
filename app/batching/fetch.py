"""The request for records of a broker's partitions, and its answer."""

from collections.abc import Iterator, Mapping
from struct import Struct
from typing import NamedTuple

from faust.types import TP

from app.batching.wire import Answer

__all__ = ["API_KEY", "API_VERSION", "Fetched", "decode_fetch", "encode_fetch"]

API_KEY = 1
# Kafka 0.11 was the first to have it, Kafka 4 still has it; those that came later add nothing that is needed here.
API_VERSION = 4

_REQUEST = Struct(">iiiib")  # replica, max wait, min bytes, max bytes, isolation level
_COUNT = Struct(">i")
_LENGTH = Struct(">h")
_ASKED = Struct(">iqi")  # partition, position, max bytes
_TOLD = Struct(">ihqqi")  # partition, error, high water mark, last stable offset, aborted transactions
_ABORTED = Struct(">qq")  # producer, its first offset
_THROTTLE_BYTES = 4


class Fetched(NamedTuple):
    """What an answer has of one partition."""

    tp: TP
    error_code: int
    highwater: int
    aborted: list[tuple[int, int]]
    """Producer and first offset of each transaction that was aborted."""
    records: memoryview
    """Record batches, the last of which may be cut off."""


def encode_fetch(
    positions: Mapping[TP, int],
    *,
    head_bytes: int,
    max_wait_ms: int,
    min_bytes: int,
    max_bytes: int,
    partition_max_bytes: int,
    isolation_level: int,
) -> memoryview:
    """Return a Fetch request, behind `head_bytes` free bytes.

    Partitions keep their order: the broker fills an answer from the first on, until it has `max_bytes`.
    """
    request = bytearray(head_bytes)
    request += _REQUEST.pack(-1, max_wait_ms, min_bytes, max_bytes, isolation_level)
    topics_at = len(request)
    request += _COUNT.pack(0)
    topics = partitions = partitions_at = 0
    current = None
    for (topic, partition), position in positions.items():
        if topic != current:
            if current is not None:
                _COUNT.pack_into(request, partitions_at, partitions)
            name = topic.encode()
            request += _LENGTH.pack(len(name))
            request += name
            current, partitions, partitions_at = topic, 0, len(request)
            topics += 1
            request += _COUNT.pack(0)
        request += _ASKED.pack(partition, position, partition_max_bytes)
        partitions += 1
    if current is not None:
        _COUNT.pack_into(request, partitions_at, partitions)
    _COUNT.pack_into(request, topics_at, topics)
    return memoryview(request)


def decode_fetch(answer: Answer) -> Iterator[Fetched]:
    """Yield the partitions of an answer to `encode_fetch`; their records stay where they are."""
    (topics,) = _COUNT.unpack_from(answer, _THROTTLE_BYTES)
    place = _THROTTLE_BYTES + _COUNT.size
    for _ in range(topics):
        (length,) = _LENGTH.unpack_from(answer, place)
        place += _LENGTH.size
        topic = str(answer[place : place + length], "utf-8")
        place += length
        (partitions,) = _COUNT.unpack_from(answer, place)
        place += _COUNT.size
        for _ in range(partitions):
            partition, error_code, highwater, _, transactions = _TOLD.unpack_from(answer, place)
            place += _TOLD.size
            aborted = []
            for _ in range(transactions):  # -1 where there is no list
                aborted.append(_ABORTED.unpack_from(answer, place))
                place += _ABORTED.size
            (size,) = _COUNT.unpack_from(answer, place)
            place += _COUNT.size
            end = place + max(0, size)
            yield Fetched(TP(topic, partition), error_code, highwater, aborted, answer[place:end])
            place = end
