"""The producer: idempotent, and sending prepared record batches to a given partition."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka.producer.message_accumulator import BatchBuilder
from faust.transport.drivers.aiokafka import Producer
from faust.types import RecordMetadata

_LAST_SEQUENCE = 2**31 - 1


class OversizeError(ValueError):
    """Records do not fit into the size that a record batch may have."""


class Stamp(NamedTuple):
    """What a record batch says of its producer, and by what the partition's leader refuses repeats and the fenced."""

    producer_id: int
    epoch: int
    sequence: int
    """Of the batch's first record, modulo 2**31."""


class _Builder(BatchBuilder):  # type: ignore[misc]  # aiokafka is untyped
    """A record batch that carries a stamp of its own, or else that of the producer which sends it."""

    def __init__(self, max_bytes: int, compression: int, stamp: Stamp | None) -> None:
        super().__init__(max_bytes, compression)
        self._stamp = stamp

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        # aiokafka's sequences go on below zero after 2**31 - 1; the broker expects zero there, and refuses the rest.
        sender = Stamp(producer_id, producer_epoch, base_sequence & _LAST_SEQUENCE)
        super()._set_producer_state(*(self._stamp or sender))


class BatchProducer(Producer):
    """Faust's producer, with whole record batches beside single messages.

    Always idempotent with ``acks=all``: the broker drops the repeats that retries cause, and keeps their order.
    """

    def _settings_extra(self) -> Mapping[str, Any]:
        return {**super()._settings_extra(), "acks": "all", "enable_idempotence": True}

    def builder(self, *, max_bytes: int | None = None, stamp: Stamp | None = None) -> BatchBuilder:
        """Return an empty record batch that takes up to `max_bytes` bytes (default: one Kafka message's limit).

        It carries `stamp` if there is one, whatever this producer's own id and sequence are.

        Its ``append(timestamp=, key=, value=)`` takes the timestamp in epoch milliseconds, and returns ``None`` when
        the batch is full.
        """
        compression = self._ensure_producer()._message_accumulator._compression_type  # noqa: SLF001  (not public)
        return _Builder(max_bytes or self.max_batch_size, compression, stamp)

    async def send_builder(self, topic: str, partition: int, builder: BatchBuilder) -> Awaitable[RecordMetadata]:
        """Queue one record batch, and return what completes when it is acknowledged.

        Waits while a batch for the same partition is still queued.
        """
        # An open batch would also take in what others send to the partition.
        builder.close()
        sent: Awaitable[RecordMetadata] = await self._ensure_producer().send_batch(builder, topic, partition=partition)
        return sent

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
            ``producer_max_request_size`` bytes; otherwise batches have at most ``producer_max_batch_size``.
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
            If the records of an atomic call, or a single record of any, exceed the limit; then nothing is sent.
        """
        batches = self._fill(f"{topic}-{partition}", keys, values, timestamps_ms, atomic=atomic, stamp=stamp)
        sent = [await self.send_builder(topic, partition, batch) for batch in batches]
        return asyncio.gather(*sent)

    def _fill(
        self,
        name: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int],
        *,
        atomic: bool,
        stamp: Stamp | None,
    ) -> list[BatchBuilder]:
        max_bytes = self.max_request_size if atomic else self.max_batch_size
        batches: list[BatchBuilder] = []
        for key, value, timestamp_ms in zip(keys, values, timestamps_ms, strict=True):
            if batches and batches[-1].append(timestamp=timestamp_ms, key=key, value=value) is not None:
                continue
            if batches and atomic:
                raise OversizeError(
                    f"{name}: expected one record batch of at most {max_bytes} bytes, "
                    f"got {len(values)} records of which {batches[-1].record_count()} fit"
                )
            batches.append(self.builder(max_bytes=max_bytes, stamp=stamp))
            batches[-1].append(timestamp=timestamp_ms, key=key, value=value)
            if batches[-1].size() > max_bytes:  # the first record of a batch is taken whatever its size
                raise OversizeError(f"{name}: expected a record of at most {max_bytes} bytes, got {batches[-1].size()}")
        return batches
