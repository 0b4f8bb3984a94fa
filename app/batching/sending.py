"""Sends records to many partitions in few requests, in order, and once: the idempotent producer of `app.batching.wire`.

What waits for a broker goes together: one record batch of each partition, all in one request, written where the socket
takes it from. While `_REQUESTS_IN_FLIGHT` requests have no answer, what comes waits, and goes together the next time.

Order, and no repeat. A record batch carries a producer id, and the number of its first record; the partition's leader
takes each number once, in order, and knows the last five batches again. So after a failure, everything of the partition
that has no answer waits until all of it has one; then what was not taken is sent again, the same bytes, one by one, for
as long as it takes. A batch behind one that failed is refused as out of order, and comes again with it.
"""

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain

import structlog
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    DuplicateSequenceNumber,
    KafkaConnectionError,
    KafkaError,
    NoError,
    OutOfOrderSequenceNumber,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.structs import TopicPartition

from app.batching.lanes import Lane, Part, Sent
from app.batching.packing import Pile, Records, Stamp
from app.batching.produce import PRODUCE, VERSION, read_answer, write_again, write_new
from app.batching.unpacking import HEADER_BYTES
from app.batching.wire import Answer, Wire, Wires

__all__ = ["OversizeError", "RecordSender"]

log = structlog.get_logger(__name__)

_SEQUENCES = 2**31
_REQUESTS_IN_FLIGHT = 5
"""To one broker: the default of Kafka's own client. The leader knows five batches of a producer again."""

_REQUEST_BYTES = 16 * 1024 * 1024
"""Of one request, unless a single record batch has more: brokers close the connection above 100 MB."""

_MOST_WAITING_BYTES = 32 * 1024 * 1024
_BACKOFF_S = 0.1


class OversizeError(ValueError):
    """Records do not fit into the size that a record batch may have."""


