"""The consumer's thread: takes fetched record batches from aiokafka and unpacks them into batches."""
# ruff: noqa: SLF001  (neither faust nor aiokafka offers a public way to take a whole fetch)

import asyncio
from collections.abc import Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import OffsetCommitRequest
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException, IllegalStateError
from faust.tables.manager import TableManager
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types import TP

from app.batching.batch import Batch

if TYPE_CHECKING:
    from app.batching.app import BatchApp
    from app.batching.consumer import BatchConsumer

# How long a fetch waits while the gate is closed.
_GATE_POLL_S = 0.02


def unpack(records: PartitionRecords, tp: TP, generation: int, max_records: int) -> Batch:
    """Unpack the fetched record batches of one partition, from its fetch position on.

    This replaces ``PartitionRecords._unpack_records``: the same decisions, without an object and a generator step per
    record. It stops after the record batch that reaches `max_records`; the rest stays in `records` for the next call.

    Raises
    ------
    CorruptRecordException
        If a record batch does not match its checksum.
    """
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    offsets: list[int] = []
    timestamps_ms: list[int] = []
    base = position = records.next_fetch_offset
    source = records._records
    while len(values) < max_records and source.has_next():
        record_batch = source.next_batch()
        if records._check_crcs and not record_batch.validate_crc():
            raise CorruptRecordException(
                f"{tp.topic}-{tp.partition}: checksum of the record batch at {position} is wrong"
            )
        if not (_is_aborted(records, record_batch) or record_batch.is_control_batch):
            for record in record_batch:
                offset = record.offset
                # The broker returns the whole record batch that holds the position, with what lies before it.
                if offset >= position:
                    keys.append(record.key)
                    values.append(record.value)
                    offsets.append(offset)
                    timestamps_ms.append(record.timestamp)
        # Compaction may have removed a record batch's last records; its end is kept all the same.
        position = record_batch.next_offset
    records.next_fetch_offset = position
    dense = len(offsets) == position - base
    return Batch(
        tp, base, position, keys, values, range(base, position) if dense else offsets, timestamps_ms, generation
    )


def _is_aborted(records: PartitionRecords, record_batch: Any) -> bool:  # noqa: ANN401  (aiokafka's extension type)
    """Tell whether a reader of committed records skips this record batch, and follow the transactions' markers."""
    if records._isolation_level != READ_COMMITTED or record_batch.producer_id is None:
        return False
    records._consume_aborted_up_to(record_batch.base_offset)
    if record_batch.is_control_batch and records._contains_abort_marker(record_batch):
        records._aborted_producers.discard(record_batch.producer_id)
    return bool(record_batch.is_transactional) and record_batch.producer_id in records._aborted_producers


