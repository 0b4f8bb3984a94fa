"""What a stage has to say about a batch: messages, grouped by topic and partition, ready to be sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.domain.byte_column import ByteColumn
from app.domain.partitioner import partition_of, partitions_of_ids
from app.topics import Topic

__all__ = ["Send", "keyed_sends", "sends_by_id"]


@dataclass(frozen=True, slots=True)
class Send:
    """Messages for one partition, in order."""

    topic: str
    partition: int
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]


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
