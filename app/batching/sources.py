"""Reads the sources, on the loop of the agents: all that one answer of a broker has is delivered at once.

aiokafka fetches in Faust's consumer thread, which fights with the agents for the interpreter, and copies each byte
several times. It goes on to do so for changelogs, and to find positions. What it fetches no more is fetched here.
"""
# ruff: noqa: SLF001  (neither faust nor aiokafka offers a public way to read on one's own)

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import IllegalStateError, KafkaError, OffsetOutOfRangeError, UnknownError, for_code
from aiokafka.record.memory_records import MemoryRecords
from faust.types import TP
from mode import Service

from app.batching.fetch import API_KEY, API_VERSION, Fetched, decode_fetch, encode_fetch
from app.batching.fetching import FETCH_BYTES, unpack
from app.batching.progress import BatchMessage, Progress
from app.batching.wire import Answer, Wires

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


class SourceReader(Service):
    """Reads the sources of one consumer: from each broker by one request after the other.

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
        self._led: dict[int, list[TP]] = {}
        self._woken: dict[int, asyncio.Event] = {}
        self._changed = asyncio.Event()
        self._earliest_s: defaultdict[int, float] = defaultdict(float)
        self._outages: dict[int, float] = {}
        self._turns: defaultdict[int, int] = defaultdict(int)
        self._locating: set[TP] = set()
        self._refused: dict[TP, float] = {}
        super().__init__(loop=consumer.loop, beacon=consumer.beacon)

    def wake(self) -> None:
        """Look again what has room."""
        for woken in self._woken.values():
            woken.set()

    def look_around(self, *_cluster: object) -> None:
        """Look again who leads what, and for positions that are unknown."""
        self._changed.set()

    async def on_shutdown(self) -> None:
        """Close the connections, once nothing here uses them any more."""
        if self._client is not None:
            self._client.cluster.remove_listener(self.look_around)
            self._wires.close()

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
                led[client.cluster.leader_for_partition(tp)].append(tp)
                self._locate(tp)
            leaderless = [tp for node in (None, -1) for tp in led.pop(node, ())]
            self._led = dict(led)
            for node in self._led.keys() - self._woken.keys():
                self._woken[node] = asyncio.Event()
                self.add_future(self._read(node, self._woken[node]))
            self.wake()
            if leaderless:
                await asyncio.sleep(_REFUSED_PAUSE_S)
                client.force_metadata_update()
                self.look_around()

    def _connect(self, topics: set[str]) -> AIOKafkaClient:
        client = self._client
        if client is None:
            client = self._client = self._app.batch_producer._ensure_producer().client
            self._wires = Wires(client, "sources", self._app.conf.broker_request_timeout)
            client.cluster.add_listener(self.look_around)
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

    # Reading from one broker

    async def _read(self, node: int, woken: asyncio.Event) -> None:
        fetch: _Fetch | None = None
        while not self.should_stop:
            if fetch is None:
                woken.clear()
                fetch = await self._ask(node)
            if fetch is None:
                await woken.wait()
                continue
            try:
                answer = await fetch.answer
            except KafkaError as error:
                fetch = None
                self._note_outage(node, error)
                continue
            self._note_outage(node, None)
            messages = self._take(fetch, answer)
            # The broker works on the next answer while the agents work on this one.
            fetch = self._ask_now(node)
            for message in messages:
                self._consumer.deliver(message)

    async def _ask(self, node: int) -> _Fetch | None:
        """Send the next request; return None if there is nothing to ask for."""
        while self._is_open() and self._led.get(node):
            pause_s = self._earliest_s[node] - self.loop.time()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            elif self._wires[node] is not None:
                return self._ask_now(node)
            else:
                try:
                    await self._wires.open(node)
                except (KafkaError, OSError) as error:
                    self._note_outage(node, error)
        return None

    def _ask_now(self, node: int) -> _Fetch | None:
        """Send the next request, if that can be done at once."""
        rebalance = self._app.rebalancing_count
        wire, now_s = self._wires[node], self.loop.time()
        if wire is None or now_s < self._earliest_s[node] or not self._is_open():
            return None
        positions, is_whole = self._positions(node, now_s)
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
            isolation_level=READ_COMMITTED if app.read_committed else READ_UNCOMMITTED,
        )
        self._earliest_s[node] = now_s + app.fetch_pause_ms / 1000
        return _Fetch(wire.send(API_KEY, API_VERSION, request), rebalance, positions)

    def _positions(self, node: int, now_s: float) -> tuple[dict[TP, int], bool]:
        """Return what to ask for, from where on, and whether that is all that may be read."""
        consumer, led = self._consumer, self._led.get(node, [])
        active = consumer._get_active_partitions()
        # Each comes first in its turn: only of the first does a broker send a record batch that exceeds the limits.
        turn = self._turns[node] = (self._turns[node] + 1) % max(1, len(led))
        positions, is_whole = {}, True
        for tp in (*led[turn:], *led[:turn]):
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
        records = PartitionRecords(
            fetched.tp,
            MemoryRecords(bytes(fetched.records)),
            fetched.aborted,
            position,
            None,
            None,
            app.conf.broker_check_crcs,
            READ_COMMITTED if app.read_committed else READ_UNCOMMITTED,
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

    def _note_outage(self, node: int, error: Exception | None) -> None:
        """Log when a broker is away, and when it is back; wait longer each time."""
        if error is None:
            if self._outages and self._outages.pop(node, None) is not None:
                self.log.info("broker %d is back", node)
            return
        pause_s = self._outages.get(node)
        if pause_s is None:
            self.log.warning("broker %d: %s; trying again", node, error)
        self._outages[node] = min(2 * pause_s, _LONGEST_OUTAGE_PAUSE_S) if pause_s else _OUTAGE_PAUSE_S
        self._earliest_s[node] = self.loop.time() + self._outages[node]