class BatchConsumerThread(AIOKafkaConsumerThread):
    """Faust's consumer thread, returning batches for batch topics.

    While the gate is closed (see `BatchApp.sources_open`) it delivers only what recovery asks for: the changelog
    partitions that are being restored. Recovery resumes the source partitions before it seeks them, and ends by
    clearing every topic queue; whatever arrived earlier would be delivered twice, or lost.
    """

    app: "BatchApp"
    consumer: "BatchConsumer"

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:  # noqa: ANN401  (faust's signature)
        consumer = super()._create_worker_consumer(transport)
        # Faust offers no setting for these; aiokafka reads them when the consumer starts.
        consumer._fetch_max_wait_ms = self.app.fetch_max_wait_ms
        consumer._fetch_min_bytes = self.app.fetch_min_bytes
        if self.app.read_committed:
            consumer._isolation_level = "read_committed"
        return consumer

    def __post_init__(self) -> None:
        super().__post_init__()
        self.settled_rebalance = -1
        self._assigned_rebalance = -1

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Note to which rebalance the assignment belongs; the next cannot begin before this returns."""
        self._assigned_rebalance = self.app.rebalancing_count
        if not assigned:
            self.settled_rebalance = self._assigned_rebalance  # there is nothing to seek
        await super().on_partitions_assigned(assigned, generation_id)

    async def seek_to_committed(self) -> dict[TP, int]:
        """Seek all partitions to their committed offsets.

        Raises
        ------
        IllegalStateError
            If another rebalance has begun: Faust's recovery then waits for that one.
        """
        offsets: dict[TP, int] = await self.call_thread(self._seek_to_committed)
        return offsets

    async def _seek_to_committed(self) -> dict[TP, int]:
        rebalance = self._assigned_rebalance
        offsets: dict[TP, int] = await self._ensure_consumer().seek_to_committed()
        if rebalance != self.app.rebalancing_count:
            raise IllegalStateError("another rebalance has begun")
        self.settled_rebalance = rebalance
        return offsets

    def membership_lost(self) -> bool:
        """Tell whether the group has expelled this consumer: others may own its partitions already."""
        return bool(self._ensure_consumer()._coordinator.generation == OffsetCommitRequest.DEFAULT_GENERATION_ID)

    async def _fetch_records(
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109  (faust's signature)
        max_records: int | None = None,
    ) -> dict[TP, list[Any]]:
        fetcher = consumer._fetcher
        subscriptions = fetcher._subscriptions
        # Recovery resumes partitions meanwhile: soon return, to be asked for those.
        deadline_s = monotonic() + ((timeout or 0.0) if self.app.sources_open else _GATE_POLL_S)
        with subscriptions.fetch_context():
            while self.consumer.flow_active:
                if consumer._closed or fetcher._closed:
                    raise ConsumerStoppedError
                if subscriptions.reassignment_in_progress:
                    await subscriptions.wait_for_assignment()
                    continue
                wanted = active_partitions if self.app.sources_open else self._recovering(active_partitions)
                drained = self._drain(fetcher, wanted, max_records)
                left_s = deadline_s - monotonic()
                if drained or left_s <= 0:
                    return drained
                waiter = fetcher._create_fetch_waiter()
                await asyncio.wait([waiter], timeout=left_s)
                if waiter.done():
                    waiter.result()  # raises what the broker refused, such as a missing authorisation
                else:
                    waiter.cancel()
        return {}

    def _recovering(self, partitions: Iterable[TP]) -> set[TP]:
        # Standbys wait for the gate too: recovery's last step would clear what they had queued.
        active = cast("TableManager", self.app.tables).recovery.active_tps
        return {tp for tp in partitions if tp in active}

    def _drain(self, fetcher: Any, wanted: set[TP], max_records: int | None) -> dict[TP, list[Any]]:  # noqa: ANN401
        """Take what is fetched of the `wanted` partitions."""
        drained: dict[TP, list[Any]] = {}
        for partition in list(fetcher._records):
            if partition not in wanted:
                if not fetcher._subscriptions.is_assigned(partition):
                    del fetcher._records[partition]
                continue
            fetched = fetcher._records[partition]
            if not isinstance(fetched, FetchResult):
                if drained:
                    break  # deliver what came before the error; the next call raises it
                self._release(fetcher, partition)
                fetched.check_raise()
                continue
            tp = TP(partition.topic, partition.partition)
            if tp.topic in self.consumer.batch_topics:
                taken, has_more = self._take_batches(fetched, tp)
            else:
                taken = fetched.getall(max_records)
                has_more = fetched.has_more()
            if not has_more:
                self._release(fetcher, partition)
            if taken:
                drained[tp] = taken
        return drained

    def _take_batches(self, fetched: FetchResult, tp: TP) -> tuple[list[Batch], bool]:
        if not fetched.has_more() or not fetched.check_assignment(tp):
            return [], False
        records = fetched._partition_records
        max_records = self.app.fetch_max_records
        batch = unpack(records, tp, self.app.consumer_generation_id, max_records)
        fetched._update_position()
        has_more = bool(records._records.has_next())
        if batch.next_offset == batch.base:
            return [], has_more
        if tp.topic in self.app.tables.changelog_topics:
            # A checkpoint is one record batch, and a restored state must not stop in the middle of one.
            return [batch], has_more
        return list(batch.pieces(max_records)), has_more

    @staticmethod
    def _release(fetcher: Any, partition: Any) -> None:  # noqa: ANN401  (aiokafka's untyped internals)
        """Let aiokafka fetch the partition again."""
        del fetcher._records[partition]
        fetcher._notify(fetcher._wait_consume_future)
