"""The Faust app whose agents receive whole fetches, and that hands partitions over without repeating work."""
# ruff: noqa: SLF001  (faust tells nowhere else which streams its agents read, and what waits in them)

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, cast

import faust
from faust.types import TP, EventT
from mode.supervisors import ForfeitOneForOneSupervisor

from app.batching.batch import Batch
from app.batching.consumer import BatchConsumer
from app.batching.producer import BatchProducer
from app.batching.schema import BatchSchema
from app.batching.transport import BatchTransport
from app.topics import MAX_CHECKPOINT_BYTES

# Kafka's default for a topic's max.message.bytes is 1,048,588.
_MESSAGE_BYTES = 1_000_000

_FETCH_BYTES = 4 * 1024 * 1024
_STEP_BYTES = 2 * 1024 * 1024
_AGENT_POLL_S = 0.002


class HandoverError(Exception):
    """The app could not finish with its partitions before they were revoked."""


class BatchAgent(faust.Agent):
    """An agent that takes the app down with it: a worker that went on without it would never commit again."""

    async def _execute_actor(self, coro: Awaitable[Any], aref: Any) -> None:  # noqa: ANN401  (faust's signature)
        await super()._execute_actor(coro, aref)
        if not (aref.should_stop or aref.crashed or self.should_stop or self.app.should_stop):
            await self.app.crash(RuntimeError(f"Agent {self.name} returned: it must read its stream for ever"))