class RecordSender:
    """An idempotent producer of whole columns of records.

    Parameters
    ----------
    client
        Of aiokafka, started, on this loop: it knows brokers and leaders, and logs in.
    max_batch_bytes
        Of a record batch that need not be atomic.
    max_request_bytes
        Of one that must be, and of a single record.
    request_timeout_s
        How long a leader may take until all replicas have a batch.
    name
        Of its connections; `client` may have other senders.
    """

    def __init__(
        self,
        client: AIOKafkaClient,
        *,
        max_batch_bytes: int,
        max_request_bytes: int,
        request_timeout_s: float = 40.0,
        name: str = "produce",
    ) -> None:
        self._client = client
        self._wires = Wires(client, name)
        self._max_batch_bytes = max_batch_bytes - HEADER_BYTES
        self._max_request_bytes = max_request_bytes - HEADER_BYTES
        self._request_timeout_s = request_timeout_s
        self._timeout_ms = int(request_timeout_s * 1000)
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._ready: dict[Lane, None] = {}
        self._producer = (-1, -1)
        self._waiting_bytes = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._flush_is_due = False
        self._is_closed = False
        self._opening: dict[int, asyncio.Task[None]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._unknown_since_s: dict[str, float] = {}

    async def start(self) -> None:
        """Get a producer id, for which a broker is asked until one answers. Stamped records need none."""
        while True:
            try:
                answer = await self._client.send(self._client.get_random_node(), InitProducerIdRequest(None, 60_000))
                error = for_code(answer.error_code)
                if error is not NoError:
                    raise error
            except KafkaError as error:
                if not error.retriable:
                    raise
                await self._client.force_metadata_update()
                await asyncio.sleep(_BACKOFF_S)
            else:
                self._producer = answer.producer_id, answer.producer_epoch
                return

    async def room(self) -> None:
        """Wait until less is waiting than a slow broker may make grow."""
        while self._waiting_bytes >= _MOST_WAITING_BYTES:
            await self._change()

    async def drained(self) -> None:
        """Wait until everything is answered."""
        while self._waiting_bytes:
            await self._change()

    def _change(self) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        return waiter

    def send(
        self, topic: str, partition: int, records: Records, *, atomic: bool = False, stamp: Stamp | None = None
    ) -> asyncio.Future[int]:
        """Send records, in order, behind all that was given for the partition before.

        Parameters
        ----------
        topic, partition
            Where to.
        records
            At least one.
        atomic
            Whether they must be ONE record batch, which the broker appends as a whole or not at all.
        stamp
            Of an atomic call's record batch, instead of this producer's own. A partition gets either all of its batches
            stamped, each once the one before it is answered, or none.

        Returns
        -------
        future
            Offset of the first record, once all are acknowledged; -1 where the broker does not know it any more.

        Raises
        ------
        OversizeError
            If the records of an atomic call, or a single record of any, exceed `max_request_bytes`; then nothing is
            sent.
        """
        pieces = [(records, int(records.sizes().sum()))] if atomic else list(records.pieces(self._max_batch_bytes))
        if not len(records):
            raise ValueError(f"{topic}-{partition}: expected records, got none")
        for piece, size in pieces:
            if size > self._max_request_bytes:
                raise OversizeError(
                    f"{topic}-{partition}: expected a record batch of at most {self._max_request_bytes} bytes, "
                    f"got {len(piece)} records of {size}"
                )
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = Lane(TopicPartition(topic, partition))
        parts = [Part(piece, size, stamp, self._loop.create_future()) for piece, size in pieces]
        lane.queue.extend(parts)
        self._waiting_bytes += sum(size for _, size in pieces)
        self._ready[lane] = None
        self._flush_soon()
        return parts[0].done if len(parts) == 1 else asyncio.ensure_future(_first([part.done for part in parts]))

    # Sending

    def _flush_soon(self) -> None:
        """Send once what runs now has given all that it has."""
        if not (self._flush_is_due or self._is_closed):
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._is_closed:
            return
        now_s = self._loop.time()
        by_node: dict[int, list[Lane]] = {}
        for lane in self._ready:
            node = self._client.cluster.leader_for_partition(lane.place)
            if node is None or node < 0:
                self._look_up()
            elif lane.may_send(node, now_s):
                by_node.setdefault(node, []).append(lane)
        for node, lanes in by_node.items():
            wire = self._wires[node]
            if wire is None:
                self._open(node)
            else:
                self._send_to(node, wire, lanes, now_s)

    def _send_to(self, node: int, wire: Wire, lanes: list[Lane], now_s: float) -> None:
        broken = [lane for lane in lanes if lane.is_broken]
        if broken and wire.unanswered < _REQUESTS_IN_FLIGHT:
            batches = [lane.unacknowledged[0] for lane in broken]
            self._request(node, wire, self._repeat(wire, batches), batches)
        lanes = [lane for lane in lanes if not lane.is_broken]
        while lanes and wire.unanswered < _REQUESTS_IN_FLIGHT:
            taken: list[tuple[Lane, list[Part]]] = []
            size = 0
            for lane in lanes:
                if size < _REQUEST_BYTES:
                    parts, more = lane.take(self._max_batch_bytes)
                    size += more
                    taken.append((lane, parts))
                    if not lane.queue:
                        del self._ready[lane]
            self._request(node, wire, *self._write(wire, taken))
            lanes = [lane for lane in lanes if lane.queue and lane.may_send(node, now_s)]

    def _request(self, node: int, wire: Wire, request: memoryview, batches: Sequence[Sent]) -> None:
        for batch in batches:
            batch.lane.on_the_way += 1
            batch.lane.node = node
        try:
            answered = wire.send(PRODUCE, VERSION, request)
        except KafkaError as error:
            self._fail(batches, error)
        else:
            answered.add_done_callback(partial(self._answered, batches))

    def _write(self, wire: Wire, taken: Iterable[tuple[Lane, list[Part]]]) -> tuple[memoryview, list[Sent]]:
        """Write a request of new record batches, one of each lane."""
        by_topic: dict[str, list[tuple[Lane, list[Part]]]] = {}
        for lane, parts in taken:
            by_topic.setdefault(lane.place.topic, []).append((lane, parts))
        topics = {
            topic: [
                Pile(lane.place.partition, [part.records for part in parts], self._stamp(lane, parts))
                for lane, parts in group
            ]
            for topic, group in by_topic.items()
        }
        request, written = write_new(wire.head_bytes, self._timeout_ms, topics)
        batches = []
        for (lane, parts), data in zip(chain.from_iterable(by_topic.values()), written, strict=True):
            batch = Sent(lane, parts, data)
            lane.unacknowledged.append(batch)
            batches.append(batch)
        return request, batches

    def _repeat(self, wire: Wire, batches: Iterable[Sent]) -> memoryview:
        """Write a request of record batches that were sent before."""
        topics: dict[str, list[tuple[int, memoryview]]] = {}
        for batch in batches:
            place = batch.lane.place
            topics.setdefault(place.topic, []).append((place.partition, batch.data))
        return write_again(wire.head_bytes, self._timeout_ms, topics)

    def _stamp(self, lane: Lane, parts: Sequence[Part]) -> Stamp:
        if parts[0].stamp is not None:
            return parts[0].stamp
        stamp = Stamp(*self._producer, lane.sequence)
        lane.sequence = (lane.sequence + sum(len(part.records) for part in parts)) % _SEQUENCES
        return stamp

    # Answers

    def _answered(self, sent: Sequence[Sent], answer: asyncio.Future[Answer]) -> None:
        if self._is_closed:
            return
        error = answer.exception()
        if error is not None:
            self._fail(sent, error if isinstance(error, KafkaError) else KafkaConnectionError(str(error)))
            self._flush_soon()
            return
        blocks = read_answer(answer.result())
        for batch in sent:
            code, offset = blocks.get(batch.lane.place, (UnknownTopicOrPartitionError.errno, -1))
            refused = for_code(code)
            if refused in {NoError, DuplicateSequenceNumber}:
                self._succeed(batch, offset if refused is NoError else -1)
            else:
                self._fail([batch], refused())
        self._flush_soon()

    def _succeed(self, batch: Sent, offset: int) -> None:
        lane = batch.lane
        lane.on_the_way -= 1
        lane.is_known = True
        lane.unacknowledged.remove(batch)
        self._settle(lane)
        batch.succeed(offset)
        self._give_back(batch.parts)

    def _fail(self, sent: Sequence[Sent], error: KafkaError) -> None:
        """Send again what can be, later; give the rest up."""
        again = []
        for batch in sent:
            lane = batch.lane
            lane.on_the_way -= 1
            behind = isinstance(error, OutOfOrderSequenceNumber) and lane.unacknowledged[0] is not batch
            if error.retriable or behind:
                lane.is_broken = True
                lane.retry_s = self._loop.time() + _BACKOFF_S
                self._ready[lane] = None
                again.append(batch)
            else:
                lane.unacknowledged.remove(batch)
                self._settle(lane)
                batch.fail(type(error)(lane.place.topic) if isinstance(error, TopicAuthorizationFailedError) else error)
                self._give_back(batch.parts)
        if again:
            places = ", ".join(f"{batch.lane.place.topic}-{batch.lane.place.partition}" for batch in again)
            log.warning("sending again", partitions=places, error=repr(error))
            self._look_up()
            self._loop.call_later(2 * _BACKOFF_S, self._flush_soon)

    def _settle(self, lane: Lane) -> None:
        if not lane.unacknowledged:
            lane.is_broken = False
            if not lane.queue:
                self._ready.pop(lane, None)

    def _give_back(self, parts: Iterable[Part]) -> None:
        self._waiting_bytes -= sum(part.size for part in parts)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # Brokers

    def _open(self, node: int) -> None:
        if node not in self._opening:
            task = self._opening[node] = self._loop.create_task(self._connect(node))
            task.add_done_callback(lambda _: self._opening.pop(node, None))

    async def _connect(self, node: int) -> None:
        try:
            await self._wires.open(node)
        except KafkaError:
            self._look_up()  # aiokafka has told what is wrong
        else:
            self._flush_soon()

    def _look_up(self) -> None:
        """Ask who leads what, and go on after a while."""
        if self._looking is None or self._looking.done():
            self._looking = self._loop.create_task(self._look())

    async def _look(self) -> None:
        client, now_s = self._client, self._loop.time()
        unknown = {lane.place.topic for lane in self._ready} - client.cluster.topics()
        for topic in unknown:
            client.add_topic(topic)
        self._unknown_since_s = {topic: self._unknown_since_s.get(topic, now_s) for topic in unknown}
        await client.force_metadata_update()
        await asyncio.sleep(_BACKOFF_S)
        for topic in self._unknown_since_s.keys() - client.cluster.topics():
            if topic in client.cluster.unauthorized_topics:
                self._give_up(topic, TopicAuthorizationFailedError(topic))
            elif now_s - self._unknown_since_s[topic] > self._request_timeout_s:
                self._give_up(topic, UnknownTopicOrPartitionError(topic))
        self._flush_soon()

    def _give_up(self, topic: str, error: KafkaError) -> None:
        """Fail what waits for a topic that is not there."""
        for lane in [lane for lane in self._ready if lane.place.topic == topic]:
            del self._ready[lane]
            given_up = [*lane.queue]
            lane.queue.clear()
            for part in given_up:
                part.done.set_exception(error)
            self._give_back(given_up)

    async def close(self) -> None:
        """Close the connections; what is not answered fails."""
        self._is_closed = True
        for task in [*self._opening.values(), *([self._looking] if self._looking else [])]:
            task.cancel()
        self._wires.close()
        for lane in self._lanes.values():
            left = [*(part for sent in lane.unacknowledged for part in sent.parts), *lane.queue]
            lane.unacknowledged.clear()
            lane.queue.clear()
            for part in left:
                if not part.done.done():
                    part.done.set_exception(KafkaConnectionError("the producer was closed"))
                    part.done.exception()  # whoever waited for it is gone, as a rule
            self._give_back(left)
        self._ready.clear()


async def _first(parts: Sequence[asyncio.Future[int]]) -> int:
    return (await asyncio.gather(*parts))[0]
