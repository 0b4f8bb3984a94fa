"""What a stage has to say about a batch: messages, grouped by topic and partition, ready to be sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.domain.byte_column import ByteColumn
from app.domain.partitioner import partition_of, partitions_of_ids
from app.topics import Topic

__all__ = ["Send", "keyed_sends", "merge", "sends_by_id"]


_MERGED_MOST = 1000
"""Messages of one record batch: joining more would cost what a record batch does."""


@dataclass(frozen=True, slots=True)
class Send:
    """Messages for one partition, in order."""

    topic: str
    partition: int
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]


def merge(batches: Iterable[Iterable[Send]]) -> list[Send]:
    """Put what goes to one partition into one send where it is little; within a partition the order stays."""
    groups: dict[tuple[str, int], list[Send]] = {}
    for sends in batches:
        for send in sends:
            groups.setdefault((send.topic, send.partition), []).append(send)
    merged: list[Send] = []
    for (topic, partition), group in groups.items():
        if len(group) == 1 or sum(len(send.values) for send in group) > _MERGED_MOST:
            merged += group
            continue
        keys = [key for send in group for key in send.keys]
        merged.append(Send(topic, partition, keys, [value for send in group for value in send.values]))
    return merged


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


def keyed_sends(topic: Topic, partitions: int, messages: Sequence[tuple[bytes | None, bytes]]) -> list[Send]:
    """Group messages by their key's partition; a message without a key goes to partition 0."""
    groups: dict[int, list[tuple[bytes | None, bytes]]] = {}
    for key, value in messages:
        groups.setdefault(0 if key is None else partition_of(key, partitions), []).append((key, value))
    return [
        Send(topic.name, partition, [key for key, _ in group], [value for _, value in group])
        for partition, group in groups.items()
    ]
