"""Joining between topics and stores: what is acknowledged when, where it goes on from, and what it waits for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from agents.joining import Joined
from agents.outbox import Outbox
from app.batching import Batch, BatchApp
from app.clock import SYSTEM_CLOCK
from app.domain.field_checks import TimeLimits
from app.domain.labelled import Labelled, decode_labelled
from app.domain.records import Records
from app.domain.rejection import decode_dead_letter
from app.domain.vectors import decode_vectors
from app.topics import FEATURES, FEEDBACK, LABELLED, REJECTED
from models.labels.joining import Joiner, JoinPolicy
from tables.awaiting import Awaiting
from tests.models.test_joining import feedback, vector

MINUTE_MS = 60_000
START_MS = 1_764_500_040_000
POLICY = JoinPolicy(40 * MINUTE_MS, 91 * 86_400_000, 5 * MINUTE_MS, 1.0)
LIMITS = TimeLimits(10**12, 10**12)
PARTITIONS = 4


def payment(number: int, at_ms: int = START_MS) -> tuple[bytes, bytes, int]:
    """Return key, value and time of one message of `pix-features`."""
    value = vector(number, at_ms)
    return bytes(decode_vectors([value]).rows["id"][0]), value, at_ms


def marker(number: int, at_ms: int, of_ms: int = START_MS) -> tuple[bytes, bytes, int]:
    """Return key, value and time of a confirmed fraud: one message of `pix-feedback`."""
    key = payment(number, of_ms)[0]
    return key, feedback(key.decode(), at_ms, "FRAUD_MARKER", "REGISTERED", None), at_ms


@dataclass
class Kafka:
    """Takes the place of the app with consumer and producer: what the topics hold, and what is asked and sent."""

    starts: dict[TP, int] = field(default_factory=dict)
    ends: dict[TP, int] = field(default_factory=dict)
    committed: dict[TP, int] = field(default_factory=dict)
    sought: dict[TP, int] = field(default_factory=dict)
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    unanswered: list[asyncio.Future[int]] = field(default_factory=list)
    answers: bool = True
    sources_open: bool = True
    crash_reason: BaseException | None = None

    @property
    def batch_consumer(self) -> Kafka:
        """The consumer."""
        return self

    @property
    def batch_producer(self) -> Kafka:
        """The producer."""
        return self

    async def earliest_offsets(self, *tps: TP) -> dict[TP, int | None]:
        """Where topics begin."""
        return {tp: self.starts.get(tp) for tp in tps}

    async def highwaters(self, *tps: TP) -> dict[TP, int | None]:
        """Where topics end."""
        return {tp: self.ends.get(tp) for tp in tps}

    def progress(self, tp: TP) -> Any:  # noqa: ANN401 - as much of it as is read
        """Where the group is."""
        return SimpleNamespace(expected=self.committed[tp]) if tp in self.committed else None

    async def seek(self, tp: TP, offset: int) -> None:
        """Go on from there."""
        self.sought[tp] = offset

    async def room(self) -> None:
        """Have room."""

    def send_records(
        self, topic: str, _partition: int, _keys: object, values: Sequence[bytes], _times: object
    ) -> asyncio.Future[int]:
        """Keep the values; answered at once, or when the test does."""
        self.sent += [(topic, value) for value in values]
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self.answers:
            answer.set_result(0)
        else:
            self.unanswered.append(answer)
        return answer

    async def crash(self, reason: BaseException) -> None:
        """Keep the reason."""
        self.crash_reason = reason

    def labelled(self, kind: str) -> list[Labelled]:
        """What was sent to `pix-labelled`."""
        found = [decode_labelled(value) for topic, value in self.sent if topic == LABELLED.name]
        return [each for each in found if each.kind == kind]


@dataclass
class Event:
    """One batch as an agent gets it."""

    value: Batch
    acknowledged: bool = False

    def ack(self) -> None:
        """Take note."""
        self.acknowledged = True


def features(partition: int) -> TP:
    """Partition of `pix-features`."""
    return TP(FEATURES.name, partition)


def told(partition: int) -> TP:
    """Partition of `pix-feedback`."""
    return TP(FEEDBACK.name, partition)


ASSIGNED = {features(1), told(1)}


def batch(tp: TP, base: int, *messages: tuple[bytes, bytes, int]) -> Event:
    """Return messages that follow each other from an offset on."""
    keys, values, times = zip(*messages, strict=True)
    past = base + len(messages)
    return Event(Batch(tp, base, past, keys, values, range(base, past), times, 1))


@dataclass
class Process:
    """Joining as a process has it, on a folder of its own or of an earlier one."""

    kafka: Kafka
    outbox: Outbox
    joined: Joined
    seen: list[Records]

    def positions(self, partition: int = 1) -> tuple[object, object]:
        """Return how far both topics of a partition were read."""
        (row,) = [row for row in self.joined.status() if row["partition"] == partition]
        return row["features"], row["feedback"]


@contextlib.asynccontextmanager
async def process(folder: Path, kafka: Kafka, *, max_jobs: int = 64) -> AsyncIterator[Process]:
    """Run a process until the end of the block."""
    app = cast("BatchApp", kafka)
    outbox, seen = Outbox(app, SYSTEM_CLOCK, max_jobs), []

    def make(partition: int, awaiting: Awaiting) -> Joiner:
        return Joiner(partition, PARTITIONS, awaiting, POLICY, LIMITS)

    joined = Joined(app, outbox, SYSTEM_CLOCK, folder, {"bootstrap": "x"}, make, seen.append)
    await outbox.start()
    try:
        async with asyncio.timeout(20):
            yield Process(kafka, outbox, joined, seen)
    finally:
        joined.close()
        await outbox.stop()


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """What `pix-labelled` has of each partition; the test's to fill. Who asks is noted as partition -1."""
    found: dict[int, int] = {}

    async def read(connection: dict[str, str]) -> dict[int, int]:
        assert connection == {"bootstrap": "x"}
        found[-1] = found.get(-1, 0) + 1
        return found

    monkeypatch.setattr("agents.joining.read_places", read)
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is true."""
    while not condition():  # noqa: ASYNC110 - of other tasks
        await asyncio.sleep(0.005)


async def test_without_a_store_it_begins_where_the_topics_do(tmp_path: Path, places: dict[int, int]) -> None:
    """Whatever the group has committed; and what an earlier owner has sent of it is not sent again."""
    kafka = Kafka(
        starts={features(1): 3, told(1): 2}, ends={features(1): 5, told(1): 2}, committed={features(1): 5, told(1): 2}
    )
    places[1] = 3
    async with process(tmp_path, kafka) as running:
        await running.joined.assign(ASSIGNED)
        assert kafka.sought == {features(1): 3, told(1): 2}
        assert places[-1] == 1
        assert running.joined.status()[0]["records_left"] == 2
        late_ms = START_MS + 2 * POLICY.maturity_ms
        await running.joined.take(batch(features(1), 3, payment(1), payment(2), payment(3, late_ms)))
    # Of the two that have matured the first one was sent before; and nobody waits for feedback that retention took.
    assert [each.source_offset for each in kafka.labelled("MATURED")] == [4]


async def test_it_goes_on_from_its_store_and_not_from_the_group(tmp_path: Path, places: dict[int, int]) -> None:
    """The group is ahead of a store that is old, and behind one whose last acknowledgement it did not hear of."""
    kafka = Kafka(ends={features(1): 4, told(1): 3})
    async with process(tmp_path, kafka) as first:
        await first.joined.assign(ASSIGNED)
        await first.joined.take(batch(features(1), 0, payment(1), payment(2)))
        await first.joined.take(batch(told(1), 0, marker(1, START_MS)))
    asked = places[-1]
    for committed, left in ((1, 0), (4, 2)):
        kafka.committed = {features(1): committed, told(1): 1}
        kafka.sought.clear()
        async with process(tmp_path, kafka) as again:
            await again.joined.assign(ASSIGNED)
            assert kafka.sought == {features(1): 2, told(1): 1}
            assert again.joined.status()[0]["records_left"] == left
    # What is in `pix-labelled` matters only where there is something to catch up with.
    assert places[-1] == asked + 1


async def test_a_store_of_another_time_is_made_again(tmp_path: Path) -> None:
    """Where topics were made anew it tells of payments that nobody has; those that it is given then are new to it."""
    kafka = Kafka(ends={features(1): 3, told(1): 0})
    async with process(tmp_path, kafka) as first:
        await first.joined.assign(ASSIGNED)
        await first.joined.take(batch(features(1), 0, payment(1), payment(2), payment(3)))
    kafka.ends[features(1)] = 1
    async with process(tmp_path, kafka) as again:
        with capture_logs() as logs:
            await again.joined.assign(ASSIGNED)
        assert [(each["topic"], each["at"]) for each in logs if "of another time" in each["event"]] == [
            (FEATURES.name, 3)
        ]
        assert kafka.sought == {features(1): 0, told(1): 0}
        await again.joined.take(batch(features(1), 0, payment(3)))
        assert again.positions() == (1, None)
        await again.joined.take(batch(told(1), 0, marker(3, START_MS + 1), marker(1, START_MS + 1)))
    assert [each.end_to_end_id.encode() for each in kafka.labelled("REVISION")] == [payment(3)[0]]


async def test_nothing_is_acknowledged_before_what_came_of_it(tmp_path: Path) -> None:
    """Outputs, then the store, then the source: who dies in between does it again."""
    kafka = Kafka(ends={features(1): 1, told(1): 1})
    async with process(tmp_path, kafka) as running:
        await running.joined.assign(ASSIGNED)
        await running.joined.take(batch(features(1), 0, payment(1)))
        kafka.answers = False
        event = batch(told(1), 0, marker(1, START_MS + 1))
        taking = asyncio.create_task(running.joined.take(event))
        await until(lambda: bool(kafka.unanswered))
        await asyncio.sleep(0.02)
        assert not taking.done()
        assert not event.acknowledged
        kafka.unanswered[0].set_exception(ConnectionError("the broker is gone"))
        with pytest.raises(ConnectionError):
            await taking
        assert not event.acknowledged
        assert isinstance(kafka.crash_reason, ConnectionError)
    kafka.answers = True
    async with process(tmp_path, kafka) as again:
        await again.joined.assign(ASSIGNED)
        assert kafka.sought == {features(1): 1, told(1): 0}  # the store has not moved
        event = batch(told(1), 0, marker(1, START_MS + 1))
        await again.joined.take(event)
        assert event.acknowledged
    assert len(kafka.labelled("REVISION")) == 2
    async with process(tmp_path, kafka) as last:
        await last.joined.assign(ASSIGNED)
        assert kafka.sought[told(1)] == 1


async def test_feedback_waits_for_the_payments_of_its_time(tmp_path: Path) -> None:
    """Not in memory, as one that might be a dead letter, but at the topic; other partitions are not held up."""
    kafka = Kafka(ends={features(1): 2, told(1): 1, features(2): 1, told(2): 1})
    async with process(tmp_path, kafka) as running:
        await running.joined.assign({*ASSIGNED, features(2), told(2)})
        await running.joined.take(batch(features(1), 0, payment(1)))
        ahead = batch(told(1), 0, marker(2, START_MS + 9, START_MS + 5))
        taking = asyncio.create_task(running.joined.take(ahead))
        await asyncio.sleep(0.05)
        assert not ahead.acknowledged
        await running.joined.take(batch(features(2), 0, payment(7)))
        await running.joined.take(batch(told(2), 0, marker(7, START_MS)))
        assert not ahead.acknowledged
        await running.joined.take(batch(features(1), 1, payment(2, START_MS + 5)))
        await taking
        assert ahead.acknowledged
        assert [row["waiting"] for row in running.joined.status()] == [0, 0]
    assert [each.end_to_end_id.encode() for each in kafka.labelled("REVISION")] == [
        payment(7)[0],
        payment(2, START_MS + 5)[0],
    ]


async def test_nobody_waits_while_partitions_move(tmp_path: Path) -> None:
    """The payments would not come, and handing over waits for who is at work: so feedback waits in the store."""
    kafka = Kafka(ends={features(1): 2, told(1): 1})
    async with process(tmp_path, kafka) as running:
        await running.joined.assign(ASSIGNED)
        await running.joined.take(batch(features(1), 0, payment(1)))
        ahead = batch(told(1), 0, marker(2, START_MS + 9, START_MS + 5))
        taking = asyncio.create_task(running.joined.take(ahead))
        await asyncio.sleep(0.05)
        assert not taking.done()
        kafka.sources_open = False
        await taking
        assert ahead.acknowledged
        assert running.joined.status()[0]["waiting"] == 1
    async with process(tmp_path, kafka) as again:
        await again.joined.assign(ASSIGNED)
        assert again.joined.status()[0]["waiting"] == 1
        await again.joined.take(batch(features(1), 1, payment(2, START_MS + 5)))
        assert again.joined.status()[0]["waiting"] == 0
    assert [each.end_to_end_id.encode() for each in kafka.labelled("REVISION")] == [payment(2, START_MS + 5)[0]]


async def test_it_takes_up_no_more_than_the_outbox_has_room_for(tmp_path: Path) -> None:
    """A slow broker bounds memory: what follows stays at the topic."""
    kafka = Kafka(ends={features(1): 1, told(1): 0})
    async with process(tmp_path, kafka, max_jobs=1) as running:
        await running.joined.assign(ASSIGNED)
        running.outbox._room.clear()  # as with jobs that nobody sends
        event = batch(features(1), 0, payment(1))
        taking = asyncio.create_task(running.joined.take(event))
        await asyncio.sleep(0.05)
        assert running.positions() == (None, None)
        running.outbox._room.set()
        await taking
        assert running.positions() == (1, None)


async def test_feedback_on_no_payment_becomes_a_dead_letter_in_the_end(tmp_path: Path) -> None:
    """After its time, by the partition's own clock, with its place and its bytes; and it is counted."""
    name, labels = "pixguard_rejected_total", {"path": "$.end_to_end_id", "reason": "contradiction"}
    lost = marker(404, START_MS + 1)
    kafka = Kafka(ends={features(1): 2, told(1): 1})
    async with process(tmp_path, kafka) as running:
        before = REGISTRY.get_sample_value(name, labels) or 0
        await running.joined.assign(ASSIGNED)
        await running.joined.take(batch(features(1), 0, payment(1, START_MS + 1)))
        await running.joined.take(batch(told(1), 0, lost))
        assert running.joined.status()[0]["waiting"] == 1
        await running.joined.take(batch(features(1), 1, payment(2, START_MS + POLICY.wait_ms + 2)))
        assert running.joined.status()[0]["waiting"] == 0
        assert REGISTRY.get_sample_value(name, labels) == before + 1
    (letter,) = [decode_dead_letter(value) for topic, value in kafka.sent if topic == REJECTED.name]
    assert (letter.source.topic, letter.source.partition, letter.source.offset) == (FEEDBACK.name, 1, 0)
    assert (letter.kafka_key_base64, letter.raw_base64) == lost[:2]
    assert (letter.path, letter.got) == ("$.end_to_end_id", "unknown")


