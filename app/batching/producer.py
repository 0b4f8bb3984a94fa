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
    messages and records have a producer id each, stamped records bring theirs: among themselves they keep their order,
    not with each other. Stamped records are checkpoints: on a connection of their own, for a broker answers the
    requests of one connection one after the other, and decisions would wait.
    """

    _sender: RecordSender | None = None
    _stamped: RecordSender | None = None

    def _settings_extra(self) -> Mapping[str, Any]:
        return {**super()._settings_extra(), "acks": "all", "enable_idempotence": True}

    async def on_start(self) -> None:
        """Connect, and get the producer ids."""
        await super().on_start()
        self._sender, self._stamped = (
            RecordSender(
                self._ensure_producer().client,
                max_batch_bytes=self.max_batch_size,
                max_request_bytes=self.max_request_size,
                request_timeout_s=self.request_timeout,
                name=name,
            )
            for name in ("produce", "produce-stamped")
        )
        await self._sender.start()

    async def on_stop(self) -> None:
        """Disconnect."""
        for sender in self._senders():
            await sender.close()
        self._sender = self._stamped = None
        await super().on_stop()

    async def flush(self) -> None:
        """Wait until everything that was given to this producer is acknowledged."""
        await super().flush()
        for sender in self._senders():
            await sender.drained()

    async def room(self) -> None:
        """Wait until less is on its way than a slow broker may make grow; stamped records aside."""
        await self._running(self._sender).room()

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

        A partition gets stamped records only, or none.

        Raises
        ------
        NotReady
            Before the producer has started, or after it has stopped.
        """
        records = Records.of(keys, values, timestamps_ms)
        sender = self._running(self._sender if stamp is None else self._stamped)
        return sender.send(topic, partition, records, atomic=atomic, stamp=stamp)

    def _senders(self) -> list[RecordSender]:
        return [sender for sender in (self._sender, self._stamped) if sender is not None]

    def _running(self, sender: RecordSender | None) -> RecordSender:
        if sender is None:
            raise NotReady("Producer service not yet started")
        return sender
