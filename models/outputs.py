"""What a stage has to say about a batch: messages, grouped by topic and partition, ready to be sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.domain.partitioner import partition_of, partitions_of_ids
from app.topics import Topic

__all__ = ["Send", "keyed_sends", "sends_by_id"]


@dataclass(frozen=True, slots=True)
class Send:
    """Messages for one partition, in order."""

    topic: str
    partition: int
    keys: Sequence[bytes | None]
    values: Sequence[bytes]


def sends_by_id(topic: Topic, partitions: int, ids: Sequence[bytes], *columns: Sequence[bytes]) -> list[list[Send]]:
    """Group messages keyed by end_to_end_id; several columns of values share the grouping, one list of sends each."""
    where = partitions_of_ids(np.array(ids, "S32"), partitions)
    order = np.argsort(where, kind="stable").tolist()
    groups: dict[int, list[int]] = {}
    for i in order:
        groups.setdefault(int(where[i]), []).append(i)
    return [
        [
            Send(topic.name, partition, [ids[i] for i in rows], [values[i] for i in rows])
            for partition, rows in groups.items()
        ]
        for values in columns
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
