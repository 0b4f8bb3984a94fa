"""Checkpoints of a shard: nothing that failed half-way is ever written down."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from app.clock import SYSTEM_CLOCK
from app.domain.records import Stretch
from app.topics import MAX_CHECKPOINT_BYTES
from tables.ids import IdMemory
from tables.layout import EVENT_DTYPE
from tables.partition import PartitionState
from tables.profiles import Profiles
from tables.shards import BrokenShardError, CheckpointPolicy, Pace, Shard, Shards

TOPIC = "pix-transactions"
POLICY = CheckpointPolicy(interval_s=0, max_dirty_rows=1, max_active_keys=1000, idle_after_ms=0)


class ListedLog:
    """Checkpoints in a list."""

    def __init__(self) -> None:
        self.appended: list[Sequence[bytes]] = []
        self.crashes: list[BaseException] = []

    async def append(self, _partition: int, keys: Sequence[bytes], _values: Sequence[bytes | None]) -> int:
        """Append one checkpoint."""
        self.appended.append(keys)
        return len(self.appended)

    async def crash(self, error: BaseException) -> None:
        """Note that the worker must stop."""
        self.crashes.append(error)


class CountingStage:
    """Moves its position, then fails where it is told to."""

    def __init__(self) -> None:
        dtype = np.dtype([("id", "S32"), ("timestamp", "i8")])
        self.state = PartitionState(Profiles("receiver"), {"payments": IdMemory(dtype, 1000, 1000)})

    def apply(self, offset: int, *, fails: bool = False) -> None:
        """Take one record."""
        self.state.accept(TOPIC, Stretch(offset, offset + 1, [None], [b""], [offset], [0]))
        if fails:
            raise OSError("the disk is full")


class NoRoom:
    """A `Cold` that nothing is sent to."""

    def put(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Take nothing."""

    def load(self, _hashes: Any) -> dict[int, bytes]:  # noqa: ANN401 - an array
        """Have nothing."""
        return {}

    def discard(self, hashes: Any) -> None:  # noqa: ANN401 - an array
        """Forget nothing."""

    def close(self) -> None:
        """End."""


class Batch:
    """A batch that knows whether it was acknowledged."""

    acked = False

    def ack(self) -> bool:
        """Acknowledge."""
        self.acked = True
        return True


def made(log: ListedLog) -> tuple[Shards, Shard]:
    """Return the shards of a stage, and one of them."""
    shards = Shards(
        "receivers", lambda _partition: CountingStage(), lambda _partition: NoRoom(), POLICY, SYSTEM_CLOCK, log
    )
    return shards, shards.shard(0)


def sent() -> asyncio.Future[None]:
    """Return outputs that have been acknowledged."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


def applied(shard: Shard, offset: int, outputs: Any = None, *, fails: bool = False) -> Batch:  # noqa: ANN401 - awaitable
    """Apply a batch as the agents do."""
    batch = Batch()
    with shard.applying():
        shard.stage.apply(offset, fails=fails)
        shard.track(batch, sent() if outputs is None else outputs)
    return batch


async def test_a_batch_that_failed_is_never_in_a_checkpoint() -> None:
    """A checkpoint that comes due between the failure and the end of the worker would carry the position past it."""
    log = ListedLog()
    shards, shard = made(log)
    first = applied(shard, 0)
    with pytest.raises(OSError, match="disk"):
        applied(shard, 1, fails=True)
    applied(shard, 2)  # the worker has not stopped yet
    shards.start_due_checkpoint()
    await asyncio.sleep(0)
    with pytest.raises(BrokenShardError, match="receivers-0"):
        await shards.flush()
    assert (log.appended, first.acked) == ([], False)


async def test_after_a_failed_checkpoint_there_is_no_other() -> None:
    """The next one would cover batches whose outputs never arrived."""
    log = ListedLog()
    shards, shard = made(log)
    lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    lost.set_exception(OSError("no answer"))
    first = applied(shard, 0, lost)
    shards.start_due_checkpoint()
    await asyncio.sleep(0.01)
    applied(shard, 1)
    shards.start_due_checkpoint()
    await asyncio.sleep(0.01)
    assert [type(error) for error in log.crashes] == [OSError]
    assert (log.appended, first.acked) == ([], False)


async def test_batches_are_acknowledged_with_their_checkpoint() -> None:
    """Outputs, then the checkpoint, then the acknowledgement."""
    log = ListedLog()
    shards, shard = made(log)
    outputs: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    batch = applied(shard, 0, outputs)
    shards.start_due_checkpoint()
    await asyncio.sleep(0)
    assert (log.appended, batch.acked) == ([], False)
    outputs.set_result(None)
    await shards.flush()
    assert log.appended
    assert batch.acked


async def test_a_step_waits_while_more_has_changed_than_a_checkpoint_holds() -> None:
    """A checkpoint that waits for its outputs lets the next one grow; above a record batch's limit it never ends."""
    log = ListedLog()
    shards, shard = made(log)
    outputs: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    applied(shard, 0, outputs)
    shards.start_due_checkpoint()
    await asyncio.sleep(0)
    await shards.room([shard])  # nothing has changed since
    event = np.zeros(1, EVENT_DTYPE)
    event["key"], event["timestamp"], event["counts"] = 7, 1_790_000_000_000, 1
    shard.stage.state.profiles.update(event)
    applied(shard, 1)
    shard._row_bytes = MAX_CHECKPOINT_BYTES
    room = asyncio.ensure_future(shards.room([shard]))
    await asyncio.sleep(0.01)
    assert (room.done(), log.appended) == (False, [])
    outputs.set_result(None)
    await room
    assert len(log.appended) == 2  # the late one, and one more for what had changed meanwhile


