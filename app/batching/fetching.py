"""The consumer's thread: group membership, positions and, by aiokafka's fetches, all topics but the sources."""
# ruff: noqa: SLF001  (neither faust nor aiokafka offers a public way to take a whole fetch)

import asyncio
from array import array
from collections.abc import Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator, OffsetCommitRequest
from aiokafka.errors import (
    ConsumerStoppedError,
    CorruptRecordException,
    IllegalStateError,
    KafkaError,
    NoError,
    RebalanceInProgressError,
    for_code,
)
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.memory_records import MemoryRecords
from faust.tables.manager import TableManager
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, ensure_aiokafka_TP
from faust.types import TP
from mode import Service

from app.batching.batch import Batch
from app.batching.lease import Lease, awake_or_not_s
from app.batching.unpacking import (
    CONTROL,
    MAGIC,
    TRANSACTIONAL,
    Columns,
    first_wrong_checksum,
    next_extent,
    survey,
    warm_up,
)
from app.batching.unpacking import unpack as unpack_records
from app.domain.byte_column import ByteColumn

if TYPE_CHECKING:
    from app.batching.app import BatchApp
    from app.batching.consumer import BatchConsumer

# How long a fetch waits while the gate is closed.
_GATE_POLL_S = 0.02

# How long a broker may hold back a fetch of changelogs: what else the thread asks it waits behind that.
_CHANGELOG_WAIT_MS = 50

# Of one response, all partitions together: each byte is copied several times, and what fits a cache is copied faster.
FETCH_BYTES = 16 * 1024 * 1024


# Pickle's protocol is the one way to the fetched bytes, and to move on in them, that aiokafka's reader of them offers.
if not hasattr(MemoryRecords, "__setstate__"):
    raise ImportError("aiokafka: expected its C extensions, got their replacement in Python")


def unpack(records: PartitionRecords, tp: TP, generation: int, max_records: int) -> Batch:
    """Unpack the fetched record batches of one partition, from its fetch position on.

    This replaces ``PartitionRecords._unpack_records``: the same decisions, without an object and a generator step per
    record. It stops after the record batch that reaches `max_records`, and where the formats before and since
    Kafka 0.11 meet; the rest stays in `records` for the next call.

    Raises
    ------
    CorruptRecordException
        If a record batch does not match its checksum, or its records do not fill it. Nothing is taken then.
    """
    data, place = records._records.__reduce__()[2]
    base = records.next_fetch_offset
    try:
        columns, place, position = _take(records, data, place, max_records)
    except CorruptRecordException as exc:
        raise CorruptRecordException(f"{tp.topic}-{tp.partition}: {exc.args[0]}") from exc
    records._records.__setstate__((data, place))
    records.next_fetch_offset = position
    return Batch(
        tp,
        base,
        position,
        columns.keys,
        columns.values,
        # Elements are Python's numbers, as JSON needs them, and NumPy takes the whole as it is.
        array("q", columns.offsets.tobytes()),
        array("q", columns.timestamps_ms.tobytes()),
        generation,
    )


def _take(records: PartitionRecords, data: bytes, place: int, max_records: int) -> tuple[Columns, int, int]:
    """Return records, the place in `data` after them, and the fetch position after them."""
    batches = survey(data, place, max_records)
    if len(batches) == 0:
        return _take_old(records, data, place, max_records)
    if records._check_crcs and (wrong := first_wrong_checksum(data, batches)) is not None:
        raise _wrong_checksum(wrong)
    kept = (batches["attributes"] & CONTROL) == 0
    if records._isolation_level == READ_COMMITTED:
        kept &= [not _is_aborted(records, data, batch) for batch in batches]
    # The broker returns the whole record batch that holds the position, with what lies before it.
    columns = unpack_records(data, batches[kept], records.next_fetch_offset)
    last = batches[-1]
    # Compaction may have removed the last records of a record batch; its end is kept all the same.
    return columns, int(last["end"]), int(last["base_offset"] + last["last_offset_delta"]) + 1


