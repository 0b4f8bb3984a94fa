"""What is in a real cluster's topics, read whole by a plain consumer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from app.domain.records import Stretch
from app.settings import Settings
from app.topics import ENRICHED, FEEDBACK, MARKERS, TRANSACTIONS, topics
from tests.workers import read_records

__all__ = ["Places", "behind", "read_logs"]

Places = Mapping[tuple[str, int], Stretch]
"""The whole log of each partition, by topic and number."""

_SOURCES = (TRANSACTIONS, ENRICHED, FEEDBACK, MARKERS)


async def read_logs(connection: Mapping[str, Any], settings: Settings) -> Places:
    """Read all topics of an installation, from their beginning to where they end now."""
    places = [
        TopicPartition(topic.name, partition)
        for topic in topics(settings.app_id)
        for partition in range(topic.partitions or settings.partitions)
    ]
    found = await read_records(connection, places)
    return {(place.topic, place.partition): _stretch(held, end) for place, (held, end) in found.items()}


def _stretch(held: Sequence[Any], end: int) -> Stretch:
    return Stretch(
        0,
        end,
        [record.key for record in held],
        [record.value for record in held],
        [record.offset for record in held],
        [record.timestamp for record in held],
    )


async def behind(admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, settings: Settings) -> dict[str, int]:
    """Return how many records of each source partition are not committed by the workers, where there are any."""
    places = [TopicPartition(topic.name, partition) for topic in _SOURCES for partition in range(settings.partitions)]
    committed, ends = await asyncio.gather(
        admin.list_consumer_group_offsets(settings.app_id), consumer.end_offsets(places)
    )
    left = {place: ends[place] - (committed[place].offset if place in committed else 0) for place in places}
    return {f"{place.topic}-{place.partition}": lag for place, lag in left.items() if lag != 0}
