"""Stretches of a topic, read by a client of its own: what commands and takeovers look up beside the stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from app.domain.records import Stretch

__all__ = ["extent", "open_reader", "stretches"]

_MOST_RECORDS = 2_000
_POLL_MS = 500


@asynccontextmanager
async def open_reader(connection: Mapping[str, Any]) -> AsyncIterator[AIOKafkaConsumer]:
    """Open a consumer without a group, for `stretches`.

    Parameters
    ----------
    connection
        Arguments of aiokafka's clients.
    """
    consumer = AIOKafkaConsumer(**connection, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def extent(consumer: AIOKafkaConsumer, place: TopicPartition) -> tuple[int, int]:
    """Return where a partition begins, and where it ends now."""
    begin = (await consumer.beginning_offsets([place]))[place]
    end = (await consumer.end_offsets([place]))[place]
    return int(begin), int(end)


async def stretches(consumer: AIOKafkaConsumer, place: TopicPartition, first: int, past: int) -> AsyncIterator[Stretch]:
    """Yield what a partition holds from offset `first` on and before `past`, some thousand records at a time.

    Holes are part of a stretch: the last one ends at `past`, whatever compaction has removed.
    """
    if first >= past:
        return
    consumer.assign([place])
    consumer.seek(place, first)
    base = first
    while base < past:
        most = min(past - base, _MOST_RECORDS)
        fetched = await consumer.getmany(place, timeout_ms=_POLL_MS, max_records=most)
        records = [record for record in fetched.get(place, []) if record.offset < past]
        position = min(await consumer.position(place), past)
        if position > base:
            yield Stretch(
                base,
                position,
                [record.key for record in records],
                [record.value for record in records],
                [record.offset for record in records],
                [record.timestamp for record in records],
            )
        base = position
