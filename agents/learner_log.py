"""What learners read of their own topics when they take over: the last checkpoint, and what was sent since.

`pix-online-model` holds, in one record batch each time, a learner's checkpoint and the snapshot that scorers take.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from app.domain.labelled import LabelledError, decode_labelled
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
    async with _reader(connection, place) as (consumer, start, end):
        for first in dict.fromkeys((max(start, end - _LAST_RECORDS), start)):
            found = None
            async for record in _records(consumer, place, first, end):
                if record.key == CHECKPOINT_KEY and record.value is not None:
                    found = record.value
            if found is not None:
                return _decode(found)
        return None


async def read_places(connection: Mapping[str, Any]) -> dict[int, int]:
    """Read the offset of the last MATURED message by partition of `pix-features`: all before it were sent too."""
    checkpoint = await read_checkpoint(connection)
    places = {} if checkpoint is None else dict(checkpoint.positions)
    place = TopicPartition(LABELLED.name, 0)
    async with _reader(connection, place) as (consumer, start, end):
        first = start if checkpoint is None else min(max(start, checkpoint.next_offset), end)
        async for record in _records(consumer, place, first, end):
            try:
                message = decode_labelled(record.value)
            except LabelledError:
                continue
            if message.kind == "MATURED":
                partition, offset = message.place
                places[partition] = max(places.get(partition, -1), offset)
    return places


@asynccontextmanager
async def _reader(connection: Mapping[str, Any], place: TopicPartition) -> AsyncIterator[tuple[Any, int, int]]:
    consumer = AIOKafkaConsumer(**connection, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        start = (await consumer.beginning_offsets([place]))[place]
        end = (await consumer.end_offsets([place]))[place]
        consumer.assign([place])
        yield consumer, start, end
    finally:
        await consumer.stop()


async def _records(consumer: Any, place: TopicPartition, first: int, end: int) -> AsyncIterator[Any]:  # noqa: ANN401
    consumer.seek(place, first)
    while await consumer.position(place) < end:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            for record in records:
                yield record
