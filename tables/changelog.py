"""Shards as a Faust collection: checkpoints in a compacted topic, and back from it in recovery.

Faust gives the changelog topic, co-partitioning, standbys and recovery; this file decides what a changelog record is.
A changelog has one writer per partition, the last that has claimed it (`app.batching.claims`): a worker claims what it
is assigned before recovery asks where the changelog ends, so nothing can come behind what it recovers but its own.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import structlog
from faust.stores.base import Store
from faust.tables.base import Collection
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.types import TP, EventT
from faust.types.transports import ConsumerT
from mode import Service

from app import metrics
from app.batching import CLAIM_KEY, Batch, BatchApp, BatchSchema, Claims
from app.clock import Clock
from app.domain.byte_column import ByteColumn
from app.topics import MAX_CHECKPOINT_BYTES
from tables.cold import EXPIRE_MOST, ColdStore
from tables.recovery import RecoveryMeter, RecoveryProgress
from tables.shards import CheckpointPolicy, Pace, Shards, Stage

__all__ = ["ShardTable", "ShardTables"]

log = structlog.get_logger(__name__)

_TICK_S = 0.02
_RENEWAL_POLL_S = 60.0
_TELL_EVERY_S = 1.0


class ShardStore(Store[bytes, bytes]):
    """Faust's view of the shards: where each stands in the changelog, and how recovery feeds them."""

    table: ShardTable

    def persisted_offset(self, tp: TP) -> int | None:
        """Offset of the last changelog record that the shard holds."""
        return self.table.shards.shard(tp.partition).changelog_offset

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        """Faust's own writer is not used here."""

    async def need_active_standby_for(self, tp: TP) -> bool:  # noqa: ARG002 - Faust's signature
        """Standbys are always of use: the state is in memory."""
        return True

    def reset_state(self) -> None:
        """Forget all shards."""
        self.table.shards.keep(set())

    async def on_rebalance(
        self,
        assigned: set[TP],
        revoked: set[TP],  # noqa: ARG002 - Faust's signature
        newly_assigned: set[TP],  # noqa: ARG002
        generation_id: int = 0,  # noqa: ARG002
    ) -> None:
        """Drop the shards that went elsewhere: their next owner's checkpoints make them stale. Claim those that came.

        Faust starts recovery after this. Standbys are not claimed: they read what their owner writes.
        """
        name = self.table.changelog_topic_name
        self.table.shards.keep({tp.partition for tp in assigned if tp.topic == name})
        await self.table.claims.keep({tp.partition for tp in self.app.assignor.assigned_actives() if tp.topic == name})

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:  # noqa: ARG002
        """Make the active shards usable."""
        for tp in active_tps:
            self.table.shards.shard(tp.partition).stage.state.finish_restore()

    def apply_changelog_batch(
        self,
        batch: Iterable[EventT[Any]],
        to_key: object = None,  # noqa: ARG002 - Faust's signature
        to_value: object = None,  # noqa: ARG002
    ) -> None:
        """Take up what recovery read. Faust swallows exceptions here, so each one stops the worker."""
        for event in batch:
            keys, values = _rows(cast("Batch", event.value))
            shard = self.table.shards.shard(event.message.partition)
            try:
                shard.stage.state.restore(keys, values)
                # A standby takes no checkpoints, after which an owner does this: it would grow for as long as it lives.
                while shard.expire() >= EXPIRE_MOST:
                    pass
            except Exception as error:
                log.exception("changelog unreadable", table=self.table.name, partition=shard.partition)
                self.table.crash_soon(error)
                raise
            shard.changelog_offset = event.message.offset
            shard.recovered_rows += len(values)
            metrics.RECOVERED_ROWS.labels(self.table.name).inc(len(values))

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
        return len(self.table.shards)

    async def backup_partition(self, *args: object, **options: object) -> None:
        """Not supported: the changelog is the backup."""
        raise NotImplementedError("the changelog is the backup")

    def restore_backup(self, *args: object, **options: object) -> None:
        """Not supported: the changelog is the backup."""
        raise NotImplementedError("the changelog is the backup")


def _rows(records: Batch) -> tuple[ByteColumn, ByteColumn]:
    """Keys and values without the claim records, which are about the log and no state."""
    keys, values = ByteColumn.of(records.keys), ByteColumn.of(records.values)
    may_be = np.flatnonzero(keys.lengths == len(CLAIM_KEY))
    claims = [place for place in may_be.tolist() if keys[place] == CLAIM_KEY]
    kept = np.delete(np.arange(len(keys)), claims)
    return keys.take(kept), values.take(kept)


