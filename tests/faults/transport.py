"""What stands in for Faust: streams of batches, the app that agents register on, and the table's changelog."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.domain.records import Stretch
from app.topics import PAYERS_TABLE, RECEIVERS_TABLE, changelog

from .log import TopicPartition

if TYPE_CHECKING:
    from .worker import Worker

__all__ = ["CHANGELOGS", "App", "Changelog", "Event", "Stream"]

CHANGELOGS = {table: changelog("pixguard", table).name for table in (RECEIVERS_TABLE, PAYERS_TABLE)}


@dataclass(slots=True)
class _Message:
    partition: int


class Event:
    """A batch on its way through an agent: what `BatchMessage` and Faust's event are together."""

    def __init__(self, worker: Worker, where: TopicPartition, batch: Stretch) -> None:
        self.value = batch
        self.where = where
        self.message = _Message(where[1])
        self.records = len(batch.values)
        self.next_offset = batch.next_offset
        self.tracked = False
        self.acked = False
        self._worker = worker
        self._progress = worker.progress[where]

    def ack(self) -> bool:
        """Let the source's offset move behind the batch."""
        if self.acked:
            return False
        self.acked = True
        self._worker.world.witness.acknowledged(self._worker, self.where, self.value)
        self._progress.advance()
        return True


class Stream:
    """The batches of one agent."""

    def __init__(self, worker: Worker) -> None:
        self.queue: deque[Event] = deque()
        self.current: Event | None = None
        self._worker = worker
        self._arrived = asyncio.Event()

    def noack(self) -> Stream:
        """Nothing is acknowledged by itself."""
        return self

    def events(self) -> Stream:
        """Return the batches, for ever."""
        return self

    def put(self, event: Event) -> None:
        """Add a batch."""
        self.queue.append(event)
        self._arrived.set()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Event:
        self.current = None
        while not self.queue:
            self._arrived.clear()
            await self._arrived.wait()
        self.current = self.take()
        return self.current

    def take(self) -> Event:
        """Take the batch that comes next."""
        event = self.queue.popleft()
        event.tracked = True
        self._worker.wake.set()
        return event


class App:
    """What the agents and the outbox use of `app.batching.BatchApp`."""

    def __init__(self, worker: Worker) -> None:
        self.batch_producer = worker.producer
        self.streams: dict[str, Stream] = {}
        self.actors: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._worker = worker

    def topic(self, name: str, **_options: object) -> str:
        """Name a topic."""
        return name

    def agent(self, topic: str, *, name: str) -> Callable[[Callable[[Any], Awaitable[None]]], None]:
        """Register an agent."""

        def register(function: Callable[[Any], Awaitable[None]]) -> None:
            stream = self.streams[topic] = Stream(self._worker)

            async def act() -> None:
                await function(stream)
                raise RuntimeError(f"agent {name} returned")

            self.actors.append(act)

        return register

    async def rounds(self, stream: Stream) -> AsyncIterator[list[Event]]:
        """Yield what waits, at most one batch of a partition."""
        async for event in stream.noack().events():
            events = [event]
            while stream.queue and stream.queue[0].where not in {each.where for each in events}:
                events.append(stream.take())
            yield events

    async def crash(self, error: BaseException) -> None:
        """Stop the worker: what it is made of goes on for a moment, until it is stopped piece by piece."""
        self._worker.crash(error)


class Changelog:
    """Checkpoints of one table, appended under the epochs that this worker was given."""

    def __init__(self, worker: Worker, table: str) -> None:
        self.epochs: dict[int, int] = {}
        self._worker = worker
        self._table = table

    async def append(self, partition: int, keys: Sequence[bytes], values: Sequence[bytes | None]) -> int:
        """Append one checkpoint as one record batch; the offset of its last record."""
        now_ms, epoch = self._worker.machine.clock.now_ms(), self.epochs.get(partition, 0)
        sent = self._worker.producer.send_records(
            CHANGELOGS[self._table], partition, keys, values, now_ms, atomic=True, epoch=epoch
        )
        return await sent + len(keys) - 1

    async def crash(self, error: BaseException) -> None:
        """Stop the worker."""
        self._worker.crash(error)
