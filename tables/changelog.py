"""A stage's state as a Faust collection: shards in memory, checkpoints in a compacted topic.

Faust gives the changelog topic, co-partitioning, standbys and recovery; this file decides what a changelog record is.
The order that makes state exactly-once: outputs acknowledged, then the checkpoint, then the source offsets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import structlog
from faust.stores.base import Store
from faust.tables.base import Collection
from faust.types import TP, EventT
from mode import Service

from app import metrics
from app.batching import Batch, BatchApp, BatchProducer, BatchSchema
from app.topics import MAX_CHECKPOINT_BYTES
from tables.cold import ColdStore, expire
from tables.partition import PartitionState

__all__ = ["MemoryBounds", "Shard", "ShardTable", "Stage"]

log = structlog.get_logger(__name__)

_TICK_S = 0.02


class Stage(Protocol):
    """The pure code of one partition."""

    @property
    def state(self) -> PartitionState:
        """All that must survive."""


class Shard:
    """One partition at run time: its pure stage, what is not acknowledged yet, and its checkpoints.

    Parameters
    ----------
    table
        The collection that it belongs to.
    partition
        Which one.
    stage
        The pure code and its state.
    cold
        Where its idle profiles go.
    """

    def __init__(self, table: ShardTable, partition: int, stage: Any, cold: ColdStore) -> None:  # noqa: ANN401 - see Stage
        self.partition = partition
        self.stage = stage
        self.cold = cold
        stage.state.profiles.cold = cold
        self.changelog_offset: int | None = None
        self.recovered_rows = 0
        self.checkpoints = 0
        self.replay_until = 0
        """Of the source topic: what lies below may have been decided on before a crash."""
        self._table = table
        self._events: list[EventT[Any]] = []
        self._outputs: list[Awaitable[None]] = []
        self._running: asyncio.Task[None] | None = None
        # Staggered: the partitions of a worker do not all stop the loop for their checkpoints at once.
        self.last_start_s = time.monotonic() - table.interval_s * (partition % 8) / 8

    def track(self, event: EventT[Any], outputs: Awaitable[None]) -> None:
        """Note an applied batch: it is acknowledged with the next checkpoint, after its outputs.

        Called without an `await` between applying the batch and this: a checkpoint must see both or neither.
        """
        self._events.append(event)
        self._outputs.append(outputs)

    def due(self, now_s: float) -> bool:
        """Whether a checkpoint should start."""
        if self._running is not None or not self._events:
            return False
        return (
            now_s - self.last_start_s >= self._table.interval_s
            or self.stage.state.profiles.dirty >= self._table.max_dirty_rows
        )

    def start_checkpoint(self) -> asyncio.Task[None]:
        """Take a snapshot now, and write it once the outputs before it are acknowledged."""
        self.last_start_s = time.monotonic()
        keys, values = self.stage.state.export()
        events, self._events = self._events, []
        outputs, self._outputs = self._outputs, []
        self._running = asyncio.create_task(self._write_checkpoint(keys, values, events, outputs))
        return self._running

    async def _write_checkpoint(
        self,
        keys: Sequence[bytes],
        values: Sequence[bytes | None],
        events: Sequence[EventT[Any]],
        outputs: Sequence[Awaitable[None]],
    ) -> None:
        started_s = time.monotonic()
        try:
            for output in outputs:
                await output
            self.changelog_offset = await self._table.append(self.partition, keys, values)
            self.stage.state.acknowledged()
            self._expire()
            self.checkpoints += 1
            self._measure(len(keys), time.monotonic() - started_s)
            for event in events:
                event.ack()
        except Exception as error:
            # An un-acked batch would block commits for ever, and the state in memory is now ahead of the log.
            log.exception("checkpoint failed", table=self._table.name, partition=self.partition)
            await self._table.app.crash(error)
            raise
        finally:
            self._running = None

    def _expire(self) -> None:
        """Let idle profiles leave memory: those that the changelog has, and only where there are too many."""
        idle_before_ms = int(time.time() * 1000) - self._table.memory.idle_after_ms
        expire(
            self.stage.state.profiles,
            self.cold,
            idle_before_ms=idle_before_ms,
            max_active=self._table.memory.max_active_keys,
        )

    def _measure(self, rows: int, seconds: float) -> None:
        table = self._table.name
        metrics.CHECKPOINT_ROWS.labels(table).inc(rows)
        metrics.CHECKPOINT_SECONDS.labels(table).observe(seconds)
        state = self.stage.state
        metrics.PROFILES.labels(table, self.partition).set(len(state.profiles))
        metrics.IDS.labels(table, self.partition).set(sum(map(len, state.memories.values())))

    def close(self) -> None:
        """Give up what the shard holds beside memory, and what is told of it."""
        self.cold.close()
        if self.checkpoints:
            metrics.PROFILES.remove(self._table.name, self.partition)
            metrics.IDS.remove(self._table.name, self.partition)

    async def flush(self) -> None:
        """Bring everything applied so far to the log: outputs, checkpoint, acknowledgements."""
        while self._running is not None:
            await self._running
        await self.start_checkpoint()

    @property
    def idle(self) -> bool:
        """Whether everything applied is in the log."""
        return self._running is None and not self._events


class ShardStore(Store[bytes, bytes]):
    """Faust's view of the shards: where each stands in the changelog, and how recovery feeds them."""

    table: ShardTable

    def persisted_offset(self, tp: TP) -> int | None:
        """Offset of the last changelog record that the shard holds."""
        return self.table.shard(tp.partition).changelog_offset

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        """Faust's own writer is not used here."""

    async def need_active_standby_for(self, tp: TP) -> bool:  # noqa: ARG002 - Faust's signature
        """Standbys are always of use: the state is in memory."""
        return True

    def reset_state(self) -> None:
        """Forget all shards."""
        self.table.drop(set(self.table.shards))

    async def on_rebalance(
        self,
        assigned: set[TP],
        revoked: set[TP],  # noqa: ARG002 - Faust's signature
        newly_assigned: set[TP],  # noqa: ARG002
        generation_id: int = 0,  # noqa: ARG002
    ) -> None:
        """Drop the shards that went elsewhere: their next owner's checkpoints make them stale."""
        kept = {tp.partition for tp in assigned if tp.topic == self.table.changelog_topic_name}
        self.table.drop(set(self.table.shards) - kept)

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:  # noqa: ARG002
        """Make the active shards usable."""
        for tp in active_tps:
            self.table.shard(tp.partition).stage.state.finish_restore()

    def apply_changelog_batch(
        self,
        batch: Iterable[EventT[Any]],
        to_key: object = None,  # noqa: ARG002 - Faust's signature
        to_value: object = None,  # noqa: ARG002
    ) -> None:
        """Take up what recovery read. Faust swallows exceptions here, so each one stops the worker."""
        for event in batch:
            records = cast("Batch", event.value)
            shard = self.table.shard(event.message.partition)
            try:
                shard.stage.state.restore(records.keys, records.values)
            except Exception as error:
                log.exception("changelog unreadable", table=self.table.name, partition=shard.partition)
                self.table.crash_soon(error)
                raise
            shard.changelog_offset = event.message.offset
            shard.recovered_rows += len(records.values)
            metrics.RECOVERED_ROWS.labels(self.table.name).inc(len(records.values))

    # The mapping interface of Faust's stores: rows are read and written by the kernel, not one by one.
    def __getitem__(self, key: bytes) -> bytes:
        raise KeyError(key)

    def __setitem__(self, key: bytes, value: bytes) -> None:
        raise NotImplementedError("rows are written by the kernel")

    def __delitem__(self, key: bytes) -> None:
        raise NotImplementedError("rows are written by the kernel")

    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def __len__(self) -> int:
        return sum(len(shard.stage.state.profiles) for shard in self.table.shards.values())

    async def backup_partition(self, *args: object, **options: object) -> None:
        """Not supported: the changelog is the backup."""
        raise NotImplementedError("the changelog is the backup")

    def restore_backup(self, *args: object, **options: object) -> None:
        """Not supported: the changelog is the backup."""
        raise NotImplementedError("the changelog is the backup")


