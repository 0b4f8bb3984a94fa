"""The partitions of one stage at run time: when their state is written down, and what is acknowledged after that.

The order that makes state exactly-once: outputs acknowledged, then the checkpoint, then the source offsets.
Where checkpoints go is a protocol: a Faust changelog in a worker (`tables.changelog`), a list in a simulation.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from app import metrics
from app.domain.byte_column import bytes_of
from app.topics import MAX_CHECKPOINT_BYTES
from tables.cold import Cold, expire

if TYPE_CHECKING:
    from app.clock import Clock
    from tables.partition import PartitionState

__all__ = ["Acknowledged", "BrokenShardError", "CheckpointPolicy", "Checkpoints", "Pace", "Shard", "Shards", "Stage"]

log = structlog.get_logger(__name__)


_ROW_BYTES = 1000.0
"""Of a changed row in a checkpoint, until the first one tells."""

_FULL_BYTES = MAX_CHECKPOINT_BYTES // 8
_MOST_BYTES = MAX_CHECKPOINT_BYTES // 4
"""Changed, when no more may be applied before the next checkpoint: a step, and models twice, fit into what is left."""

_MANY_ROWS = 2_000
"""Changed, from which on it is measured what they take: rows of busy customers are many times those of others."""


class BrokenShardError(RuntimeError):
    """The state in memory is not that of any point in the log: only a new process, which recovers it, may go on."""


class Stage(Protocol):
    """The pure code of one partition."""

    @property
    def state(self) -> PartitionState:
        """All that must survive."""


class Acknowledged(Protocol):
    """A batch of the source, as the transport gave it."""

    def ack(self) -> bool:
        """Let the source's offset move behind it."""


