"""The one place that sends: outputs leave a worker in the order in which the agents made them.

Stage 2 recognises a repeat by its source offset, so what one partition sends to another must not change places; and an
agent must be able to hand over its outputs without waiting, so that a checkpoint sees a batch and its outputs together.

A worker that was paused for longer than its session must not send: others decide on the same payments by then. Its
decisions are theirs, byte for byte, unless rules or lists have changed meanwhile, and one payment must not get two. So
each message is sent under the group's lease, and a worker that was expelled crashes here instead. What remains: a pause
that begins after the look at the lease and before the bytes leave the machine; a guest whose hypervisor stops all of
its clocks, until the first heartbeat tells it; a second worker started under the same name, which takes the partitions
from the first at once, until the first's next heartbeat. State is safe from all of these: see `app.batching.claims`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from mode import Service

from app import metrics
from app.batching import BatchApp
from app.clock import Clock
from models.stages.outputs import Send

__all__ = ["Outbox"]

log = structlog.get_logger(__name__)


class Outbox(Service):
    """Sends in order; one job's future is done when the brokers have acknowledged all of it.

    Parameters
    ----------
    app
        The batch app, whose producer is used.
    clock
        Stamps what is sent: the log's clock for the next stage.
    max_jobs
        Jobs that may wait; agents pause beyond it, so that a slow broker bounds memory.
    confirm_membership
        Awaited before each message; raises where this worker may own its partitions no more. Without it, it always may.
    """

    def __init__(
        self,
        app: BatchApp,
        clock: Clock,
        max_jobs: int = 64,
        confirm_membership: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__()
        self._confirm_membership = confirm_membership
        self._app = app
        self._clock = clock
        self._max_jobs = max_jobs
        self._jobs: asyncio.Queue[tuple[Sequence[Send], asyncio.Future[None]]] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, sends: Sequence[Send]) -> asyncio.Future[None]:
        """Queue messages without waiting; the future tells when they are acknowledged."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not sends:
            done.set_result(None)
            return done
        self._jobs.put_nowait((sends, done))
        metrics.OUTBOX_JOBS.set(self._jobs.qsize())
        if self._jobs.qsize() >= self._max_jobs:
            self._room.clear()
        return done

    async def room(self) -> None:
        """Wait until the queue is short enough to go on."""
        await self._room.wait()

    @Service.task
    async def _send(self) -> None:
        while not self.should_stop:
            sends, done = await self._jobs.get()
            metrics.OUTBOX_JOBS.set(self._jobs.qsize())
            try:
                acknowledged = await self._send_all(sends)
            except Exception as error:
                await self._fail(done, error)
                raise
            if self._jobs.qsize() < self._max_jobs // 2:
                self._room.set()
            self.add_future(self._confirm(acknowledged, done))

    async def _send_all(self, sends: Sequence[Send]) -> list[asyncio.Future[int]]:
        producer = self._app.batch_producer
        await producer.room()
        if self._confirm_membership is not None:
            await self._confirm_membership()
        now_ms = self._clock.now_ms()  # nothing is waited for from here on: the look at the lease holds for all of it
        return [producer.send_records(send.topic, send.partition, send.keys, send.values, now_ms) for send in sends]

    async def _confirm(self, acknowledged: Sequence[asyncio.Future[int]], done: asyncio.Future[None]) -> None:
        try:
            # One after the other: most are answered together, and each one's own wakening costs as much as a payment.
            for each in acknowledged:
                await each
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker must stop and replay
            await self._fail(done, error)
        else:
            done.set_result(None)

    async def _fail(self, done: asyncio.Future[None], error: Exception) -> None:
        log.error("sending failed", exc_info=error)
        if not done.done():
            done.set_exception(error)
        await self._app.crash(error)
