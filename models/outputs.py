"""What a stage has to say about a batch: messages, grouped by topic and partition, ready to be sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from app.domain.partitioner import partition_of, partitions_of_ids
from app.topics import Topic

__all__ = ["Send", "keyed_sends", "merge", "sends_by_id"]


@dataclass(frozen=True, slots=True)
class Send:
    """Messages for one partition, in order."""

    topic: str
    partition: int
    keys: Sequence[bytes | None]
    values: Sequence[bytes]


def merge(batches: Iterable[Iterable[Send]]) -> list[Send]:
    """Put what goes to one partition into one send; within a partition the order stays."""
    groups: dict[tuple[str, int], list[Send]] = {}
    for sends in batches:
        for send in sends:
            groups.setdefault((send.topic, send.partition), []).append(send)
    return [
        group[0]
        if len(group) == 1
        else Send(
            topic,
            partition,
            [key for send in group for key in send.keys],
            [value for send in group for value in send.values],
        )
        for (topic, partition), group in groups.items()
    ]


def sends_by_id(
    topics: Sequence[Topic], partitions: int, ids: Sequence[bytes], columns: Sequence[Sequence[bytes]]
) -> list[list[Send]]:
    """Group messages keyed by end_to_end_id: one column of values per topic, one list of sends each."""
    where = partitions_of_ids(np.array(ids, "S32"), partitions)
    groups = {int(partition): np.flatnonzero(where == partition).tolist() for partition in np.unique(where)}
    return [
        [
            Send(topic.name, partition, [ids[i] for i in rows], [values[i] for i in rows])
            for partition, rows in groups.items()
        ]
        for topic, values in zip(topics, columns, strict=True)
    ]


def keyed_sends(topic: Topic, partitions: int, messages: Sequence[tuple[bytes | None, bytes]]) -> list[Send]:
    """Group messages by their key's partition; a message without a key goes to partition 0."""
    groups: dict[int, list[tuple[bytes | None, bytes]]] = {}
    for key, value in messages:
        groups.setdefault(0 if key is None else partition_of(key, partitions), []).append((key, value))
    return [
        Send(topic.name, partition, [key for key, _ in group], [value for _, value in group])
        for partition, group in groups.items()
    ]