async def test_nothing_matures_while_feedback_lies_unread(tmp_path: Path) -> None:
    """It is asked where the topics end now: what the last fetch told may be older than the batch in hand."""
    kafka = Kafka(ends={features(1): 2, told(1): 0})
    late_ms = START_MS + 2 * POLICY.maturity_ms
    async with process(tmp_path, kafka) as running:
        await running.joined.assign(ASSIGNED)
        kafka.ends[told(1)] = 1
        await running.joined.take(batch(features(1), 0, payment(1), payment(2, late_ms)))
        assert kafka.labelled("MATURED") == []
        await running.joined.take(batch(told(1), 0, marker(1, START_MS + 1)))
        assert [each.label for each in kafka.labelled("MATURED")] == [1]


async def test_what_is_revoked_is_closed(tmp_path: Path) -> None:
    """Another process of this machine could open it; what stays goes on, and is sought again."""
    kafka = Kafka(ends={features(1): 1, told(1): 0, features(2): 1, told(2): 0})
    async with process(tmp_path, kafka) as running:
        await running.joined.assign({*ASSIGNED, features(2), told(2)})
        await running.joined.take(batch(features(1), 0, payment(1)))
        await running.joined.take(batch(features(2), 0, payment(2)))
        kafka.sought.clear()
        await running.joined.assign({features(2), told(2)})
        assert kafka.sought == {features(2): 1, told(2): 0}
        assert [row["partition"] for row in running.joined.status()] == [2]
        other = Awaiting(tmp_path / "1")  # it could not be opened while it was held
        assert other.positions.features == 1
        other.close()
        with pytest.raises(KeyError):
            await running.joined.take(batch(features(1), 1, payment(3)))
        await running.joined.assign(set())
        assert running.joined.status() == []
        assert REGISTRY.get_sample_value("pixguard_feedback_waiting", {"partition": "2"}) is None


async def test_vectors_are_shown_as_they_come(tmp_path: Path) -> None:
    """To whoever watches for drift; feedback is not."""
    kafka = Kafka(ends={features(1): 2, told(1): 1})
    async with process(tmp_path, kafka) as running:
        await running.joined.assign(ASSIGNED)
        first = batch(features(1), 0, payment(1))
        await running.joined.take(first)
        await running.joined.take(batch(told(1), 0, marker(1, START_MS)))
        assert running.seen == [first.value]
