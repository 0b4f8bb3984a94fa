"""What learners read of their own topics when they take over: the last checkpoint, and what was sent since.

`pix-online-model` holds, in one record batch each time, a learner's checkpoint and the snapshot that scorers take.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiokafka import TopicPartition

from app.domain.labelled import LabelledError, decode_labelled
from app.topic_reading import extent, open_reader, stretches
from app.topics import LABELLED, ONLINE_MODEL

__all__ = ["CHECKPOINT_KEY", "SNAPSHOT_KEY", "Checkpoint", "encode_checkpoint", "read_checkpoint", "read_places"]

CHECKPOINT_KEY = b"checkpoint"
"""Key of what only learners read: it holds a pickle."""

SNAPSHOT_KEY = b"snapshot"
"""Key of what scorers read: `OnlineSnapshot`. They pass over all other keys."""

_LAST_RECORDS = 16
"""The last checkpoint is among so many records, but for claims that nobody lived to use."""


class Checkpoint(msgspec.Struct, frozen=True, array_like=True):
    """A learner between two labels.

    Parameters
    ----------
    version
        Of the snapshot beside it.
    next_offset
        Of `pix-labelled`: all before has been learned.
    positions
        By partition of `pix-features`, the last offset among what has been learned.
    learner
        Its state, compressed.
    """

    version: int
    next_offset: int
    positions: dict[int, int]
    learner: bytes


encode_checkpoint = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Checkpoint).decode


async def read_checkpoint(connection: Mapping[str, Any]) -> Checkpoint | None:
    """Read the last checkpoint of `pix-online-model`, None where there is none.

    Parameters
    ----------
    connection
        Arguments of aiokafka's clients.
    """
    place = TopicPartition(ONLINE_MODEL.name, 0)
    async with open_reader(connection) as consumer:
        begin, end = await extent(consumer, place)
        for first in dict.fromkeys((max(begin, end - _LAST_RECORDS), begin)):
            found = None
            async for stretch in stretches(consumer, place, first, end):
                for key, value in zip(stretch.keys, stretch.values, strict=True):
                    if key == CHECKPOINT_KEY and value is not None:
                        found = value
            if found is not None:
                return _decode(found)
        return None


async def read_places(connection: Mapping[str, Any]) -> dict[int, int]:
    """Read the offset of the last MATURED message by partition of `pix-features`: all before it were sent too."""
    checkpoint = await read_checkpoint(connection)
    places = {} if checkpoint is None else dict(checkpoint.positions)
    place = TopicPartition(LABELLED.name, 0)
    async with open_reader(connection) as consumer:
        begin, end = await extent(consumer, place)
        first = begin if checkpoint is None else min(max(begin, checkpoint.next_offset), end)
        async for stretch in stretches(consumer, place, first, end):
            for value in stretch.values:
                try:
                    message = decode_labelled(value)
                except LabelledError:
                    continue
                if message.kind == "MATURED":
                    partition, offset = message.place
                    places[partition] = max(places.get(partition, -1), offset)
    return places
