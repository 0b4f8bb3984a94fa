"""A client of the broker, and an app that keeps a record of what it was given."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from itertools import count
from typing import Any, Protocol, cast
from uuid import uuid4

import faust
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from faust.tables.manager import TableManager
from faust.types import TP

from app.batching import Batch, BatchApp, BatchSchema
from app.batching.produce import PRODUCE
from app.batching.wire import Answer, Wire

Until = Callable[[Callable[[], bool]], Awaitable[None]]
"""Waits until something is true; fails after ten seconds."""

Meddler = Callable[[int, Callable[[], asyncio.Future[Answer]]], Coroutine[Any, Any, Answer]]
"""Stands between producers and brokers: is given a request's number and what sends it, and returns the answer."""


def meddle(monkeypatch: pytest.MonkeyPatch, meddler: Meddler) -> None:
    """Let all produce requests of whole batches go through the meddler, from now on."""
    send, numbers = Wire.send, count()

    def sent(wire: Wire, api_key: int, api_version: int, request: memoryview) -> asyncio.Future[Answer]:
        if api_key != PRODUCE:
            return send(wire, api_key, api_version, request)
        return asyncio.ensure_future(meddler(next(numbers), lambda: send(wire, api_key, api_version, request)))

    monkeypatch.setattr(Wire, "send", sent)


class Cluster:
    """A client of the broker."""

    def __init__(self, bootstrap: str, admin: AIOKafkaAdminClient, producer: AIOKafkaProducer) -> None:
        self.bootstrap = bootstrap
        self._admin = admin
        self._producer = producer

    async def create(self, partitions: int = 1, **config: str) -> str:
        """Create a topic of a new name; `config` has underscores for dots."""
        name = f"batching-{uuid4().hex[:10]}"
        options = {key.replace("_", "."): value for key, value in config.items()}
        # Records' times here are small numbers, so of 1970: retention would delete them half a minute after the start.
        options.setdefault("retention.ms", "-1")
        await self._admin.create_topics([NewTopic(name, partitions, 1, topic_configs=options)])
        return name

    async def fill(self, topic: str, partition: int, numbers: range, **options: Any) -> None:  # noqa: ANN401
        """Send each number as a record, in record batches of 100."""
        for first in range(numbers.start, numbers.stop, 100):
            builder = self._producer.create_batch()
            for number in range(first, min(first + 100, numbers.stop)):
                builder.append(timestamp=number, key=b"%d" % number, value=b"%d" % number, **options)
            builder.close()
            await (await self._producer.send_batch(builder, topic, partition=partition))

    async def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Delete records as retention does."""
        await self._admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before_offset=offset)})

    async def committed(self, group: str, topic: str) -> dict[int, int]:
        """Return the group's committed offset of each partition that has one."""
        offsets = await self._admin.list_consumer_group_offsets(group)
        return {tp.partition: found.offset for tp, found in offsets.items() if tp.topic == topic}

    async def read(self, topic: str, partitions: int = 1) -> list[Any]:
        """Return all committed and uncommitted records of a topic."""
        tps = [TopicPartition(topic, partition) for partition in range(partitions)]
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            consumer.assign(tps)
            ends = await consumer.end_offsets(tps)
            records: list[Any] = []
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                fetched = await consumer.getmany(timeout_ms=200)
                records += [record for part in fetched.values() for record in part]
            return records
        finally:
            await consumer.stop()


class RecordingApp(BatchApp):
    """Keeps what its agent was given, and acknowledges it when told to or at a handover.

    `journal` tells in which order the app was asked to prepare (``assign``), given batches (``batch``) and asked to
    finish (``revoke``).
    """

    def __init__(self, group: str, source: str, **options: Any) -> None:  # noqa: ANN401
        super().__init__(group, **options)
        self.source = source
        self.batches: list[Batch] = []
        self.steps: list[list[Batch]] = []
        self.held: list[Any] = []
        self.journal: list[str] = []
        self.may_process = asyncio.Event()
        self.may_process.set()
        self.agent(self.topic(source, schema=BatchSchema()), name="recorder")(self.record)

    async def record(self, stream: Any) -> None:  # noqa: ANN401
        """Keep each batch."""
        async for events in self.rounds(stream):
            await self.may_process.wait()
            self.steps.append([event.value for event in events])
            for event in events:
                self.journal.append("batch")
                self.batches.append(event.value)
                self.held.append(event)

    def ack_all(self) -> None:
        """Acknowledge, last first: the order must not matter."""
        while self.held:
            self.held.pop().ack()

    async def after_assign(self, assigned: set[TP]) -> None:  # noqa: ARG002  (the hook's signature)
        """Take a while, so that a batch could overtake."""
        await asyncio.sleep(0.15)
        self.journal.append("assign")

    async def before_revoke(self, revoked: set[TP]) -> None:  # noqa: ARG002  (the hook's signature)
        """Take a while, and acknowledge everything."""
        self.journal.append("revoke")
        await asyncio.sleep(0.05)
        self.ack_all()

    def numbers(self) -> list[int]:
        """Return the delivered numbers, in order of delivery."""
        return [int(value) for batch in self.batches for value in batch.values if value is not None]


class RestoredTable(faust.Table[bytes, bytes]):
    """A table that keeps what recovery gave it, by partition: offsets and values of its changelog."""

    def __init__(self, app: BatchApp, changelog: str, partitions: int) -> None:
        topic = app.topic(changelog, schema=BatchSchema(), acks=False)
        super().__init__(
            app, name=changelog, partitions=partitions, changelog_topic=topic, store="memory://", recovery_buffer_size=2
        )
        self.batch_app = app
        self.seconds_per_batch = 0.0
        self.batches: list[Batch] = []

    async def on_changelog_event(self, event: Any) -> None:  # noqa: ANN401, ARG002  (the hook's signature)
        """Take a while, so that a queue builds up."""
        await asyncio.sleep(self.seconds_per_batch)

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        """Keep the batches."""
        self.batches += [event.value for event in batch]

    def offsets(self, partition: int) -> list[int]:
        """Return the offsets that were applied, in order, including those that Faust still holds back."""
        cast("TableManager", self.batch_app.tables).recovery.flush_buffers()
        return [offset for batch in self.batches if batch.tp.partition == partition for offset in batch.offsets]


class MakeApp(Protocol):
    """Makes an app on the session's broker, not yet started."""

    def __call__(self, source: str, *, group: str = "", **options: Any) -> RecordingApp:  # noqa: ANN401
        """Make it; the group is new unless named."""