class ShardTable(Collection):
    """The shards of one stage, and the changelog that keeps them.

    Parameters
    ----------
    app
        The batch app.
    name
        Of the table; the changelog is `{app id}-{name}-changelog`.
    make_stage
        Makes the pure stage of a partition, empty.
    policy
        When shards are written down, and how much of them stays in memory.
    cold_folder
        Where profiles lie that left memory; emptied, since the changelog is the truth.
    clock, pace
        Of the worker.
    """

    app: BatchApp

    def __init__(
        self,
        app: BatchApp,
        *,
        name: str,
        make_stage: Callable[[int], Stage],
        policy: CheckpointPolicy,
        cold_folder: Path,
        clock: Clock,
        pace: Pace,
        **options: Any,  # noqa: ANN401 - handed to Faust
    ) -> None:
        self.shards = Shards(
            name,
            make_stage,
            lambda partition: ColdStore(cold_folder / f"{name}-{partition}"),
            policy,
            clock,
            self,
            pace,
        )
        super().__init__(
            app,
            name=name,
            schema=BatchSchema(),
            recovery_buffer_size=2,  # 1 makes Faust resume changelogs of active partitions after recovery
            extra_topic_configs={"max.message.bytes": str(MAX_CHECKPOINT_BYTES)},
            **options,
        )
        self.claims = Claims(lambda: app.batch_producer, self.changelog_topic_name, app.conf.broker_client_id)

    def is_standby(self, partition: int) -> bool:
        """Whether this worker only follows the partition, whose owner is another."""
        return bool(self.app.assignor.is_standby(TP(self.changelog_topic_name, partition)))

    async def append(self, partition: int, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> int:
        """Append one checkpoint as one record batch; the offset of its last record, acknowledged by all replicas.

        Raises
        ------
        FencedError
            If another worker has claimed the partition: it recovered without this checkpoint, which must stay out.
        """
        now_ms = self.shards.clock.now_ms()
        return await self.claims.append(partition, keys, values, now_ms)

    async def crash(self, error: BaseException) -> None:
        """Stop the worker."""
        await self.app.crash(error)

    def crash_soon(self, error: BaseException) -> None:
        """Stop the worker from synchronous code."""
        asyncio.get_running_loop().create_task(self.app.crash(error))

    @Service.task
    async def _take_checkpoints(self) -> None:
        while not self.should_stop:
            await self.sleep(_TICK_S)
            self.shards.start_due_checkpoint()

    @Service.task
    async def _renew_claims(self) -> None:
        while not self.should_stop:
            await self.sleep(_RENEWAL_POLL_S)
            await self.claims.renew_due()

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


class ShardRecovery(Recovery):
    """Faust's recovery, which tells how far it is."""

    _meter: RecoveryMeter | None = None

    def progress(self) -> RecoveryProgress | None:
        """How far the recovery is that is going on; None where there is none."""
        if self._meter is None:
            return None
        offsets = {self._place(tp): offset for tp, offset in self.active_offsets.items() if tp in self.active_tps}
        return self._meter.progress(offsets, time.monotonic())

    async def _seek_offsets(self, consumer: ConsumerT, tps: set[TP], offsets: Counter[TP], title: str) -> None:
        # The one moment at which both ends are known and nothing is read yet.
        if title == "active":
            starts = {self._place(tp): offsets[tp] for tp in tps}
            ends = {self._place(tp): self.active_highwaters[tp] for tp in tps}
            self._meter = RecoveryMeter(starts, ends, time.monotonic()) if tps else None
            self._tell("recovering")
        await super()._seek_offsets(consumer, tps, offsets, title)

    def _set_recovery_ended(self) -> None:
        super()._set_recovery_ended()
        self._tell("recovered")
        self._meter = None

    @Service.task
    async def _tell_regularly(self) -> None:
        while not self.should_stop:
            await self.sleep(_TELL_EVERY_S)
            self._tell("recovering")

    def _tell(self, what: str) -> None:
        progress = self.progress()
        for each in progress.tables if progress else ():
            metrics.RECOVERY_ROWS.labels(each.table).set(each.rows)
            metrics.RECOVERY_ROWS_LEFT.labels(each.table).set(each.rows - each.rows_read)
            log.info(
                what,
                table=each.table,
                partitions=each.partitions,
                rows_read=each.rows_read,
                rows=each.rows,
                percent=round(100 * each.rows_read / each.rows, 1) if each.rows else 100.0,
                rows_per_s=round(each.rows_read / progress.seconds) if progress and progress.seconds else 0,
            )

    def _place(self, tp: TP) -> tuple[str, int]:
        return str(self.tp_to_table[tp].name), tp.partition


class ShardTables(TableManager):
    """Faust's tables, whose recovery is a `ShardRecovery`; given to the app as `TableManager`."""

    async def on_start(self) -> None:
        """Start at once: the tables are all declared by now, for which Faust would wait a second."""
        await self._update_channels()
        await self.recovery.start()

    @property
    def recovery(self) -> ShardRecovery:
        """The service that restores tables."""
        if self._recovery is None:
            self._recovery = ShardRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return cast("ShardRecovery", self._recovery)

    def recovery_progress(self) -> RecoveryProgress | None:
        """How far the recovery is that is going on; None where there is none."""
        return self.recovery.progress() if self._recovery is not None else None
