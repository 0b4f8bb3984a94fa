"""The producer: idempotent, and sending prepared record batches to a given partition."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from faust.transport.drivers.aiokafka import Producer
from faust.types import RecordMetadata

from app.batching.packing import PackedBatch, PackedRecords, pack
from app.domain.byte_column import ByteColumn


class OversizeError(ValueError):
    """Records do not fit into the size that a record batch may have."""


class Stamp(NamedTuple):
    """What a record batch says of its producer, and by what the partition's leader refuses repeats and the fenced."""

    producer_id: int
    epoch: int
    sequence: int
    """Of the batch's first record, modulo 2**31."""


class BatchProducer(Producer):
    """Faust's producer, with whole record batches beside single messages.

    Always idempotent with ``acks=all``: the broker drops the repeats that retries cause, and keeps their order.
    """

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
        batches = self._pack(f"{topic}-{partition}", keys, values, timestamps_ms, atomic=atomic)
        producer = self._ensure_producer()
        # Waits while a batch for the same partition is still queued.
        sent = [await producer.send_batch(PackedBatch(one, stamp), topic, partition=partition) for one in batches]
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
        batches = pack(_column(keys), _column(values), np.asarray(timestamps_ms, np.int64), max_bytes=max_bytes)
        if atomic and len(batches) > 1:
            raise OversizeError(
                f"{name}: expected one record batch of at most {max_bytes} bytes, "
                f"got {len(values)} records of which {batches[0].record_count} fit"
            )
        for batch in batches:
            if batch.size > max_bytes:  # a record that is larger has a batch of its own
                raise OversizeError(f"{name}: expected a record of at most {max_bytes} bytes, got {batch.size}")
        return batches


def _column(strings: Sequence[bytes | None]) -> ByteColumn:
    return strings if isinstance(strings, ByteColumn) else ByteColumn.from_list(strings)
