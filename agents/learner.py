"""Matured labels into the online model: `pix-labelled` to `pix-online-model`, by the one owner of its one partition.

The learner's truth is its last checkpoint in `pix-online-model`: the model with the offset of `pix-labelled` up to
which it has learned, in ONE record batch with the snapshot that scorers take. Whoever is assigned the partition claims
the topic, so that a predecessor that does not know of its end cannot append any more, reads the last checkpoint and
goes on from its offset: every label is learned once, whatever the group has committed.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import structlog
from faust.types import TP
from mode import Service

from agents.learner_log import CHECKPOINT_KEY, SNAPSHOT_KEY, Checkpoint, encode_checkpoint, read_checkpoint
from app import learner_metrics
from app.batching import Batch, BatchApp, BatchSchema, Claims
from app.clock import Clock
from app.domain.labelled import Labelled, LabelledError, decode_labelled
from app.topics import LABELLED, ONLINE_MODEL

if TYPE_CHECKING:
    from models.online.learner import OnlineLearner

__all__ = ["Learning", "learner_agent"]

log = structlog.get_logger(__name__)

_SOURCE = TP(LABELLED.name, 0)
_SLICE = 8
"""Labels learned before the loop may go on with others: some 10 ms."""

_MOST_PENDING = 20_000
"""Labels that are not in a checkpoint, at most, however soon they come."""

_TICK_S = 0.1


class Learning(Service):
    """The learner of this process; without one while another process owns the partition.

    Parameters
    ----------
    app, clock
        Of the process.
    connection
        Arguments of aiokafka's clients.
    make
        Makes a learner that knows nothing.
    restore
        Makes the learner of a checkpoint; a ValueError where it cannot go on from it.
    publish_s
        Time between two checkpoints with snapshots; there is none where nothing was learned.
    hear
        Is told all labels that are read.
    """

    def __init__(
        self,
        app: BatchApp,
        clock: Clock,
        connection: Mapping[str, Any],
        make: Callable[[], OnlineLearner],
        restore: Callable[[bytes], OnlineLearner],
        publish_s: float,
        hear: Callable[[Sequence[Labelled]], None],
    ) -> None:
        super().__init__()
        self.learner: OnlineLearner | None = None
        self.version = 0
        self._app = app
        self._clock = clock
        self._connection = connection
        self._make = make
        self._restore = restore
        self._publish_s = publish_s
        self._hear = hear
        self._published_s = clock.monotonic_s()
        self._claims = Claims(lambda: app.batch_producer, ONLINE_MODEL.name, app.conf.broker_client_id)
        self._lock = asyncio.Lock()
        self._events: list[Any] = []
        self._pending = 0
        self._learned = 0
        self._next_offset = 0

    async def assign(self, assigned: set[TP]) -> None:
        """Take over from the last checkpoint, if the partition is among `assigned`."""
        self.learner = None
        if _SOURCE not in assigned:
            await self._claims.keep(set())
            return
        await self._claims.keep({0})
        checkpoint = await read_checkpoint(self._connection)
        consumer = self._app.batch_consumer
        start = (await consumer.earliest_offsets(_SOURCE))[_SOURCE] or 0
        end = (await consumer.highwaters(_SOURCE))[_SOURCE] or 0
        self.version, self._next_offset, self.learner = 0, start, None
        if checkpoint is not None:
            self.version = checkpoint.version
            try:
                self.learner = self._restore(zlib.decompress(checkpoint.learner))
                self._next_offset = checkpoint.next_offset
            except ValueError as error:
                log.warning("checkpoint not usable, learning begins anew", error=str(error), labels=end - start)
        if not start <= self._next_offset <= end:
            # Labels that retention took are lost to the model whoever reads; a topic made anew starts at 0.
            log.warning("labels missing", expected=self._next_offset, start=start, end=end)
            self._next_offset = start
        if self.learner is None:
            self.learner = self._make()
        await consumer.seek(_SOURCE, self._next_offset)
        log.info("learner", version=self.version, next_offset=self._next_offset, labels=self.learner.labels)

    async def take(self, event: Any) -> None:  # noqa: ANN401 - Faust's event
        """Learn from one batch; it is acknowledged with the next checkpoint."""
        records: Batch = event.value
        async with self._lock:
            learner = self.learner
            assert learner is not None  # noqa: S101 - the partition is assigned
            messages = list(_read(records.values))
            self._hear(messages)
            for first in range(0, len(messages), _SLICE):
                started_s = self._clock.monotonic_s()
                report = learner.learn(messages[first : first + _SLICE])
                learner_metrics.LEARN_SECONDS.inc(self._clock.monotonic_s() - started_s)
                self._learned += report.learned
                for fate in ("learned", "repeats", "refused", "unlabelled", "revisions"):
                    learner_metrics.LABELS_READ.labels(fate).inc(getattr(report, fate))
                await asyncio.sleep(0)
            self._events.append(event)
            self._pending += len(records)
            self._next_offset = records.next_offset
            learner_metrics.LABELS_LEARNED.set(learner.labels)
        if self._pending >= _MOST_PENDING:
            await self.publish()

    async def publish(self) -> None:
        """Bring the learner to the log, if it has learned, and acknowledge what it has read."""
        async with self._lock:
            learner = self.learner
            if learner is not None and self._learned:
                started_s = self._clock.monotonic_s()
                version = self.version + 1
                snapshot = learner.snapshot(version)
                await asyncio.sleep(0)
                state = zlib.compress(learner.to_bytes(), 1)
                checkpoint = Checkpoint(version, self._next_offset, dict(learner.positions), state)
                packed = encode_checkpoint(checkpoint)
                now_ms = self._clock.now_ms()
                keys, values = (CHECKPOINT_KEY, SNAPSHOT_KEY), (packed, snapshot.to_bytes())
                await self._claims.append(0, keys, values, now_ms)
                self.version = version
                self._learned = 0
                learner_metrics.MODEL_VERSION.set(version)
                learner_metrics.PUBLISHED_AT.set(now_ms / 1000)
                learner_metrics.CHECKPOINT_BYTES.set(len(packed))
                learner_metrics.PUBLISH_SECONDS.observe(self._clock.monotonic_s() - started_s)
                for measure, value in _quality(snapshot):
                    learner_metrics.QUALITY.labels(measure).set(value)
            self._published_s = self._clock.monotonic_s()
            events, self._events, self._pending = self._events, [], 0
            for event in events:
                event.ack()

    def status(self) -> dict[str, int] | None:
        """What the learner is at, for people and probes; None where another process learns."""
        if self.learner is None:
            return None
        return {"version": self.version, "labels": self.learner.labels, "next_offset": self._next_offset}

    @Service.task
    async def _publish_regularly(self) -> None:
        while not self.should_stop:
            await self.sleep(_TICK_S)
            if not self._events or self._clock.monotonic_s() - self._published_s < self._publish_s:
                continue
            try:
                await self.publish()
            except Exception as error:
                log.exception("checkpoint failed")
                await self._app.crash(error)
                raise

    @Service.task
    async def _renew_claims(self) -> None:
        while not self.should_stop:
            await self.sleep(60.0)
            await self._claims.renew_due()


def _read(values: Iterable[bytes | None]) -> Iterable[Labelled]:
    for value in values:
        try:
            yield decode_labelled(value)
        except LabelledError as error:
            learner_metrics.LABELS_READ.labels("unreadable").inc()
            log.warning("label passed over", error=str(error))


def _quality(snapshot: Any) -> Iterable[tuple[str, float]]:  # noqa: ANN401 - `OnlineSnapshot`, of a heavy module
    yield from snapshot.metrics.items()
    yield "blend_weight", snapshot.blend_weight
    yield "alone_weight", snapshot.alone_weight
    yield "prior", snapshot.prior
    yield "drifts", snapshot.drifts
    yield "label_watermark_seconds", snapshot.label_watermark / 1000


def learner_agent(app: BatchApp, learning: Learning) -> None:
    """Register the agent on `app`."""

    @app.agent(app.topic(LABELLED.name, schema=BatchSchema()), name="learner")
    async def learner(stream: Any) -> None:  # noqa: ANN401 - Faust's stream
        async for event in stream.noack().events():
            await learning.take(event)
