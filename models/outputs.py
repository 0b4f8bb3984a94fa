"""What a stage has to say about a batch: messages, grouped by topic and partition, ready to be sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.domain.byte_column import ByteColumn, bytes_of
from app.domain.partitioner import partition_of, partitions_of_ids
from app.topics import Topic

__all__ = ["Send", "keyed_sends", "merge", "sends_by_id"]


_MERGED_BYTES = 900_000
"""Values of one send that others were put into, at most: what goes into one record batch."""


@dataclass(frozen=True, slots=True)
class Send:
    """Messages for one partition, in order."""

    topic: str
    partition: int
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]


def merge(batches: Iterable[Iterable[Send]]) -> list[Send]:
    """Put what goes to one partition into as few sends as record batches are needed; there the order stays.

    A partition has one record batch on its way, so those that wait for each other should be few.
    """
    groups: dict[tuple[str, int], list[list[Send]]] = {}
    sizes: dict[tuple[str, int], int] = {}
    for sends in batches:
        for send in sends:
            place, size = (send.topic, send.partition), bytes_of(send.values)
            if place in groups and sizes[place] + size <= _MERGED_BYTES:
                groups[place][-1].append(send)
                sizes[place] += size
            else:
                groups.setdefault(place, []).append([send])
                sizes[place] = size
    return [_joined(group) for parts in groups.values() for group in parts]


def _joined(group: Sequence[Send]) -> Send:
    if len(group) == 1:
        return group[0]
    keys, values = ([ByteColumn.of(getattr(send, name)) for send in group] for name in ("keys", "values"))
    return Send(group[0].topic, group[0].partition, ByteColumn.joined(keys), ByteColumn.joined(values))


def sends_by_id(
    topics: Sequence[Topic], partitions: int, ids: NDArray[np.bytes_], columns: Sequence[Sequence[bytes | None]]
) -> list[list[Send]]:
    """Group messages by end_to_end_id, their key (S32, shape (n,)): one column of values and list of sends a topic."""
    where = partitions_of_ids(ids, partitions)
    keys = ByteColumn.fixed(ids)
    groups = [(int(partition), np.flatnonzero(where == partition)) for partition in np.unique(where)]
    sends = []
    for topic, column in zip(topics, columns, strict=True):
        values = ByteColumn.of(column)
        sends.append([Send(topic.name, to, keys.take(rows), values.take(rows)) for to, rows in groups])
    return sends


def keyed_sends(topic: Topic, partitions: int, messages: Iterable[tuple[bytes | None, bytes]]) -> list[Send]:
    """Group messages by their key's partition; a message without a key goes to partition 0."""
    groups: dict[int, list[tuple[bytes | None, bytes]]] = {}
    for key, value in messages:
        groups.setdefault(0 if key is None else partition_of(key, partitions), []).append((key, value))
    return [
        Send(topic.name, partition, [key for key, _ in group], [value for _, value in group])
        for partition, group in groups.items()
    ]
