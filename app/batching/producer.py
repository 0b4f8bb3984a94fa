"""The producer: idempotent, and sending prepared record batches to a given partition."""

# ruff: noqa: SLF001  (aiokafka has one request in flight to a broker, and no setting for more)

import asyncio
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from aiokafka import AIOKafkaProducer
from faust.transport.drivers.aiokafka import Producer
from faust.types import RecordMetadata

from app.batching.packing import PackedBatch, PackedRecords, pack
from app.domain.byte_column import ByteColumn

_MOST_BYTES_ON_THEIR_WAY = 32 * 1024 * 1024

_REQUESTS_IN_FLIGHT = 5
"""To one broker: the default of Kafka's own client, and the most with which the broker keeps an idempotent order."""


class OversizeError(ValueError):
    """Records do not fit into the size that a record batch may have."""


class Stamp(NamedTuple):
    """What a record batch says of its producer, and by what the partition's leader refuses repeats and the fenced."""

    producer_id: int
    epoch: int
    sequence: int
    """Of the batch's first record, modulo 2**31."""


class _Room:
    """Bounds the bytes that are on their way.

    aiokafka puts one record batch of every partition that has one into a request, whatever that comes to. The broker
    closes the connection on a request above its ``socket.request.max.bytes`` (100 MB by default), and aiokafka would
    send it again for ever.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._waiting: list[asyncio.Future[None]] = []

    async def take(self, size: int) -> None:
        """Wait until there is room; what is larger than all of it goes alone."""
        while self._taken and self._taken + size > self._most:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        self._taken += size

    def give_back(self, size: int, _acknowledged: object) -> None:
        """Let those who wait look again."""
        self._taken -= size
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


class _InFlight:
    """Brokers that are sent to no more until they have answered: those with `_REQUESTS_IN_FLIGHT` requests.

    In the place of aiokafka's set of brokers with one: a round trip takes as long as several batches, and what became
    ready meanwhile would wait for it. Order is kept all the same: a partition has one batch on its way.
    """

    def __init__(self) -> None:
        self._requests: Counter[int] = Counter()

    def add(self, node: int) -> None:
        self._requests[node] += 1

    def remove(self, node: int) -> None:
        self._requests[node] -= 1

    def __contains__(self, node: int) -> bool:
        return self._requests[node] >= _REQUESTS_IN_FLIGHT


class BatchProducer(Producer):
    """Faust's producer, with whole record batches beside single messages.

    Always idempotent with ``acks=all``: the broker drops the repeats that retries cause, and keeps their order.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  (faust's signature)
        super().__init__(*args, **kwargs)
        self._room = _Room(_MOST_BYTES_ON_THEIR_WAY)

    def _new_producer(self, transactional_id: str | None = None) -> AIOKafkaProducer:
        producer = super()._new_producer(transactional_id)
        producer._sender._in_flight = _InFlight()
        return producer

    def _settings_extra(self) -> Mapping[str, Any]:
        return {**super()._settings_extra(), "acks": "all", "enable_idempotence": True}

    async def send_records(
        self,
        topic: str,
        partition: int,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int],
        *,
        atomic: bool = False,
        stamp: Stamp | None = None,
    ) -> Awaitable[list[RecordMetadata]]:
        """Send records, in order, in as few record batches as possible.

        Parameters
        ----------
        topic, partition
            Where to.
        keys, values, timestamps_ms
            The records, as columns of equal length; times are epoch milliseconds.
        atomic
            Whether they must be ONE record batch, which the broker appends as a whole or not at all. It may have
            ``producer_max_request_size`` bytes; otherwise batches have at most ``producer_max_batch_size``, unless a
            single record needs more.
        stamp
            Of an atomic call's record batch, instead of this producer's own. A partition gets either all of its batches
            stamped or none: aiokafka counts the records of both, and a gap in its own numbers would be refused.

        Returns
        -------
        awaitable
            Completes when every record is acknowledged, with the metadata of each record batch.

        Raises
        ------
        OversizeError
            If the records of an atomic call, or a single record of any, exceed ``producer_max_request_size``; then
            nothing is sent.
        """
        batches = self._pack(f"{topic}-{partition}", keys, values, timestamps_ms, atomic=atomic)
        producer = self._ensure_producer()
        sent = []
        for batch in batches:
            await self._room.take(batch.size)
            # Waits while a batch for the same partition is still queued.
            acknowledged = await producer.send_batch(PackedBatch(batch, stamp), topic, partition=partition)
            acknowledged.add_done_callback(partial(self._room.give_back, batch.size))
            sent.append(acknowledged)
        return asyncio.gather(*sent)

    def _pack(
        self,
        name: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int],
        *,
        atomic: bool,
    ) -> list[PackedRecords]:
        max_bytes = self.max_request_size if atomic else self.max_batch_size
        batches = pack(
            ByteColumn.of(keys), ByteColumn.of(values), np.asarray(timestamps_ms, np.int64), max_bytes=max_bytes
        )
        if atomic and len(batches) > 1:
            raise OversizeError(
                f"{name}: expected one record batch of at most {max_bytes} bytes, "
                f"got {len(values)} records of which {batches[0].record_count} fit"
            )
        for batch in batches:
            # A record that is larger has a batch of its own: a dead letter holds what it rejects, in Base64.
            if batch.size > self.max_request_size:
                raise OversizeError(
                    f"{name}: expected a record of at most {self.max_request_size} bytes, got {batch.size}"
                )
        return batches
