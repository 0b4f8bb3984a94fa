"""Decisions, vectors and labels into the lake: batches are gathered, and written off the loop, a commit at a time.

The table's log is the truth: on assignment its positions are sought, not the group's, so a lake that is older, or was
made anew, is written from where it ends. The order that loses nothing: dead letters acknowledged, then the commit in
Delta, then the source offsets. While storage fails, what was read stays in memory, no more of it is fetched than
`max_pending_records` of a partition, and the same rows are tried again and again. What cannot be written before the
partitions go elsewhere is given back unacknowledged, and read again by their next owner.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
import structlog
from aiokafka.errors import ConsumerStoppedError, KafkaError
from faust.types import TP
from mode import Service

from agents.outbox import Outbox
from app import archive_metrics
from app.batching import Batch, BatchApp, BatchSchema
from app.clock import Clock
from app.domain.rejection import Rejection, Source, encode_dead_letter
from app.topics import REJECTED
from models.stages.outputs import keyed_sends
from tables.lake_columns import LakeKind
from tables.lake_errors import LakeError
from tables.lake_table import LakeTable, Span, app_id

__all__ = ["Archive", "archive_agents"]

log = structlog.get_logger(__name__)

_TICK_S = 0.05
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 8.0
_HANDOVER_S = 8.0
"""How long a handover tries to write what was read: less than a service manager waits before it kills."""

_ASSIGN_S = 5.0
"""How long assignment waits for storage; then reading begins where the group was, and rows wait in memory."""

_STEP_RECORDS = 2_000
"""Converted at a time: the interpreter's lock is held no longer than this takes, some 20 ms."""


Result = TypeVar("Result")


class RemadeTopicError(RuntimeError):
    """A topic ends before what the lake holds of it: it is another topic by the same name."""


@dataclass
class _Writing:
    """One table, and what was read for it and is not written yet."""

    kind: LakeKind
    table: LakeTable
    events: deque[Any] = field(default_factory=deque)
    rows: int = 0
    pending: dict[TP, int] = field(default_factory=dict)
    written: dict[TP, int] = field(default_factory=dict)
    since_s: float = 0.0
    error: str | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    first_held: dict[TP, int] = field(default_factory=dict)
    ends: dict[TP, int] = field(default_factory=dict)


