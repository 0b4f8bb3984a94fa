"""Reads the sources, on the loop of the agents: all that one answer of a broker has is delivered at once.

aiokafka fetches in Faust's consumer thread, which fights with the agents for the interpreter, and copies each byte
several times. It goes on to do so for changelogs, and to find positions. What it fetches no more is fetched here.
"""
# ruff: noqa: SLF001  (neither faust nor aiokafka offers a public way to read on one's own)

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import IllegalStateError, KafkaError, OffsetOutOfRangeError, UnknownError, for_code
from aiokafka.record.memory_records import MemoryRecords
from faust.types import TP
from mode import Service

from app.batching.fetch import API_KEY, API_VERSION, Fetched, decode_fetch, encode_fetch
from app.batching.fetching import FETCH_BYTES, unpack
from app.batching.progress import BatchMessage, Progress
from app.batching.wire import Answer, Wire, Wires

if TYPE_CHECKING:
    from app.batching.consumer import BatchConsumer

# While a partition is left out that may have room soon: how long a broker may hold a fetch of others back.
_LEFT_OUT_WAIT_MS = 10

# How long a partition that was refused, or has no leader, is left alone.
_REFUSED_PAUSE_S = 0.1

# Between attempts to reach a broker.
_OUTAGE_PAUSE_S = 0.1
_LONGEST_OUTAGE_PAUSE_S = 1.0


class _Fetch(NamedTuple):
    """A request on its way."""

    answer: "asyncio.Future[Answer]"
    rebalance: int
    positions: dict[TP, int]


class _Feed:
    """What is read from one broker of one topic, by one request after the other, on a connection of its own.

    Topics do not share one: a fetch of payments that the broker holds back, or that is not due yet, must not hold back
    what this worker has just sent itself for its next stage.
    """

    def __init__(self, node: int, wires: Wires) -> None:
        self.node = node
        self.wires = wires
        self.partitions: list[TP] = []
        self.woken = asyncio.Event()
        self.earliest_s = 0.0
        """When the next request may be sent."""
        self.outage_pause_s: float | None = None
        """While the broker is away, how long to wait for it."""
        self._turn = 0

    @property
    def wire(self) -> Wire | None:
        """The open connection, if there is one."""
        return self.wires[self.node]

    def in_turn(self) -> list[TP]:
        """Each comes first in its turn: only of the first does a broker send a record batch that exceeds the limits."""
        self._turn = (self._turn + 1) % max(1, len(self.partitions))
        return self.partitions[self._turn :] + self.partitions[: self._turn]


class _Records(PartitionRecords):  # type: ignore[misc]  # aiokafka is untyped
    """Fetched records, freed once they are unpacked: aiokafka's own iterator would tie them into a cycle."""

    def _unpack_records(self) -> Iterator[Any]:
        return iter(())


