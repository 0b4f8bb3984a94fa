"""What `pixguard send` and `pixguard simulate` begin with: topics that exist, a producer, and Ctrl-C as a wish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer

from app.topics import Topic
from ops.bulk_sender import open_producer, require_topics
from ops.interrupt import stop_on_interrupt

__all__ = ["open_feed"]


@asynccontextmanager
async def open_feed(
    connection: dict[str, Any], topics: Sequence[Topic]
) -> AsyncGenerator[tuple[AIOKafkaProducer, asyncio.Event]]:
    """Give a started producer for `BulkSender`, and an event that the first Ctrl-C or SIGTERM sets.

    Parameters
    ----------
    connection
        From `client_options`.
    topics
        They must exist.

    Raises
    ------
    SendError
        When the cluster lacks one of the topics.
    aiokafka.errors.KafkaConnectionError
        When the cluster cannot be reached.
    """
    with stop_on_interrupt() as stopped:
        await require_topics(connection, topics)
        async with open_producer(connection) as producer:
            yield producer, stopped