class Archive(Service):
    """The tables of this process.

    Parameters
    ----------
    app, outbox, clock
        Of the process.
    tables
        What each table is, and where it is written.
    commit_rows, commit_s
        A commit is due when it would have so many rows, or its first has waited for so long.
    partitions
        Of `pix-rejected`.
    """

    def __init__(
        self,
        app: BatchApp,
        outbox: Outbox,
        clock: Clock,
        tables: Sequence[tuple[LakeKind, LakeTable]],
        commit_rows: int,
        commit_s: float,
        partitions: int,
    ) -> None:
        super().__init__()
        self._app = app
        self._outbox = outbox
        self._clock = clock
        self._writings = [_Writing(kind, table) for kind, table in tables]
        self._commit_rows = commit_rows
        self._commit_s = commit_s
        self._partitions = partitions
        self._assignment = 0

    @property
    def writings(self) -> Sequence[_Writing]:
        """All tables."""
        return self._writings

    # -- partitions

    async def assign(self, assigned: set[TP]) -> None:
        """Seek what is assigned to where its table ends."""
        self._assignment += 1
        own = max(1, len({tp.partition for tp in assigned}))
        # Of each table about three commits: one being written, one that is due, and one on its way.
        self._app.max_pending_records = max(self._app.fetch_max_records, 3 * self._commit_rows // own)
        for writing in self._writings:
            writing.written.clear()
            writing.first_held.clear()
        await asyncio.gather(
            *(
                self._seek(writing, sorted(tp for tp in assigned if tp.topic == writing.kind.topic))
                for writing in self._writings
            )
        )

    async def _seek(self, writing: _Writing, tps: Sequence[TP]) -> None:
        if not tps:
            return
        consumer = self._app.batch_consumer
        starts, ends = await consumer.earliest_offsets(*tps), await consumer.highwaters(*tps)
        writing.first_held = {tp: starts[tp] or 0 for tp in tps}
        held = await self._held(writing, tps)
        if held is None:
            return
        for tp in tps:
            start, position = starts[tp] or 0, held.get(app_id(*tp), -1) + 1
            if position > (ends[tp] or 0):
                raise RemadeTopicError(
                    f"{tp.topic}-{tp.partition}: expected an end at offset {position} or later, which the lake holds, "
                    f"got {ends[tp]}. The topic was made anew: set `lake` to a new place, and start the archive again."
                )
            if app_id(*tp) in held and position < start:
                archive_metrics.LOST.labels(writing.kind.name).inc(start - position)
                log.error(
                    "rows lost: their topic dropped them first",
                    topic=tp.topic,
                    partition=tp.partition,
                    first=position,
                    last=start - 1,
                    mend="raise retention.ms of the topic, or keep an archive running",
                )
            writing.written[tp] = max(start, position)
            await consumer.seek(tp, writing.written[tp])

    async def _held(self, writing: _Writing, tps: Sequence[TP]) -> dict[str, int] | None:
        """Return the table's positions; None where storage does not answer in time."""
        names = [app_id(*tp) for tp in tps]
        try:
            async with asyncio.timeout(_ASSIGN_S):
                while True:
                    try:
                        return await asyncio.to_thread(writing.table.positions, names, refresh=True)
                    except LakeError as error:
                        self._failed(writing, error, _FIRST_PAUSE_S)
                    await asyncio.sleep(_FIRST_PAUSE_S)
        except TimeoutError:
            return None

    async def revoke(self) -> None:
        """Write what was read, as far as storage takes it in time; give the rest back."""
        try:
            async with asyncio.timeout(_HANDOVER_S):
                await asyncio.gather(*(self._drain(writing) for writing in self._writings))
        except TimeoutError:
            log.warning("given back unwritten", rows=sum(writing.rows for writing in self._writings))
        self._assignment += 1
        for writing in self._writings:
            self._app.batch_consumer.give_back(writing.events)
            writing.events.clear()
            writing.rows = 0
            writing.pending.clear()

    async def _drain(self, writing: _Writing) -> None:
        while writing.events:
            await self._write(writing)

    # -- rows

    def take(self, writing: _Writing, event: Any) -> None:  # noqa: ANN401 - Faust's event
        """Keep a batch until it is written, which acknowledges it. Never waits: see `max_pending_records`."""
        if not writing.events:
            writing.since_s = self._clock.monotonic_s()
        batch: Batch = event.value
        writing.events.append(event)
        writing.rows += len(batch)
        writing.pending[batch.tp] = writing.pending.get(batch.tp, 0) + len(batch)

    def is_due(self, writing: _Writing) -> bool:
        """Tell whether a commit is worth its while."""
        if not writing.events:
            return False
        is_full = max(writing.pending.values()) >= min(self._commit_rows, self._app.max_pending_records)
        is_old = self._clock.monotonic_s() - writing.since_s >= self._commit_s
        return writing.rows >= self._commit_rows or is_full or is_old

    async def _write(self, writing: _Writing) -> None:
        """Write about one commit's rows, trying until storage takes them or the partitions have gone."""
        async with writing.turn:
            events = self._next(writing)
            if not events:
                return
            assignment, started_s = self._assignment, self._clock.monotonic_s()
            batches = _joined(event.value for event in events)
            names = sorted(app_id(*batch.tp) for batch in batches)
            held = await self._persist(writing, lambda: writing.table.positions(names))
            if held is None:
                return
            # Once, however often the commit is tried: dead letters are not to be sent again and again.
            rows = await self._convert(
                writing.kind, [_after(batch, held.get(app_id(*batch.tp), -1)) for batch in batches]
            )
            spans = [
                Span(*batch.tp, batch.base, batch.next_offset - 1, writing.first_held.get(batch.tp, 0))
                for batch in batches
            ]
            written = await self._persist(writing, lambda: writing.table.append(rows, spans))
            if written is not None and assignment == self._assignment:
                self._finish(writing, events, written, started_s)

    async def _persist(self, writing: _Writing, deed: Callable[[], Result]) -> Result | None:
        """Do it in a thread until storage lets it, with growing pauses; None where the partitions have gone."""
        assignment, pause_s = self._assignment, _FIRST_PAUSE_S
        while True:
            try:
                return await asyncio.to_thread(deed)
            except LakeError as error:
                self._failed(writing, error, pause_s)
            await self.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            if assignment != self._assignment or self.should_stop:
                return None

    def _next(self, writing: _Writing) -> list[Any]:
        events, rows = [], 0
        for event in writing.events:
            events.append(event)
            rows += len(event.value)
            if rows >= self._commit_rows:
                break
        return events

    async def _convert(self, kind: LakeKind, batches: Sequence[Batch]) -> pa.Table:
        """Return the rows of batches; what cannot be read is acknowledged as dead letters by then."""
        converted = [await asyncio.to_thread(_converted, kind, batch) for batch in batches]
        letters = [letter for _, faults in converted for letter in faults]
        if letters:
            await self._reject(kind, letters)
        return pa.concat_tables([kind.schema.empty_table(), *(table for tables, _ in converted for table in tables)])

    async def _reject(
        self, kind: LakeKind, letters: Sequence[tuple[Rejection, Source, bytes | None, bytes | None]]
    ) -> None:
        messages = [(key, encode_dead_letter(fault, source, key, value)) for fault, source, key, value in letters]
        await self._outbox.put(keyed_sends(REJECTED, self._partitions, messages))
        for fault, source, _, _ in letters:
            archive_metrics.REJECTED.labels(kind.name, fault.reason).inc()
            log.warning("unreadable, sent to pix-rejected", table=kind.name, topic=source.topic,
                        partition=source.partition, offset=source.offset, path=fault.path, got=fault.got)  # fmt: skip

    def _finish(self, writing: _Writing, events: Sequence[Any], rows: int, started_s: float) -> None:
        name, now_ms = writing.kind.name, self._clock.now_ms()
        if writing.error is not None:
            log.info("storage takes rows again", table=name, uri=writing.table.uri)
            writing.error = None
        first_ms = min((time for event in events for time in event.value.timestamps_ms[:1]), default=now_ms)
        archive_metrics.ROWS.labels(name).inc(rows)
        archive_metrics.COMMIT_SECONDS.labels(name).observe(self._clock.monotonic_s() - started_s)
        archive_metrics.DELAY_SECONDS.labels(name).observe(max(0, now_ms - first_ms) / 1000)
        for event in events:
            batch: Batch = event.value
            writing.events.popleft()
            writing.rows -= len(batch)
            writing.pending[batch.tp] -= len(batch)
            writing.written[batch.tp] = batch.next_offset
            event.ack()
        writing.since_s = self._clock.monotonic_s()

    def _failed(self, writing: _Writing, error: LakeError, pause_s: float) -> None:
        writing.error = str(error)
        archive_metrics.RETRIES.labels(writing.kind.name).inc()
        log.warning("storage failed, tried again", table=writing.kind.name, error=str(error), in_s=pause_s,
                    rows_waiting=writing.rows)  # fmt: skip

    # -- tasks

    @Service.task
    async def _write_all(self) -> None:
        await asyncio.gather(*(self._write_regularly(writing) for writing in self._writings))

    async def _write_regularly(self, writing: _Writing) -> None:
        while not self.should_stop:
            if not self.is_due(writing):
                await self.sleep(_TICK_S)
                continue
            try:
                await self._write(writing)
            except Exception as error:
                log.exception("archive failed", table=writing.kind.name)
                await self._app.crash(error)
                raise

    @Service.task
    async def _tell(self) -> None:
        while not self.should_stop:
            await self._note_ends()
            for writing in self._writings:
                name, told = writing.kind.name, self._status(writing)
                archive_metrics.LAG_ROWS.labels(name).set(told["lag_rows"])
                archive_metrics.OLDEST_SECONDS.labels(name).set(told["oldest_s"])
            await self.sleep(1.0)

    async def _note_ends(self) -> None:
        """Ask where the topics end: what the last fetch told is old where no more is fetched."""
        tps = [tp for writing in self._writings for tp in writing.written]
        try:
            ends = await self._app.batch_consumer.highwaters(*tps) if tps else {}
        except (KafkaError, ConsumerStoppedError) as error:
            log.warning("ends of topics not known", error=str(error))
            return
        for writing in self._writings:
            writing.ends = {tp: ends[tp] or 0 for tp in writing.written if tp in ends}

    def _status(self, writing: _Writing) -> dict[str, Any]:
        oldest_ms = min((time for event in writing.events for time in event.value.timestamps_ms[:1]), default=None)
        oldest_s = 0.0 if oldest_ms is None else max(0.0, (self._clock.now_ms() - oldest_ms) / 1000)
        return {
            "table": writing.kind.name,
            "uri": writing.table.uri,
            "lag_rows": sum(max(0, writing.ends.get(tp, 0) - offset) for tp, offset in writing.written.items()),
            "waiting_rows": writing.rows,
            "oldest_s": oldest_s,
            "error": writing.error,
            "written": {f"{tp.topic}-{tp.partition}": offset for tp, offset in sorted(writing.written.items())},
        }

    def status(self) -> list[dict[str, Any]]:
        """What each table is at, for people and probes."""
        return [self._status(writing) for writing in self._writings]


def _joined(batches: Iterable[Batch]) -> list[Batch]:
    """Return one batch for each partition: two hundred columns cost the same for one row as for a hundred."""
    by_partition: defaultdict[TP, list[Batch]] = defaultdict(list)
    for batch in batches:
        by_partition[batch.tp].append(batch)
    return [Batch.joined(parts) for parts in by_partition.values()]


def _after(batch: Batch, last: int) -> Batch:
    """Return what of a batch a table lacks that holds everything up to `last`."""
    return batch.trim(min(max(batch.base, last + 1), batch.next_offset))


def _converted(
    kind: LakeKind, batch: Batch
) -> tuple[list[pa.Table], list[tuple[Rejection, Source, bytes | None, bytes | None]]]:
    tables, letters = [], []
    for piece in batch.pieces(_STEP_RECORDS, batch.nbytes + 1):
        converted = kind.convert(batch.tp.partition, piece)
        tables.append(converted.rows)
        for position, fault in converted.rejected:
            source = Source(batch.tp.topic, batch.tp.partition, piece.offsets[position], piece.timestamps_ms[position])
            letters.append((fault, source, piece.keys[position], piece.values[position]))
    return tables, letters


def archive_agents(app: BatchApp, archive: Archive) -> None:
    """Register an agent for each table on `app`."""
    for writing in archive.writings:
        _archive_agent(app, archive, writing)


def _archive_agent(app: BatchApp, archive: Archive, writing: _Writing) -> None:
    @app.agent(app.topic(writing.kind.topic, schema=BatchSchema()), name=f"archive-{writing.kind.name}")
    async def agent(stream: Any) -> None:  # noqa: ANN401 - Faust's stream
        async for events in app.rounds(stream):
            for event in events:
                archive.take(writing, event)