def _take_old(records: PartitionRecords, data: bytes, place: int, max_records: int) -> tuple[Columns, int, int]:
    """Do as `_take` for the formats before Kafka 0.11, which brokers before 4.0 keep and which know no transactions."""
    position = records.next_fetch_offset
    found: list[Any] = []
    while len(found) < max_records:
        extent = next_extent(data, place)
        if extent is None or extent.magic >= MAGIC:
            break
        batch = LegacyRecordBatch(data[place : extent.end], extent.magic)
        if records._check_crcs and not batch.validate_crc():
            raise _wrong_checksum(position)
        found += [record for record in batch if record.offset >= position]
        place, position = extent.end, batch.next_offset
    columns = Columns(
        ByteColumn.from_list([record.key for record in found]),
        ByteColumn.from_list([record.value for record in found]),
        np.array([record.offset for record in found], np.int64),
        np.array([-1 if record.timestamp is None else record.timestamp for record in found], np.int64),
    )
    return columns, place, position


def _wrong_checksum(position: int) -> CorruptRecordException:
    return CorruptRecordException(f"checksum of the record batch at {position} is wrong")


def _is_aborted(records: PartitionRecords, data: bytes, batch: np.void) -> bool:
    """Tell whether a reader of committed records skips this record batch, and follow the transactions' markers."""
    attributes, producer_id = int(batch["attributes"]), int(batch["producer_id"])
    records._consume_aborted_up_to(int(batch["base_offset"]))
    if attributes & CONTROL and records._contains_abort_marker(DefaultRecordBatch(data[batch["start"] : batch["end"]])):
        records._aborted_producers.discard(producer_id)
    return bool(attributes & TRANSACTIONAL) and producer_id in records._aborted_producers