class SourceReader(Service):
    """Reads the sources of one consumer.

    It reads while the gate is open (`BatchApp.sources_open`), and what has room (`BatchConsumer.has_room`). An answer
    that a rebalance has overtaken is dropped whole: every position is sought again.

    Attributes
    ----------
    highwaters
        Of each partition, the offset after its last record, as the last answer told it.
    """

    def __init__(self, consumer: "BatchConsumer") -> None:
        self._consumer = consumer
        self._app = consumer.app
        self.highwaters: dict[TP, int] = {}
        self._client: AIOKafkaClient | None = None
        self._feeds: dict[tuple[int, str], _Feed] = {}
        self._wires: dict[str, Wires] = {}
        self._changed = asyncio.Event()
        self._locating: set[TP] = set()
        self._refused: dict[TP, float] = {}
        super().__init__(loop=consumer.loop, beacon=consumer.beacon)

    def wake(self) -> None:
        """Look again what has room."""
        for feed in self._feeds.values():
            feed.woken.set()

    def look_around(self, *_cluster: object) -> None:
        """Look again who leads what, and for positions that are unknown."""
        self._changed.set()

    async def on_shutdown(self) -> None:
        """Close the connections, once nothing here uses them any more."""
        if self._client is not None:
            self._client.cluster.remove_listener(self.look_around)
        for wires in self._wires.values():
            wires.close()

    # Who leads what

    @Service.task
    async def _look_around(self) -> None:
        while not self.should_stop:
            await self._changed.wait()
            self._changed.clear()
            if not self._app.sources_open:
                continue  # its opening calls again
            sources = sorted(tp for tp in self._consumer.assignment() if self._consumer.is_source(tp))
            client = self._connect({tp.topic for tp in sources})
            led = defaultdict(list)
            for tp in sources:
                node = client.cluster.leader_for_partition(tp)
                led[-1 if node is None else node, tp.topic].append(tp)
                self._locate(tp)
            leaderless = [place for place in led if place[0] < 0]
            for place in leaderless:
                del led[place]
            for place in led.keys() - self._feeds.keys():
                node, topic = place
                feed = self._feeds[place] = _Feed(node, self._wires[topic])
                self.add_future(self._read(feed))
            for place, feed in self._feeds.items():
                feed.partitions = led.get(place, [])
            self.wake()
            if leaderless:
                await asyncio.sleep(_REFUSED_PAUSE_S)
                client.force_metadata_update()
                self.look_around()

    def _connect(self, topics: set[str]) -> AIOKafkaClient:
        client = self._client
        if client is None:
            client = self._client = self._app.batch_producer._ensure_producer().client
            client.cluster.add_listener(self.look_around)
        for topic in topics - self._wires.keys():
            self._wires[topic] = Wires(client, topic, self._app.conf.broker_request_timeout)
        for topic in topics - client._topics:
            client.add_topic(topic)
        return client

    def _locate(self, tp: TP) -> None:
        """Find out where to begin with a partition of which nothing was ever committed."""
        progress = self._consumer.progress(tp)
        if progress is not None and progress.position is None and tp not in self._locating:
            self._locating.add(tp)
            self.add_future(self._find_start(tp, progress))

    async def _find_start(self, tp: TP, progress: Progress) -> None:
        try:
            progress.start = await self._consumer._thread.first_position(tp)
        except IllegalStateError:
            pass  # another rebalance has begun, and looks again
        finally:
            self._locating.discard(tp)
        self.look_around()

    # Reading

    async def _read(self, feed: _Feed) -> None:
        fetch: _Fetch | None = None
        while not self.should_stop:
            if fetch is None:
                feed.woken.clear()
                fetch = await self._ask(feed)
            if fetch is None:
                await feed.woken.wait()
                continue
            try:
                answer = await fetch.answer
            except KafkaError as error:
                fetch = None
                self._note_outage(feed, error)
                continue
            self._note_outage(feed, None)
            messages = self._take(fetch, answer)
            # The broker works on the next answer while the agents work on this one.
            fetch = self._ask_now(feed)
            for message in messages:
                self._consumer.deliver(message)

    async def _ask(self, feed: _Feed) -> _Fetch | None:
        """Send the next request; return None if there is nothing to ask for."""
        while self._is_open() and feed.partitions:
            pause_s = feed.earliest_s - self.loop.time()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            elif feed.wire is not None:
                return self._ask_now(feed)
            else:
                try:
                    await feed.wires.open(feed.node)
                except (KafkaError, OSError) as error:
                    self._note_outage(feed, error)
        return None

    def _ask_now(self, feed: _Feed) -> _Fetch | None:
        """Send the next request, if that can be done at once."""
        rebalance = self._app.rebalancing_count
        wire, now_s = feed.wire, self.loop.time()
        if wire is None or now_s < feed.earliest_s or not self._is_open():
            return None
        positions, is_whole = self._positions(feed, now_s)
        if not positions:
            return None
        app = self._app
        request = encode_fetch(
            positions,
            head_bytes=wire.head_bytes,
            max_wait_ms=app.fetch_max_wait_ms if is_whole else min(_LEFT_OUT_WAIT_MS, app.fetch_max_wait_ms),
            min_bytes=app.fetch_min_bytes,
            max_bytes=FETCH_BYTES,
            partition_max_bytes=app.conf.consumer_max_fetch_size,
            isolation_level=self._isolation_level,
        )
        feed.earliest_s = now_s + app.fetch_pause_ms / 1000
        return _Fetch(wire.send(API_KEY, API_VERSION, request), rebalance, positions)

    def _positions(self, feed: _Feed, now_s: float) -> tuple[dict[TP, int], bool]:
        """Return what to ask for, from where on, and whether that is all that may be read."""
        consumer = self._consumer
        active = consumer._get_active_partitions()
        positions, is_whole = {}, True
        for tp in feed.in_turn():
            if tp not in active:
                continue
            progress = consumer.progress(tp)
            position = None if progress is None or self._refused.get(tp, 0.0) > now_s else progress.position
            if progress is not None and position is not None and consumer.has_room(progress):
                positions[tp] = position
            else:
                is_whole = False
        return positions, is_whole

    def _is_open(self) -> bool:
        consumer = self._consumer
        return self._app.sources_open and consumer.flow_active and not (consumer.should_stop or self._app.crashed)

    @property
    def _isolation_level(self) -> int:
        return READ_COMMITTED if self._app.read_committed else READ_UNCOMMITTED  # type: ignore[no-any-return]

    # Taking answers

    def _take(self, fetch: _Fetch, answer: Answer) -> list[BatchMessage]:
        """Return what an answer has to be delivered."""
        messages: list[BatchMessage] = []
        if fetch.rebalance != self._app.rebalancing_count or not self._is_open():
            return messages
        active = self._consumer._get_active_partitions()
        for fetched in decode_fetch(answer):
            tp, position = fetched.tp, fetch.positions[fetched.tp]
            progress = self._consumer.progress(tp)
            # Where the leader has changed, another broker may have been asked already.
            if tp not in active or progress is None or progress.position != position:
                continue
            if fetched.error_code:
                self._refuse(tp, progress, fetched.error_code)
                continue
            self._refused.pop(tp, None)
            self.highwaters[tp] = fetched.highwater
            if fetched.records:
                messages += self._unpack(fetched, position)
        return messages

    def _unpack(self, fetched: Fetched, position: int) -> Iterator[BatchMessage]:
        app, consumer = self._app, self._consumer
        records = _Records(
            fetched.tp,
            MemoryRecords(bytes(fetched.records)),
            fetched.aborted,
            position,
            None,
            None,
            app.conf.broker_check_crcs,
            self._isolation_level,
        )
        # All of it, whatever has room: it would have to be fetched again.
        while records._records.has_next():
            batch = unpack(records, fetched.tp, app.consumer_generation_id, app.fetch_max_records)
            if batch.next_offset == batch.base:
                return
            for piece in batch.pieces(app.fetch_max_records, app.step_max_bytes):
                yield consumer.to_batch_message(piece)

    # Faults

    def _refuse(self, tp: TP, progress: Progress, error_code: int) -> None:
        """Leave a partition alone that the broker does not serve, or raise what cannot get better."""
        error = for_code(error_code)
        name = f"{tp.topic}-{tp.partition}"
        if error is OffsetOutOfRangeError:
            self._refused[tp] = float("inf")
            self.add_future(self._explain_gap(tp, progress))
            return
        if not (error.retriable or error is UnknownError):
            raise error(name)
        if tp not in self._refused:
            self.log.warning("%s: not served: %s (code %d); trying again", name, error.__name__, error_code)
        self._pause(tp)
        if self._client is not None:
            self._client.force_metadata_update()

    def _pause(self, tp: TP) -> None:
        self._refused[tp] = self.loop.time() + _REFUSED_PAUSE_S
        self.loop.call_later(_REFUSED_PAUSE_S, self.wake)

    async def _explain_gap(self, tp: TP, progress: Progress) -> None:
        """Raise GapError with the offset at which the log starts that does not have the position any more."""
        try:
            start = await self._consumer._thread.log_start(tp)
            if progress is not self._consumer.progress(tp):
                return  # another rebalance has begun
            if progress.expected is not None:
                progress.arrive(tp, start, start)
            progress.start = start
        except KafkaError as error:
            self.log.info("%s-%d: cannot ask where it starts: %r", tp.topic, tp.partition, error)
        finally:
            self._pause(tp)

    def _note_outage(self, feed: _Feed, error: Exception | None) -> None:
        """Log when a broker is away, and when it is back; wait longer each time."""
        pause_s = feed.outage_pause_s
        if error is None:
            if pause_s is not None:
                feed.outage_pause_s = None
                self.log.info("broker %d is back", feed.node)
            return
        if pause_s is None:
            self.log.warning("broker %d: %s; trying again", feed.node, error)
        feed.outage_pause_s = min(2 * pause_s, _LONGEST_OUTAGE_PAUSE_S) if pause_s else _OUTAGE_PAUSE_S
        feed.earliest_s = self.loop.time() + feed.outage_pause_s