class Checkpoints(Protocol):
    """The log that checkpoints are appended to."""

    async def append(self, partition: int, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> int:
        """Append one checkpoint, all or nothing; the offset of its last record, once no crash can lose it."""

    async def crash(self, error: BaseException) -> None:
        """Stop the worker: its memory is ahead of the log, and only a replay mends that."""


@dataclass(frozen=True, slots=True)
class CheckpointPolicy:
    """When a shard is written down, and how much of it stays in memory.

    Parameters
    ----------
    interval_s
        Time between the checkpoints of a shard.
    max_dirty_rows
        Changed rows that make one due sooner.
    max_active_keys
        Profiles in memory per partition, beyond which idle ones leave.
    idle_after_ms
        Time without an event after which a profile is idle.
    """

    interval_s: float
    max_dirty_rows: int
    max_active_keys: int
    idle_after_ms: int


class Pace:
    """Spreads the checkpoints of all tables of one worker: one after the other, they hold its loop as if they were one.

    Between two of them lies half of what an even distribution would give, so that none comes late.
    """

    def __init__(self) -> None:
        self._tables: list[Shards] = []
        self._last_s = -math.inf

    def join(self, shards: Shards) -> None:
        """Count the table's shards from now on."""
        self._tables.append(shards)

    def allows(self, now_s: float, interval_s: float) -> bool:
        """Whether another checkpoint may start now."""
        held = sum(len(shards.held) for shards in self._tables)
        return bool(now_s - self._last_s >= interval_s / (2 * held))

    def note(self, now_s: float) -> None:
        """Remember that one has started."""
        self._last_s = now_s


class Shard:
    """One partition at run time: its pure stage, what is not acknowledged yet, and its checkpoints.

    Parameters
    ----------
    shards
        Those of its stage.
    partition
        Which one.
    stage
        The pure code and its state.
    cold
        Where its idle profiles go.
    """

    def __init__(self, shards: Shards, partition: int, stage: Any, cold: Cold) -> None:  # noqa: ANN401 - see Stage
        self.partition = partition
        self.stage = stage
        self.cold = cold
        stage.state.profiles.cold = cold
        self.changelog_offset: int | None = None
        self.recovered_rows = 0
        self.checkpoints = 0
        self.replay_until = 0
        """Of the source topic: what lies below may have been decided on before a crash."""
        self._shards = shards
        self._events: list[Acknowledged] = []
        self._outputs: list[Awaitable[None]] = []
        self._running: asyncio.Task[None] | None = None
        self._row_bytes = _ROW_BYTES
        self._measured_rows = _MANY_ROWS
        self._is_broken = False
        self.last_start_s = shards.clock.monotonic_s()

    @contextmanager
    def applying(self) -> Iterator[None]:
        """Surround the application of one batch, up to `track`; no `await` within.

        A batch that fails half-way has moved the position but not all of the rows. The worker crashes then, yet it
        takes a moment to stop, in which a checkpoint may come due: it would lose the batch. So there is none any more.
        """
        was_broken, self._is_broken = self._is_broken, True
        yield
        self._is_broken = was_broken

    def track(self, event: Acknowledged, outputs: Awaitable[None]) -> None:
        """Note an applied batch: it is acknowledged with the next checkpoint, after its outputs.

        Called without an `await` between applying the batch and this: a checkpoint must see both or neither.
        """
        self._events.append(event)
        self._outputs.append(outputs)

    def due(self, now_s: float) -> bool:
        """Whether a checkpoint should start."""
        if self._is_broken or self._running is not None or not self._events:
            return False
        return self.is_full or now_s - self.last_start_s >= self._shards.policy.interval_s

    @property
    def unwritten(self) -> int:
        """Batches applied since the last checkpoint began."""
        return len(self._events)

    @property
    def is_full(self) -> bool:
        """Whether so much has changed that the next checkpoint should not wait for its time."""
        dirty: int = self.stage.state.profiles.dirty
        return dirty >= self._shards.policy.max_dirty_rows or self._changed_bytes() >= _FULL_BYTES

    def _changed_bytes(self) -> float:
        """What the next checkpoint will take, judged by the last one; measured again for each quarter more."""
        profiles = self.stage.state.profiles
        if profiles.dirty > self._measured_rows * 1.25:
            self._measured_rows = profiles.dirty
            self._row_bytes = profiles.dirty_bytes() / profiles.dirty
        return float(profiles.dirty * self._row_bytes)

    async def room(self) -> None:
        """Wait while more has changed than a checkpoint should hold: one that is late lets the next one grow.

        Raises
        ------
        BrokenShardError
            When a batch or a checkpoint has failed.
        """
        while self._changed_bytes() >= _MOST_BYTES:
            await asyncio.wait([self._running or self.start_checkpoint()])

    def start_checkpoint(self) -> asyncio.Task[None]:
        """Take a snapshot now, and write it once the outputs before it are acknowledged.

        Raises
        ------
        BrokenShardError
            When a batch or a checkpoint has failed.
        """
        if self._is_broken:
            raise BrokenShardError(f"{self._shards.name}-{self.partition}: a batch or a checkpoint has failed")
        started_s = self.last_start_s = self._shards.clock.monotonic_s()
        changed = self.stage.state.profiles.dirty
        keys, values = self.stage.state.export()
        if changed:  # they are in front
            self._row_bytes = bytes_of(values[:changed]) / changed
        self._measured_rows = _MANY_ROWS
        metrics.CHECKPOINT_EXPORT_SECONDS.labels(self._shards.name).observe(
            self._shards.clock.monotonic_s() - started_s
        )
        events, self._events = self._events, []
        outputs, self._outputs = self._outputs, []
        self._running = asyncio.create_task(self._write_checkpoint(keys, values, events, outputs))
        return self._running

    async def _write_checkpoint(
        self,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        events: Sequence[Acknowledged],
        outputs: Sequence[Awaitable[None]],
    ) -> None:
        shards = self._shards
        started_s = shards.clock.monotonic_s()
        try:
            for output in outputs:
                await output
            self.changelog_offset = await shards.log.append(self.partition, keys, values)
            self.stage.state.acknowledged()
            self.expire()
            self.checkpoints += 1
            self._measure(len(keys), shards.clock.monotonic_s() - started_s)
            for event in events:
                event.ack()
        except asyncio.CancelledError:
            self._is_broken = True
            raise
        except Exception as error:
            # An un-acked batch would block commits for ever, and the state in memory is now ahead of the log. The next
            # checkpoint must not go over that: it would cover batches whose outputs may be lost.
            self._is_broken = True
            log.exception("checkpoint failed", table=shards.name, partition=self.partition)
            await shards.log.crash(error)
            raise
        finally:
            self._running = None

    def expire(self) -> int:
        """Let idle profiles leave memory: those that the changelog has, and only where there are too many; how many."""
        policy = self._shards.policy
        return expire(
            self.stage.state.profiles,
            self.cold,
            idle_before_ms=self._shards.clock.now_ms() - policy.idle_after_ms,
            max_active=policy.max_active_keys,
        )

    def _measure(self, rows: int, seconds: float) -> None:
        name = self._shards.name
        metrics.CHECKPOINT_ROWS.labels(name).inc(rows)
        metrics.CHECKPOINT_SECONDS.labels(name).observe(seconds)
        state = self.stage.state
        metrics.PROFILES.labels(name, self.partition).set(len(state.profiles))
        metrics.IDS.labels(name, self.partition).set(sum(map(len, state.memories.values())))

    def close(self) -> None:
        """Give up what the shard holds beside memory, and what is told of it."""
        self.cold.close()
        if self.checkpoints:
            metrics.PROFILES.remove(self._shards.name, self.partition)
            metrics.IDS.remove(self._shards.name, self.partition)

    async def flush(self) -> None:
        """Bring everything applied so far to the log: outputs, checkpoint, acknowledgements.

        Raises
        ------
        BrokenShardError
            When a batch or a checkpoint has failed.
        """
        while self._running is not None:
            await self._running
        await self.start_checkpoint()

    @property
    def idle(self) -> bool:
        """Whether everything applied is in the log, and the state no further."""
        return self._running is None and not self._events and not self._is_broken


class Shards:
    """The shards of one stage that this worker holds.

    Parameters
    ----------
    name
        Of the stage's table.
    make_stage, make_cold
        Make the pure stage of a partition, empty, and the room for its idle profiles.
    policy
        When shards are written down.
    clock
        Of the worker.
    log
        Takes the checkpoints.
    pace
        Of the worker; its own if not given.
    """

    def __init__(
        self,
        name: str,
        make_stage: Callable[[int], Stage],
        make_cold: Callable[[int], Cold],
        policy: CheckpointPolicy,
        clock: Clock,
        log: Checkpoints,
        pace: Pace | None = None,
    ) -> None:
        self.name = name
        self.policy = policy
        self.clock = clock
        self.log = log
        self.held: dict[int, Shard] = {}
        self._pace = pace or Pace()
        self._pace.join(self)
        self._make_stage = make_stage
        self._make_cold = make_cold

    def __len__(self) -> int:
        """Return the number of profiles in memory."""
        return sum(len(shard.stage.state.profiles) for shard in self.held.values())

    def shard(self, partition: int) -> Shard:
        """The shard of a partition, made empty where there is none."""
        shard = self.held.get(partition)
        if shard is None:
            shard = Shard(self, partition, self._make_stage(partition), self._make_cold(partition))
            self.held[partition] = shard
        return shard

    def keep(self, partitions: set[int]) -> None:
        """Forget all shards but these."""
        for partition in set(self.held) - partitions:
            self.held.pop(partition).close()

    @contextmanager
    def applying(self, held: Iterable[Shard]) -> Iterator[None]:
        """Surround a step that applies a batch to each of several shards: `Shard.applying`."""
        with ExitStack() as stack:
            for shard in held:
                stack.enter_context(shard.applying())
            yield

    async def room(self, held: Iterable[Shard]) -> None:
        """Wait until all of these shards can take a step: `Shard.room`."""
        for shard in held:
            await shard.room()

    def start_due_checkpoint(self) -> None:
        """Start one checkpoint if any is due and the pace allows: the loop is never held for long."""
        now_s = self.clock.monotonic_s()
        due = [shard for shard in self.held.values() if shard.due(now_s)]
        if not due:
            return
        shard = min(due, key=lambda shard: shard.last_start_s)
        if shard.is_full or self._pace.allows(now_s, self.policy.interval_s):
            self._pace.note(now_s)
            shard.start_checkpoint()

    async def flush(self) -> None:
        """Bring every shard's work to the log."""
        await asyncio.gather(*(shard.flush() for shard in self.held.values() if not shard.idle))
