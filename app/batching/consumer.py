"""The consumer: delivers batches, and commits exactly what is acknowledged."""
# ruff: noqa: SLF001  (the hooks of faust's consumer and conductor are private by name)

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from faust.exceptions import ImproperlyConfigured
from faust.transport.conductor import Conductor
from faust.transport.drivers.aiokafka import Consumer
from faust.types import TP, Message
from faust.types.tuples import ack_lock
from mode.utils.futures import notify

from app.batching.batch import Batch
from app.batching.fetching import BatchConsumerThread
from app.batching.lease import awake_or_not_s
from app.batching.progress import BatchMessage, Progress
from app.batching.schema import BatchSchema, to_event
from app.batching.sources import SourceReader

if TYPE_CHECKING:
    from app.batching.app import BatchApp

# How often a worker that was paused asks the group whether it is still a member.
_MEMBERSHIP_POLL_S = 0.05


class PartitionsLostError(Exception):
    """The group gave this worker's partitions to another before they were handed over."""


class BatchConsumer(Consumer):
    """Faust's consumer for batch topics; topics without `BatchSchema` are left to the stock code.

    Attributes
    ----------
    batch_topics
        Names of the subscribed topics that are delivered as batches.
    sources
        What reads those of them that are no changelogs.
    """

    app: "BatchApp"
    _thread: BatchConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  (faust's signature)
        super().__init__(*args, **kwargs)
        self.batch_topics: frozenset[str] = frozenset()
        self.sources = cast("SourceReader", self.add_dependency(SourceReader(self)))
        self._source_topics: frozenset[str] = frozenset()
        self._progress: dict[TP, Progress] = {}
        self._resumed = asyncio.Event()

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # Delivery

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109  (faust's signature)
        """Yield what the consumer's thread has fetched: all but the sources, which `SourceReader` delivers.

        Raises
        ------
        GapError
            If a batch does not start where its predecessor ended; this crashes the app.
        """
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]  # mode means any event
        self._resumed.clear()
        active = {tp for tp in self._get_active_partitions() if not self.is_source(tp)}
        # Asked for nothing too: aiokafka leaves a group whose member it takes for idle.
        records = await self._getmany(active, timeout if active else 0.0)
        for tp, message in self._messages(records):
            yield tp, message
        if not active:
            await self.wait(self._resumed, timeout=timeout)  # type: ignore[arg-type]  # mode means any event

    def is_source(self, tp: TP) -> bool:
        """Tell whether the partition is read by `sources`."""
        return tp.topic in self._source_topics

    def deliver(self, message: BatchMessage) -> None:
        """Put a batch of a source into its agent's queue.

        Faust would hand over each message by a task of its own, and an agent would be at work on the first one's
        partition before it saw the second's. The queue's own bound is for all partitions together; `has_room` is for
        each, so that none waits for another.
        """
        tp = message.tp
        (channel,) = self._channels(tp)
        message.incref(1)
        channel.queue.force_put_nowait(to_event(self.app, message))
        self._read_offset[tp] = message.offset

    def _channels(self, tp: TP) -> Collection[Any]:
        return cast("Conductor", self.app.topics)._tp_index.get(tp, ())

    def _messages(self, records: Mapping[TP, list[Any]]) -> Iterator[tuple[TP, Message]]:
        generation = self.app.consumer_generation_id
        single: dict[TP, list[Any]] = {}
        for tp, fetched in records.items():
            if tp.topic not in self.batch_topics:
                single[tp] = fetched
                continue
            for batch in fetched:
                # A fetch that a rebalance has overtaken is dropped whole: every position is sought again.
                if self._is_overtaken(batch.generation):
                    return
                if tp in self._get_active_partitions():
                    yield tp, self.to_batch_message(batch)
        for tp, record in self.scheduler.iterate(single):
            if self._is_overtaken(generation):
                return
            if tp in self._get_active_partitions() or tp in self._buffered_partitions:
                yield tp, self._to_message(tp, record)

    def _is_overtaken(self, generation: int) -> bool:
        return self.should_stop or not self.flow_active or generation != self.app.consumer_generation_id

    def to_batch_message(self, batch: Batch) -> BatchMessage:
        """Return the message of the batch, which is to be delivered at once.

        Raises
        ------
        GapError
            If it does not start where its predecessor ended.
        """
        tp = batch.tp
        if len(self._channels(tp)) > 1:
            raise ImproperlyConfigured(f"{tp.topic}: a batch topic can have one agent per app, got several")
        self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
        message = BatchMessage(batch, self.sources.wake)
        progress = self._progress.setdefault(tp, Progress())
        progress.arrive(tp, batch.base, batch.next_offset)
        if self.app.topics.acks_enabled_for(tp.topic):
            progress.deliver(message)
        return message

    def progress(self, tp: TP) -> Progress | None:
        """Return how far an assigned partition of a batch topic is; ``None`` before its position is sought."""
        return self._progress.get(tp)

    def has_room(self, progress: Progress) -> bool:
        """Tell whether more of the partition may be fetched."""
        return (
            progress.pending_records < self.app.max_pending_records
            and progress.queued_batches() < self.app.max_queued_batches
        )

    def highwater(self, tp: TP) -> int:
        """Return the offset after the partition's last record, as the last answer told it."""
        known = self.sources.highwaters.get(tp)
        return super().highwater(tp) if known is None else known

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Leave sources out: aiokafka fetches nothing of them, which is what this looks for."""
        if not self.is_source(tp):
            super().verify_event_path(now, tp)

    def on_buffer_full(self, tp: TP) -> None:
        """Ignore the pressure on batch topics' queues: `has_room` bounds them, and stock would sleep for a second."""
        if tp.topic not in self.batch_topics:
            super().on_buffer_full(tp)

    # Positions

    async def perform_seek(self) -> None:
        """Seek to the committed offsets, from which the sources must then continue without a gap."""
        await super().perform_seek()
        for tp in self.assignment():
            if self.is_source(tp):
                self._progress[tp] = Progress(self._committed_offset[tp])
        self.sources.look_around()

    async def seek(self, partition: TP, offset: int) -> None:
        """Seek `partition` to `offset`, where its next batch must start. Only while the sources are not open."""
        await super().seek(partition, offset)
        if partition.topic in self.batch_topics:
            self._progress[partition] = Progress(offset)
            self.sources.wake()

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Seek changelogs for recovery.

        Faust seeks one offset too low; where retention has cut the log there, aiokafka moves up to the log's start.
        So the first batch may start anywhere, and those that follow may not.
        """
        await super().seek_wait(partitions)
        for tp in partitions:
            self._progress.pop(tp, None)

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Resume fetching, and wake those who wait for something to fetch."""
        super().resume_partitions(tps)
        self._resumed.set()
        self.sources.wake()

    # Acknowledgements and commits

    def ack(self, message: Message) -> bool:
        """Mark a batch as processed; the order is free."""
        if not isinstance(message, BatchMessage):
            return super().ack(message)
        with ack_lock:
            # Faust's pure-Python stream acknowledges what it skips during a rebalance; no agent has seen that.
            if message.acked or not message.tracked:
                return False
            message.acked = True
            self._unacked_messages.discard(message)
            self._n_acked += 1
            progress = self._progress.get(message.tp)
            if progress is not None:
                progress.advance()
                self.sources.wake()
            notify(self._waiting_for_ack)
        return True

    def give_back(self, events: Iterable[Any]) -> None:
        """Let go of batches unacknowledged, before their partitions go: the next owner is given them again.

        Nothing more of their partitions is committed under this assignment. Only within `BatchApp.before_revoke`.
        """
        for event in events:
            self._progress.pop(event.message.tp, None)
            self.ack(event.message)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:  # noqa: ANN401  (faust's signature)
        yield from super()._filter_tps_with_pending_acks(topics)
        for tp in self._progress:
            if topics is None or tp in topics or tp.topic in topics:
                yield tp

    def _new_offset(self, tp: TP) -> int | None:
        if tp.topic not in self.batch_topics:
            return super()._new_offset(tp)
        progress = self._progress.get(tp)
        return None if progress is None else progress.committable

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        # Faust takes the offsets inside a batch for a gap, and would list every one of them.
        if tp.topic not in self.batch_topics:
            await super()._add_gap(tp, offset_from, offset_to)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        committed = await super()._commit(offsets)
        if not committed and not self.app.should_stop:
            await self.app.crash(PartitionsLostError(f"The group refused to commit {_names(offsets)}"))
        return committed

    # Rebalance

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Hand over `revoked`, and only then forget what they have acknowledged.

        Stock Faust forgets first, so that the commit of the handover commits nothing.
        """
        for tps in (self._active_partitions, self._paused_partitions):
            tps.difference_update(revoked)
        await self._on_partitions_revoked(revoked)
        for tp in revoked:
            for record in (
                self._gap,
                self._acked,
                self._acked_index,
                self._read_offset,
                self._committed_offset,
                self._progress,
                self.sources.highwaters,
            ):
                record.pop(tp, None)

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Learn which of the subscribed topics are batch topics, before anything of them is assigned."""
        self.batch_topics = frozenset(
            name for channel in self.app.topics if isinstance(channel.schema, BatchSchema) for name in channel.topics
        )
        self._source_topics = self.batch_topics - self.app.tables.changelog_topics
        await super().subscribe(topics)

    async def on_stop(self) -> None:
        """Commit and stop; a crash has stopped the thread already, and what it left is replayed."""
        if not self.crashed:
            await super().on_stop()

    @property
    def settled_rebalance(self) -> int:
        """Number of the last rebalance after which all positions were sought."""
        return self._thread.settled_rebalance

    def check_membership(self) -> None:
        """Raise `PartitionsLostError` if the group has expelled this worker."""
        if self._thread.membership_lost():
            raise PartitionsLostError(f"The group expelled this worker, owner of {_names(self.assignment())}")

    async def confirm_membership(self) -> None:
        """Return once the group cannot have given this worker's partitions away, which costs nothing as a rule.

        After a pause longer than the session timeout the group is asked. While it does not answer, this waits: nobody
        can be given the partitions by a coordinator that is away.

        Raises
        ------
        PartitionsLostError
            If the group has expelled this worker.
        """
        thread = self._thread
        while not thread.lease.is_valid(awake_or_not_s()):
            self.check_membership()
            if self.app.crashed:  # expelled, and perhaps a member again since
                raise PartitionsLostError("This worker has crashed")
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(thread.renew_lease(), thread.thread_loop))
            if not thread.lease.is_valid(awake_or_not_s()):
                await asyncio.sleep(_MEMBERSHIP_POLL_S)

    def taken_partitions(self) -> set[TP]:
        """Return the partitions of which an agent holds batches that it has not acknowledged."""
        return {message.tp for message in self._unacked_messages if not message.acked}


def _names(partitions: Iterable[TP]) -> str:
    return ", ".join(f"{tp.topic}-{tp.partition}" for tp in sorted(partitions))