class BatchConsumerThread(AIOKafkaConsumerThread):
    """Faust's consumer thread, returning batches for changelogs. Sources are read by `SourceReader`, not here.

    While the gate is closed (see `BatchApp.sources_open`) it delivers only what recovery asks for: the changelog
    partitions that are being restored. Recovery resumes the source partitions before it seeks them, and ends by
    clearing every topic queue; whatever arrived earlier would be delivered twice, or lost.
    """

    app: "BatchApp"
    consumer: "BatchConsumer"

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:  # noqa: ANN401  (faust's signature)
        consumer = super()._create_worker_consumer(transport)
        # Faust offers no setting for these; aiokafka reads them when the consumer starts.
        consumer._fetch_max_wait_ms = min(_CHANGELOG_WAIT_MS, self.app.fetch_max_wait_ms)
        consumer._fetch_min_bytes = self.app.fetch_min_bytes
        consumer._fetch_max_bytes = FETCH_BYTES
        if self.app.read_committed:
            consumer._isolation_level = "read_committed"
        return consumer

    def __post_init__(self) -> None:
        # Before anything is started: a thread that compiles answers no heartbeat, and is found missing by the consumer.
        warm_up()
        super().__post_init__()
        self.settled_rebalance = -1
        self._assigned_rebalance = -1
        self.lease = Lease(self.app.conf.broker_session_timeout)

    async def on_thread_stop(self) -> None:
        """Stop the consumer, whatever its fetches are at; after a handover, leave the group.

        aiokafka never leaves for a static member, so the others would wait for the session timeout before they took the
        partitions: right for a crash, after which the worker comes back under its name, but not for a handover.

        aiokafka cancels its fetches and awaits them. One that rests after a failed request (a broker is away) ends by
        that with a CancelledError, which mode takes for a cancellation of this thread: the worker would never end.
        """
        coordinator = self._consumer._coordinator if self._consumer is not None else None
        if self.app.should_stop and not self.app.crashed and isinstance(coordinator, GroupCoordinator):
            coordinator._group_instance_id = None  # what its `close` asks for before it leaves
        try:
            await super().on_thread_stop()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._consumer is None or (task is not None and task.cancelling()):
                raise
            await self._consumer._client.close()  # what aiokafka's `stop` has not come to

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Note to which rebalance the assignment belongs; the next cannot begin before this returns.

        Sources are paused before aiokafka knows a position to fetch from. It goes on to find their positions.
        """
        self._ensure_consumer().pause(*[ensure_aiokafka_TP(tp) for tp in assigned if self.consumer.is_source(tp)])
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

    async def first_position(self, tp: TP) -> int:
        """Return where the first read of a partition starts, by ``consumer_auto_offset_reset`` or a commit.

        Called on the main loop: it may wait for long, and the thread's few callers of methods must not.

        Raises
        ------
        IllegalStateError
            If the partition is not assigned any more.
        KafkaError
            If it cannot be found out.
        """
        position = self._ensure_consumer().position(ensure_aiokafka_TP(tp))
        return cast("int", await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(position, self.thread_loop)))

    async def log_start(self, tp: TP) -> int:
        """Return the offset of the first record that a partition still has. Called on the main loop.

        Raises
        ------
        KafkaError
            If it cannot be found out.
        """
        found = self._ensure_consumer().beginning_offsets([ensure_aiokafka_TP(tp)])
        (start,) = (await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(found, self.thread_loop))).values()
        return cast("int", start)

    def membership_lost(self) -> bool:
        """Tell whether the group has expelled this consumer: others may own its partitions already."""
        return bool(self._ensure_consumer()._coordinator.generation == OffsetCommitRequest.DEFAULT_GENERATION_ID)

    @Service.task
    async def _keep_lease(self) -> None:
        while not self.should_stop:
            await self.renew_lease()
            await self.sleep(self.app.conf.broker_heartbeat_interval)

    async def renew_lease(self) -> None:
        """Send a heartbeat of our own, since aiokafka keeps to itself when its last one was answered."""
        coordinator = self._consumer._coordinator if self._consumer is not None else None
        if not isinstance(coordinator, GroupCoordinator) or self.app.crashed:
            return  # an app that was expelled has crashed, and does not go on even if it becomes a member again
        request = HeartbeatRequest(coordinator.group_id, coordinator.generation, coordinator.member_id)
        asked_s = awake_or_not_s()
        try:
            answer = await coordinator._send_req(request)
        except KafkaError:
            return  # whoever needs the lease asks again; aiokafka looks for the coordinator meanwhile
        # While the group prepares to rebalance, its partitions stay where they are.
        if for_code(answer.error_code) in {NoError, RebalanceInProgressError}:
            self.lease.renew(asked_s)

    async def _fetch_records(
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109  (faust's signature)
        max_records: int | None = None,
    ) -> dict[TP, list[Any]]:
        consumer._coordinator.check_errors()
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
                self._fetch_only(wanted)
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

    def _fetch_only(self, wanted: set[TP]) -> None:
        """Let aiokafka fetch these: it would go on to read back what this worker writes to its changelogs."""
        consumer = self._ensure_consumer()
        paused = consumer.paused()
        consumer.pause(*(consumer.assignment() - wanted - paused))
        consumer.resume(*(ensure_aiokafka_TP(tp) for tp in wanted & paused))

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
        # Not in pieces: a checkpoint is one record batch, and a restored state must not stop in the middle of one.
        batch = unpack(records, tp, self.app.consumer_generation_id, self.app.fetch_max_records)
        fetched._update_position()
        return [batch] if batch.next_offset > batch.base else [], bool(records._records.has_next())

    @staticmethod
    def _release(fetcher: Any, partition: Any) -> None:  # noqa: ANN401  (aiokafka's untyped internals)
        """Let aiokafka fetch the partition again."""
        del fetcher._records[partition]
        fetcher._notify(fetcher._wait_consume_future)
