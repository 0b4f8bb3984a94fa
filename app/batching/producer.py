"""The producer: Faust's for single messages, and a sender of whole columns of records beside it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from faust.exceptions import NotReady
from faust.transport.drivers.aiokafka import Producer

from app.batching.packing import Records, Stamp
from app.batching.sending import RecordSender


class BatchProducer(Producer):
    """Faust's producer, with whole record batches beside single messages.

    Always idempotent with ``acks=all``: the broker drops the repeats that retries cause, and keeps their order. Single
    messages and records have a producer id each: among themselves they keep their order, not with each other.
    """

    _sender: RecordSender | None = None

    def _settings_extra(self) -> Mapping[str, Any]:
        return {**super()._settings_extra(), "acks": "all", "enable_idempotence": True}

    async def on_start(self) -> None:
        """Connect, and get the producer ids."""
        await super().on_start()
        self._sender = RecordSender(
            self._ensure_producer().client,
            max_batch_bytes=self.max_batch_size,
            max_request_bytes=self.max_request_size,
            request_timeout_s=self.request_timeout,
        )
        await self._sender.start()

    async def on_stop(self) -> None:
        """Disconnect."""
        if self._sender is not None:
            await self._sender.close()
            self._sender = None
        await super().on_stop()

    async def flush(self) -> None:
        """Wait until everything that was given to this producer is acknowledged."""
        await super().flush()
        if self._sender is not None:
            await self._sender.drained()

    async def room(self) -> None:
        """Wait until less is on its way than a slow broker may make grow."""
        await self._running().room()

    def send_records(
        self,
        topic: str,
        partition: int,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int] | int,
        *,
        atomic: bool = False,
        stamp: Stamp | None = None,
    ) -> asyncio.Future[int]:
        """Send records; who sends without end waits for `room` first. See `RecordSender.send`.

        Raises
        ------
        NotReady
            Before the producer has started, or after it has stopped.
        """
        records = Records.of(keys, values, timestamps_ms)
        return self._running().send(topic, partition, records, atomic=atomic, stamp=stamp)

    def _running(self) -> RecordSender:
        if self._sender is None:
            raise NotReady("Producer service not yet started")
        return self._sender