async def test_what_has_changed_is_measured_where_it_is_much() -> None:
    """Rows that had little in the last checkpoint and much in the next one: a worker crashed over 19 MB of them."""
    log = ListedLog()
    shards, shard = made(log)
    outputs: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    events = np.zeros(20_000, EVENT_DTYPE)
    events["key"] = np.arange(1, len(events) + 1)
    events["timestamp"], events["counts"] = 1_790_000_000_000, 1
    profiles = shard.stage.state.profiles
    profiles.update(events)
    applied(shard, 0)
    await shards.flush()
    small = shard._row_bytes
    for number in range(60):
        events["timestamp"] += 1000
        events["other"], events["amount"] = number + 1, 100
        profiles.update(events)
    assert small * profiles.dirty < MAX_CHECKPOINT_BYTES // 4  # as one would have thought
    assert profiles.dirty_bytes() > MAX_CHECKPOINT_BYTES // 4
    applied(shard, 1, outputs)
    shards.start_due_checkpoint()
    profiles.update(events)
    room = asyncio.ensure_future(shards.room([shard]))
    await asyncio.sleep(0.01)
    assert not room.done()
    outputs.set_result(None)
    await room


async def test_checkpoints_of_all_tables_are_spread_over_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tables with four shards: none starts within an eighth of the interval after another, except a full one."""
    now_s, log, pace = [100.0], ListedLog(), Pace()
    monkeypatch.setattr(type(SYSTEM_CLOCK), "monotonic_s", lambda _self: now_s[0])
    policy = CheckpointPolicy(interval_s=1.0, max_dirty_rows=1, max_active_keys=1000, idle_after_ms=0)
    tables = [
        Shards(name, lambda _: CountingStage(), lambda _: NoRoom(), policy, SYSTEM_CLOCK, log, pace)
        for name in ("receivers", "payers")
    ]
    shards = [table.shard(partition) for table in tables for partition in range(2)]
    now_s[0] += 2
    offsets = [0] * 4
    starts: list[float] = []
    for _ in range(200):
        for number, shard in enumerate(shards):
            if not shard._events:
                applied(shard, offsets[number])
                offsets[number] += 1
        for table in tables:
            before = [shard.last_start_s for shard in shards]
            table.start_due_checkpoint()
            starts += [now_s[0]] * (before != [shard.last_start_s for shard in shards])
            await asyncio.sleep(0)
        now_s[0] += 0.02
    gaps = np.diff(starts)
    assert gaps.min() >= 1 / 8
    assert 12 <= len(starts) <= 17  # each shard about once a second, for four seconds
    event = np.zeros(1, EVENT_DTYPE)
    event["key"], event["timestamp"], event["counts"] = 7, 1_790_000_000_000, 1
    shards[0].stage.state.profiles.update(event)
    applied(shards[0], offsets[0])
    started_s = shards[0].last_start_s
    tables[0].start_due_checkpoint()
    assert shards[0].last_start_s > started_s
