"""Vectors and feedback, co-partitioned: `pix-features` and `pix-feedback` to `pix-labelled` and `pix-rejected`.

The order that loses nothing: outputs acknowledged, then the store with its position, then the source offsets. On
assignment the store's position counts and not the group's, which is ahead of a store that is older, or was lost, or is
another replica's. So a store catches up by itself, and a new one is made again from the topics.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog
from faust.types import TP

from agents.learner_log import read_places
from agents.outbox import Outbox
from app import learner_metrics, metrics
from app.batching import Batch, BatchApp, BatchSchema
from app.clock import Clock
from app.domain.records import Records
from app.topics import FEATURES, FEEDBACK
from models.labels.joining import Joiner, JoinOutput
from tables.awaiting import Awaiting

__all__ = ["Joined", "joining_agents"]

log = structlog.get_logger(__name__)

_TELL_EVERY_S = 5.0
_AHEAD_POLL_S = 0.02


class _Part:
    """One partition, whose two topics take turns."""

    def __init__(self, joiner: Joiner, clock: Clock) -> None:
        self.joiner = joiner
        self.lock = asyncio.Lock()
        self.features = TP(FEATURES.name, joiner.partition)
        self.feedback = TP(FEEDBACK.name, joiner.partition)
        self.committed = (0, 0)
        self.told_s = clock.monotonic_s()

    def records_left(self) -> int:
        """How many records there are until the store is what an earlier owner had."""
        return sum(max(0, until - at) for until, at in zip(self.committed, self.joiner.reached, strict=True))


class Joined:
    """The partitions of this process.

    Parameters
    ----------
    app, outbox, clock
        Of the process.
    folder
        Where the stores lie, one folder for each partition.
    connection
        Arguments of aiokafka's clients.
    make_joiner
        Makes the pure part of a partition on its store.
    see
        Is shown each batch of vectors: repeats too, after a store was lost.
    """

    def __init__(
        self,
        app: BatchApp,
        outbox: Outbox,
        clock: Clock,
        folder: Path,
        connection: Mapping[str, Any],
        make_joiner: Callable[[int, Awaiting], Joiner],
        see: Callable[[Records], None],
    ) -> None:
        self._app = app
        self._connection = connection
        self._outbox = outbox
        self._clock = clock
        self._folder = folder
        self._make_joiner = make_joiner
        self._see = see
        self._held: dict[int, _Part] = {}

    async def assign(self, assigned: set[TP]) -> None:
        """Open the stores of what is assigned, and seek both topics to where each store is."""
        partitions = {tp.partition for tp in assigned if tp.topic == FEATURES.name}
        for partition in set(self._held) - partitions:
            self._close(partition)
        behind = [partition for partition in sorted(partitions) if await self._resume(partition)]
        if behind:
            places = await read_places(self._connection)
            for partition in behind:
                self._held[partition].joiner.sent_until = places.get(partition, -1) + 1

    async def _resume(self, partition: int) -> bool:
        """Seek one partition; whether its store is behind what an earlier owner had."""
        part = self._held.get(partition) or self._open(partition)
        tps = (part.features, part.feedback)
        consumer = self._app.batch_consumer
        starts = await consumer.earliest_offsets(*tps)
        ends = await consumer.highwaters(*tps)
        committed = [progress.expected if (progress := consumer.progress(tp)) else None for tp in tps]
        for tp, position in zip(tps, _positions(part), strict=True):
            # Also a topic that was made anew: the store tells of payments that are in no topic.
            if position is not None and not (starts[tp] or 0) <= position <= (ends[tp] or 0):
                log.warning("store is of another time, made again", topic=tp.topic, partition=partition, at=position)
                self._close(partition)
                await asyncio.to_thread(Awaiting.remove, self._path(partition))
                part = self._open(partition)
                break
        joiner = part.joiner
        joiner.begins = ((starts[tps[0]] or 0), (starts[tps[1]] or 0))
        joiner.ends = ((ends[tps[0]] or 0), (ends[tps[1]] or 0))
        part.committed = (committed[0] or 0, committed[1] or 0)
        for tp, position in zip(tps, _positions(part), strict=True):
            await consumer.seek(tp, (starts[tp] or 0) if position is None else position)
        if left := part.records_left():
            log.info("rebuilding", partition=partition, records_left=left)
        return left > 0 or None in _positions(part)

    def status(self) -> list[dict[str, object]]:
        """What each partition is at, for people and probes."""
        return [
            {
                "partition": partition,
                "features": part.joiner.positions.features,
                "feedback": part.joiner.positions.feedback,
                "matured": part.joiner.positions.matured,
                "watermark": part.joiner.positions.watermark,
                "waiting": part.joiner.waiting,
                "records_left": part.records_left(),
            }
            for partition, part in sorted(self._held.items())
        ]

    def close(self) -> None:
        """Close all stores."""
        for partition in list(self._held):
            self._close(partition)

    async def take(self, event: Any) -> None:  # noqa: ANN401 - Faust's event
        """Join one batch of either topic, and acknowledge it."""
        records: Batch = event.value
        part = self._held[records.tp.partition]
        joiner = part.joiner
        is_vectors = records.tp == part.features
        while not is_vectors and self._app.sources_open and joiner.is_ahead(records):  # noqa: ASYNC110 - of other agents
            await asyncio.sleep(_AHEAD_POLL_S)
        await self._outbox.room()
        async with part.lock:
            await self._note_ends(part)
            output = joiner.take_vectors(records) if is_vectors else joiner.take_feedback(records)
            await self._finish(part, output)
            while output.is_unfinished:
                output = joiner.mature()
                await self._finish(part, output)
        if is_vectors:
            learner_metrics.VECTORS.inc(len(records))
            self._see(records)
        self._tell(part)
        event.ack()

    async def _note_ends(self, part: _Part) -> None:
        """Ask where both topics end now, which is after the batch in hand was fetched.

        What the last fetch told is not enough: a payment may be here while feedback that was sent before it is not.
        """
        ends = await self._app.batch_consumer.highwaters(part.features, part.feedback)
        part.joiner.ends = (ends[part.features] or 0, ends[part.feedback] or 0)

    async def _finish(self, part: _Part, output: JoinOutput) -> None:
        await self._outbox.put(output.sends)
        part.joiner.awaiting.commit()
        for (kind, basis, label), count in output.labels.items():
            learner_metrics.LABELLED.labels(kind, basis, label).inc(count)
        for delay_ms in output.delays_ms:
            learner_metrics.LABEL_DELAY_SECONDS.observe(delay_ms / 1000)
        learner_metrics.DROPPED.inc(output.dropped)
        learner_metrics.UNREADABLE.inc(output.unreadable)
        metrics.count_rejections(output.rejections)

    def _tell(self, part: _Part) -> None:
        joiner = part.joiner
        partition = joiner.partition
        learner_metrics.WAITING.labels(partition).set(joiner.waiting)
        learner_metrics.MATURITY_LAG_SECONDS.labels(partition).set(joiner.lag_ms() / 1000)
        learner_metrics.WATERMARK.labels(partition).set(joiner.positions.watermark / 1000)
        left = part.records_left()
        learner_metrics.REBUILD_RECORDS_LEFT.labels(partition).set(left)
        now_s = self._clock.monotonic_s()
        if now_s - part.told_s >= _TELL_EVERY_S:
            part.told_s = now_s
            learner_metrics.HELD_BYTES.labels(partition).set(joiner.awaiting.nbytes)
            if left:
                log.info("rebuilding", partition=partition, records_left=left)

    def _open(self, partition: int) -> _Part:
        part = _Part(self._make_joiner(partition, Awaiting(self._path(partition))), self._clock)
        self._held[partition] = part
        return part

    def _close(self, partition: int) -> None:
        self._held.pop(partition).joiner.awaiting.close()
        for gauge in (
            learner_metrics.WAITING,
            learner_metrics.MATURITY_LAG_SECONDS,
            learner_metrics.WATERMARK,
            learner_metrics.REBUILD_RECORDS_LEFT,
            learner_metrics.HELD_BYTES,
        ):
            gauge.clear()

    def _path(self, partition: int) -> Path:
        return self._folder / str(partition)


def _positions(part: _Part) -> tuple[int | None, int | None]:
    return part.joiner.positions.features, part.joiner.positions.feedback


def joining_agents(app: BatchApp, joined: Joined) -> None:
    """Register both agents on `app`."""

    @app.agent(app.topic(FEATURES.name, schema=BatchSchema()), name="vectors")
    async def vectors(stream: Any) -> None:  # noqa: ANN401 - Faust's stream
        async for events in app.rounds(stream):
            await asyncio.gather(*map(joined.take, events))

    @app.agent(app.topic(FEEDBACK.name, schema=BatchSchema()), name="labels")
    async def labels(stream: Any) -> None:  # noqa: ANN401 - Faust's stream
        async for events in app.rounds(stream):
            await asyncio.gather(*map(joined.take, events))