class BatchApp(faust.App):
    """A Faust app on `BatchTransport`.

    Topics with `BatchSchema` arrive as batches::

        async for events in app.rounds(stream):
            batches = [event.value for event in events]
            ...
            for event in events:
                event.ack()  # once its outputs are durable; in any order, later, from anywhere

    Each such topic has one agent, of concurrency 1. An agent's exception, or its return, crashes the app.

    Parameters
    ----------
    fetch_max_wait_ms, fetch_min_bytes
        How long the broker may hold a fetch back, and for how many bytes.
    fetch_pause_ms
        Between two fetches from sources of one broker, at least. What arrives meanwhile comes in one answer, and is
        worked on in one step; it waits for as long.
    fetch_max_records
        Records of one batch, at most. Batches of a changelog end with a record batch instead, and may be longer.
    step_max_bytes
        What the values of one batch have, and those of all batches that an agent is given together, at most; unless a
        single record has more. While an agent is at work, nothing is sent and nothing arrives.
    max_queued_batches
        Batches of one partition that wait for its agent, before fetching from it pauses. Those of an answer are
        delivered together: so it may be as many more as ``consumer_max_fetch_size`` makes.
    max_pending_records
        Records of one partition that are delivered and not acknowledged, above which fetching from it pauses.
    read_committed
        Whether records of aborted transactions are skipped.
    handover_timeout_s
        How long handing partitions over may take; then the app crashes, before the group takes them away.
        Default: 0.8 of ``broker_rebalance_timeout``.
    **options
        Faust's own. Here a record batch that need not be atomic has ``producer_max_batch_size`` = 1 MB, and one that
        must be (a checkpoint) ``producer_max_request_size`` = 32 MiB, at most.
    """

    def __init__(
        self,
        id: str,  # noqa: A002  (faust's name)
        *,
        fetch_max_wait_ms: int = 500,
        fetch_min_bytes: int = 1,
        fetch_pause_ms: float = 0.0,
        fetch_max_records: int = 10_000,
        step_max_bytes: int = _STEP_BYTES,
        max_queued_batches: int = 2,
        max_pending_records: int = 200_000,
        read_committed: bool = False,
        handover_timeout_s: float | None = None,
        **options: Any,  # noqa: ANN401  (faust's signature)
    ) -> None:
        self.fetch_max_wait_ms = fetch_max_wait_ms
        self.fetch_min_bytes = fetch_min_bytes
        self.fetch_pause_ms = fetch_pause_ms
        self.fetch_max_records = fetch_max_records
        self.step_max_bytes = step_max_bytes
        self.max_queued_batches = max_queued_batches
        self.max_pending_records = max_pending_records
        self.read_committed = read_committed
        self.handover_timeout_s = handover_timeout_s
        self._opened_rebalance = -1
        self._is_prepared = False
        self._handover = asyncio.Lock()
        self._is_handed_over = asyncio.Event()
        defaults = {
            "Agent": BatchAgent,
            # Stock restarts an agent that failed, which would then go on behind the batch that it failed on.
            "agent_supervisor": ForfeitOneForOneSupervisor,
            "producer_max_batch_size": _MESSAGE_BYTES,
            "producer_max_request_size": MAX_CHECKPOINT_BYTES,
            # Of one partition: the default of 1 MB holds 600 payments, and a batch has a fixed cost.
            "consumer_max_fetch_size": _FETCH_BYTES,
            # Bounds the one queue that `max_queued_batches` does not: that of recovery.
            "stream_buffer_maxsize": 16,
            # The handover waits for agents, and for longer than a batch never.
            "stream_wait_empty": False,
        }
        super().__init__(id, **{**defaults, **options})

    async def before_revoke(self, revoked: set[TP]) -> None:
        """Finish with `revoked`: make outputs and state durable and acknowledge every batch that an agent has taken.

        Called before a rebalance and before the worker stops, if `after_assign` was called for the partitions. No agent
        is in the middle of a batch, none will be given one, and what is acknowledged here is committed right after.
        A batch left unacknowledged crashes the app: its agent might still write for a partition that others own.
        """

    async def after_assign(self, assigned: set[TP]) -> None:
        """Prepare for `assigned` (may be empty): tables are restored, and no source batch has been delivered yet."""

    @property
    def batch_producer(self) -> BatchProducer:
        """`producer`, by its real type."""
        return cast("BatchProducer", self.producer)

    @property
    def batch_consumer(self) -> BatchConsumer:
        """`consumer`, by its real type."""
        return cast("BatchConsumer", self.consumer)

    async def confirm_membership(self) -> None:
        """Return once the group cannot have given this worker's partitions away: `BatchConsumer.confirm_membership`."""
        await self.batch_consumer.confirm_membership()

    # Wiring

    def _new_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_producer, self)

    def stream(self, channel: Any, beacon: Any = None, **kwargs: Any) -> Any:  # noqa: ANN401  (faust's signature)
        """Return a stream; that of a batch topic never acknowledges by itself."""
        if isinstance(getattr(channel, "schema", None), BatchSchema):
            kwargs["enable_acks"] = False
        return super().stream(channel, beacon, **kwargs)

    async def rounds(self, stream: Any) -> AsyncIterator[list[Any]]:  # noqa: ANN401  (faust's stream)
        """Yield the events of the batches that wait, at most one of a partition, as soon as there is one.

        An agent's step has a cost whatever it works on. So while it falls behind, more partitions come together, and
        where it does not, none waits for another.
        """
        async for event in stream.noack().events():
            events = [event]
            size = cast("Batch", event.value).nbytes
            partitions = {event.message.tp}
            while (following := self._waiting(stream)) is not None:
                size += cast("Batch", following.value).nbytes
                if following.message.tp in partitions or size > self.step_max_bytes:
                    break
                partitions.add(following.message.tp)
                events.append(self._take(stream))
            yield events

    def _waiting(self, stream: Any) -> EventT[Any] | None:  # noqa: ANN401  (faust's stream)
        """Return what the stream would yield next, were it asked now."""
        queue = stream.channel.queue
        if not queue._queue or queue._errors or not self.flow_control.is_active():
            return None
        event: EventT[Any] = queue._queue[0]
        return event if event.message.generation_id == self.consumer_generation_id else None

    def _take(self, stream: Any) -> EventT[Any]:  # noqa: ANN401  (faust's stream)
        """Take the event that waits: what the stream does before it yields one."""
        event: EventT[Any] = stream.channel.queue.get_nowait()
        message = event.message
        if not message.tracked:
            message.tracked = True
            self.consumer.unacked.add(message)
            stream._on_message_in(message.tp, message.offset, message)
        stream._on_stream_event_in(message.tp, message.offset, stream, event)
        return event

    async def _on_agent_error(self, _agent: Any, exc: BaseException) -> None:  # noqa: ANN401  (faust's signature)
        await self.crash(exc)

    # Rebalance

    @property
    def sources_open(self) -> bool:
        """Whether source topics are delivered: not from the start of a rebalance until `after_assign` has returned.

        The gate is opened for one rebalance, by its number. The next one counts up, in the consumer's thread, and has
        closed it by that, whatever of the previous one is still going on here.
        """
        return self._opened_rebalance == self.rebalancing_count

    def on_rebalance_end(self) -> None:
        """Let the app prepare, then open the gate. Called when recovery is over and all positions are sought."""
        settled = self.batch_consumer.settled_rebalance
        if settled != self.rebalancing_count:
            return  # the next rebalance began before this one's recovery came to its end
        super().on_rebalance_end()
        self.add_future(self._open_sources(settled))

    async def _open_sources(self, rebalance: int) -> None:
        async with self._handover:
            if rebalance != self.rebalancing_count:
                return
            await self.after_assign(self.consumer.assignment())
            self._is_prepared = True
            self._opened_rebalance = rebalance
            self.batch_consumer.sources.look_around()

    async def _on_partitions_revoked(self, revoked: set[TP]) -> None:
        if self.should_stop and not self.crashed:
            # Another worker joins while this one stops: it must not own the partitions before they are finished.
            await self._is_handed_over.wait()
        await super()._on_partitions_revoked(revoked)

    def _on_rebalance_when_stopped(self) -> None:
        """Leave the consumer to its own stop: stock closes it from a thread that it does not belong to."""

    async def _stop_consumer(self) -> None:
        try:
            await super()._stop_consumer()
        finally:
            self._is_handed_over.set()

    async def _consumer_wait_empty(self, _consumer: Any, _logger: Any) -> None:  # noqa: ANN401  (faust's signature)
        """Hand over the assigned partitions and commit.

        Faust calls this before a rebalance and before it stops the worker, in both cases with the flow suspended and
        the queues cleared.
        """
        if self.crashed:
            return  # what the agents hold is not to be trusted; the next owner replays it
        try:
            async with asyncio.timeout(self.handover_timeout_s or 0.8 * self.conf.broker_rebalance_timeout):
                await self._hand_over()
        except TimeoutError:
            await self.crash(HandoverError("expected agents and before_revoke to finish in handover_timeout_s"))
        except Exception as exc:  # noqa: BLE001  (whatever it is, the worker must not live on)
            await self.crash(exc)
        else:
            await self.batch_consumer.commit_and_end_transactions()

    async def _hand_over(self) -> None:
        consumer = self.batch_consumer
        async with self._handover:
            while self._is_agent_busy():  # noqa: ASYNC110  (streams signal nothing)
                await asyncio.sleep(_AGENT_POLL_S)
            consumer.check_membership()  # what others own by now must not be written any more
            if self._is_prepared:
                self._is_prepared = False
                await self.before_revoke(consumer.assignment())
            left = consumer.taken_partitions()
            if left:
                raise HandoverError(
                    f"before_revoke: expected every batch acknowledged, got some left of {sorted(left)}"
                )

    def _is_agent_busy(self) -> bool:
        return any(
            actor.stream.get_active_stream().current_event is not None
            for agent in self.agents.values()
            for actor in agent._actors
        )