@dataclass(frozen=True, slots=True)
class MemoryBounds:
    """How many profiles stay in memory, and where the others go.

    Parameters
    ----------
    folder
        Of the cold stores; emptied, since the changelog is the truth.
    max_active_keys
        Profiles in memory per partition, beyond which idle ones leave.
    idle_after_ms
        Time without an event after which a profile is idle.
    """

    folder: Path
    max_active_keys: int
    idle_after_ms: int


class ShardTable(Collection):
    """The shards of one stage.

    Parameters
    ----------
    app
        The batch app.
    name
        Of the table; the changelog is `{app id}-{name}-changelog`.
    make_stage
        Makes the pure stage of a partition, empty.
    interval_s
        Time between the checkpoints of a shard.
    max_dirty_rows
        Changed rows that make one due sooner.
    memory
        When profiles leave memory.
    """

    app: BatchApp

    def __init__(
        self,
        app: BatchApp,
        *,
        name: str,
        make_stage: Callable[[int], Stage],
        interval_s: float,
        max_dirty_rows: int,
        memory: MemoryBounds,
        **options: Any,  # noqa: ANN401 - handed to Faust
    ) -> None:
        self.shards: dict[int, Shard] = {}
        self.interval_s = interval_s
        self.max_dirty_rows = max_dirty_rows
        self.memory = memory
        self._make_stage = make_stage
        super().__init__(
            app,
            name=name,
            schema=BatchSchema(),
            recovery_buffer_size=2,  # 1 makes Faust resume changelogs of active partitions after recovery
            extra_topic_configs={"max.message.bytes": str(MAX_CHECKPOINT_BYTES)},
            **options,
        )

    def shard(self, partition: int) -> Shard:
        """The shard of a partition, made empty where there is none."""
        shard = self.shards.get(partition)
        if shard is None:
            cold = ColdStore(self.memory.folder / f"{self.name}-{partition}")
            shard = self.shards[partition] = Shard(self, partition, self._make_stage(partition), cold)
        return shard

    def drop(self, partitions: set[int]) -> None:
        """Forget shards."""
        for partition in partitions:
            self.shards.pop(partition).close()

    async def append(self, partition: int, keys: Sequence[bytes], values: Sequence[bytes | None]) -> int:
        """Append one checkpoint as one record batch; the offset of its last record, acknowledged by all replicas."""
        now_ms = int(time.time() * 1000)
        sent = await cast("BatchProducer", self.app.producer).send_records(
            self.changelog_topic_name, partition, keys, values, [now_ms] * len(keys), atomic=True
        )
        (written,) = await sent
        return int(written.offset) + len(keys) - 1

    def crash_soon(self, error: BaseException) -> None:
        """Stop the worker from synchronous code."""
        asyncio.get_running_loop().create_task(self.app.crash(error))

    @Service.task
    async def _take_checkpoints(self) -> None:
        """Start what is due; one shard's snapshot per tick, so that the loop is never held for long."""
        while not self.should_stop:
            await self.sleep(_TICK_S)
            now_s = time.monotonic()
            due = [shard for shard in self.shards.values() if shard.due(now_s)]
            if due:
                min(due, key=lambda shard: shard.last_start_s).start_checkpoint()

    async def flush(self) -> None:
        """Bring every shard's work to the log."""
        await asyncio.gather(*(shard.flush() for shard in self.shards.values() if not shard.idle))

    def _new_store(self) -> ShardStore:
        return ShardStore("shards://", self.app, self, table_name=self.name, loop=self.loop)

    # Faust's per-key interface, unused for the reason given in ShardStore.
    def _has_key(self, key: object) -> bool:  # noqa: ARG002
        return False

    def _get_key(self, key: object) -> object:
        raise KeyError(key)

    def _set_key(self, key: object, value: object) -> None:
        raise NotImplementedError("rows are written by the kernel")

    def _del_key(self, key: object) -> None:
        raise NotImplementedError("rows are written by the kernel")

    def as_ansitable(self, **options: object) -> str:  # noqa: ARG002
        """Faust's own table dump; ours is `pixguard state`."""
        return ""

    def hopping(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - Faust's signature
        """Windows are in the kernel."""
        raise NotImplementedError("windows are in the kernel")

    def tumbling(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - Faust's signature
        """Windows are in the kernel."""
        raise NotImplementedError("windows are in the kernel")

    def using_window(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - Faust's signature
        """Windows are in the kernel."""
        raise NotImplementedError("windows are in the kernel")
