"""`pixguard learner` on a real broker: every label is learned once, whatever happens to who learns.

It is killed, loses its store, is taken over from, and is paused until that has happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from agents.learner_log import CHECKPOINT_KEY, SNAPSHOT_KEY, read_checkpoint, read_places
from app.domain.labelled import Labelled, decode_labelled
from app.domain.partitioner import partition_of
from app.domain.rejection import decode_dead_letter
from app.domain.vectors import VECTOR_ROW_DTYPE, encode_vectors
from app.kafka_options import client_options
from app.settings import Settings
from app.topics import FEATURES, FEEDBACK, LABELLED, ONLINE_MODEL, REJECTED, topics
from models.labels.messages import sample
from models.online.snapshot import OnlineSnapshot
from models.stages.receivers import FEATURES_VERSION
from ops.broker import LocalBroker, free_port
from ops.topic_admin import ensure_topics
from tables.catalog import CATALOG
from tests.test_zombie import read_log
from tests.workers import Tail, ask, running

pytestmark = pytest.mark.broker

_PARTITIONS = 4
_PAYMENTS = 900
_STRANGE = 300
"""Of so many payments feedback tells of one that was never decided on."""

_STEP_MS = 2000
_MATURITY_MS = 36_000
_RATE = 0.25
_DEADLINE_S = 150.0
_VARIABLES = {
    "PIXGUARD_LABEL_MATURITY_H": "0.01",
    "PIXGUARD_NEGATIVES_RATE": str(_RATE),
    "PIXGUARD_FEEDBACK_WAIT_H": "0.1",
    "PIXGUARD_LEARNER_PUBLISH_S": "0.5",
    "PIXGUARD_SESSION_TIMEOUT_S": "2",
    "PIXGUARD_FETCH_MAX_RECORDS": "50",
    "PIXGUARD_MODEL_POLL_S": "0",  # no batch model here, and its registry's client takes seconds to start
}


@dataclass(frozen=True, slots=True)
class Said:
    """One message for the bank's side of Kafka."""

    topic: str
    key: bytes
    value: bytes
    at_ms: int


@dataclass
class Story:
    """What is sent, in order, and what must come of it."""

    messages: list[Said] = field(default_factory=list)
    matured: dict[str, int] = field(default_factory=dict)
    unknown: int = 0


def story(payments: int = _PAYMENTS) -> Story:
    """Payments two seconds apart; a tenth is marked as fraud before it matures, a few after, a few never were."""
    chance = random.Random(11)
    start_ms = int(time.time() * 1000) - payments * _STEP_MS - 3_600_000
    ids = []
    made = Story()
    last = payments - 1
    for number in range(payments):
        at_ms = start_ms + number * _STEP_MS + (3_000_000 if number == last else 0)
        identifier = f"E12345678{datetime.fromtimestamp(at_ms / 1000, UTC):%Y%m%d%H%M}{number:011d}"
        ids.append(identifier)
        rows = np.zeros(1, VECTOR_ROW_DTYPE)
        rows["id"], rows["event_time"], rows["decided_at"] = identifier.encode(), at_ms, at_ms + 5
        rows["scored"], rows["amount_centavos"] = True, number
        is_fraud = chance.random() < 0.1
        vector = np.random.default_rng(number).random((1, len(CATALOG.names))).astype("f4") + is_fraud
        (value,) = encode_vectors(rows, vector, FEATURES_VERSION)
        assert value is not None
        if number % _STRANGE == _STRANGE // 2:
            made.unknown += 1
        else:
            made.messages.append(Said(FEATURES.name, identifier.encode(), value, at_ms + 5))
        is_late = is_fraud and chance.random() < 0.1
        if (is_fraud or number % _STRANGE == _STRANGE // 2) and number != last:
            known_ms = at_ms + (2 * _MATURITY_MS if is_late else chance.randrange(1000, _MATURITY_MS - 1000))
            fields = {"end_to_end_id": identifier, "timestamp": known_ms, "event": "FRAUD_MARKER"}
            fields |= {"status": "REGISTERED", "report_id": f"r{number}", "last_modified": known_ms}
            made.messages.append(Said(FEEDBACK.name, identifier.encode(), msgspec.json.encode(fields), known_ms))
        is_sampled = bool(sample(np.array([identifier.encode()], "S32"), _RATE)[0])
        if number % _STRANGE != _STRANGE // 2 and number != last and (is_sampled or (is_fraud and not is_late)):
            made.matured[identifier] = int(is_fraud and not is_late)
    # The last payment is so late that all others have matured in each partition that it is in: one for each.
    for partition in range(_PARTITIONS):
        at_ms = start_ms + last * _STEP_MS + 3_100_000
        number = next(
            n for n in range(10**6, 10**7) if partition_of(_end_id(n, at_ms).encode(), _PARTITIONS) == partition
        )
        rows = np.zeros(1, VECTOR_ROW_DTYPE)
        rows["id"], rows["event_time"], rows["decided_at"] = _end_id(number, at_ms).encode(), at_ms, at_ms
        (value,) = encode_vectors(rows, np.zeros((1, len(CATALOG.names)), "f4"), FEATURES_VERSION)
        assert value is not None
        made.messages.append(Said(FEATURES.name, _end_id(number, at_ms).encode(), value, at_ms))
    made.messages.sort(key=lambda each: each.at_ms)
    if sample(np.array([ids[-1].encode()], "S32"), _RATE)[0]:
        made.matured[ids[-1]] = 0
    return made


def _end_id(number: int, at_ms: int) -> str:
    return f"E12345678{datetime.fromtimestamp(at_ms / 1000, UTC):%Y%m%d%H%M}{number:011d}"


@dataclass
class Cluster:
    """A broker with topics, and learners on it."""

    settings: Settings
    ports: dict[str, int] = field(default_factory=dict)
    tails: dict[str, Tail] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=lambda: dict(_VARIABLES))

    @contextlib.contextmanager
    def learner(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a learner until the end of the block."""
        port = self.ports.setdefault(name, free_port())
        with running("learner", name, self.settings, port, self.variables) as process:
            yield process

    async def ask(self, name: str, path: str = "/ready") -> Any:  # noqa: ANN401 - JSON
        """What a learner says of itself, None where it gives no answer."""
        return await ask(self.ports[name], path)

    async def until_ready(self, *names: str) -> dict[str, Any]:
        """Wait until each has partitions, and they have all of them together; what each says of itself."""
        async with asyncio.timeout(_DEADLINE_S):
            while True:
                told = {name: await self.ask(name) for name in names}
                if all(each and each["ready"] and each["partitions"] for each in told.values()):
                    shared = sorted(row["partition"] for each in told.values() for row in each["partitions"])
                    if shared == list(range(_PARTITIONS)):
                        return told
                await asyncio.sleep(0.2)

    async def send(self, messages: list[Said]) -> None:
        """Send as a worker and a bank would."""
        async with AIOKafkaProducer(**client_options(self.settings), linger_ms=5) as producer:
            for each in messages:
                partition = partition_of(each.key, _PARTITIONS)
                sent = await producer.send(each.topic, each.value, each.key, partition, timestamp_ms=each.at_ms)
                if each.topic == FEEDBACK.name:
                    await sent  # what is known of a payment is in the log before time goes on
            await producer.flush()

    async def records(self, topic: str, partitions: int) -> list[Any]:
        """All records of a topic."""
        tail = self.tails.get(topic)
        if tail is None:
            tail = self.tails[topic] = Tail(self.settings, topic, partitions)
            await tail.open()
        return await tail.records()

    async def labelled(self) -> list[Labelled]:
        """All messages of `pix-labelled`, in order."""
        return [decode_labelled(record.value) for record in await self.records(LABELLED.name, 1)]

    async def until_matured(self, at_least: int) -> None:
        """Wait until so many labels have matured."""
        async with asyncio.timeout(_DEADLINE_S):
            while True:
                if len({each.place for each in await self.labelled() if each.kind == "MATURED"}) >= at_least:
                    return
                await asyncio.sleep(0.3)

    async def until_learned(self, labels: int) -> None:
        """Wait until the last snapshot knows so many labels, or more."""
        async with asyncio.timeout(_DEADLINE_S):
            while True:
                records = await self.records(ONLINE_MODEL.name, 1)
                last = next((record.value for record in reversed(records) if record.key == SNAPSHOT_KEY), None)
                if last is not None and OnlineSnapshot.from_bytes(last).labels >= labels:
                    return
                await asyncio.sleep(0.3)

    async def snapshots(self) -> list[OnlineSnapshot]:
        """All snapshots, in order; each comes with its checkpoint, in one batch."""
        records = await self.records(ONLINE_MODEL.name, 1)
        found = []
        for before, record in itertools.pairwise(records):
            if record.key == SNAPSHOT_KEY:
                assert (before.key, before.offset) == (CHECKPOINT_KEY, record.offset - 1)
                found.append(OnlineSnapshot.from_bytes(record.value))
        return found

    async def check(self, told: Story) -> None:
        """Every label has matured as it was known, in order, and was learned once."""
        await self.until_matured(len(told.matured))
        await self.until_learned(len(told.matured))
        await asyncio.sleep(1.0)  # for repeats, which would come right behind
        labelled = await self.labelled()
        last: dict[int, int] = {}
        matured: dict[str, int | None] = {}
        for each in labelled:
            if each.kind == "MATURED" and each.source_offset > last.get(each.source_partition, -1):
                last[each.source_partition] = each.source_offset
                assert each.end_to_end_id not in matured
                matured[each.end_to_end_id] = each.label
        assert matured == told.matured
        snapshots = await self.snapshots()
        assert snapshots[-1].labels == len(told.matured)
        assert snapshots[-1].positives == sum(told.matured.values())
        versions = [each.version for each in snapshots]
        assert versions == list(range(1, len(versions) + 1))
        letters = [decode_dead_letter(record.value) for record in await self.records(REJECTED.name, _PARTITIONS)]
        assert len({letter.source for letter in letters}) == told.unknown
        connection = client_options(self.settings)
        assert await read_places(connection) == last
        checkpoint = await read_checkpoint(connection)
        assert checkpoint is not None
        assert checkpoint.version == versions[-1]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, jars_dir: Path) -> Iterator[LocalBroker]:
    """A broker for the tests of this file, whose topics have fixed names."""
    with LocalBroker(tmp_path_factory.mktemp("broker"), jars_dir=jars_dir, port=free_port()) as running:
        yield running


@pytest.fixture
async def cluster(tmp_path: Path, node: LocalBroker) -> AsyncIterator[Cluster]:
    """New topics, and a group that has read nothing."""
    settings = Settings(broker=node.bootstrap, data_dir=tmp_path / "data", partitions=_PARTITIONS)
    connection = client_options(settings)
    await ensure_topics(connection, topics(settings.app_id), partitions=_PARTITIONS)
    made = Cluster(settings)
    yield made
    for tail in made.tails.values():
        await tail.close()
    admin = AIOKafkaAdminClient(**connection)
    await admin.start()
    try:
        names = {topic.name for topic in topics(settings.app_id)}
        await admin.delete_topics(sorted(names))
        async with asyncio.timeout(_DEADLINE_S):
            while names & set(await admin.list_topics()):  # noqa: ASYNC110 - of the broker
                await asyncio.sleep(0.1)
    finally:
        await admin.close()


async def test_killed_in_the_middle(cluster: Cluster, tmp_path: Path) -> None:
    """It comes back under its name, and goes on from its store; and where that is lost makes it again."""
    told = story()
    third = len(told.messages) // 3
    for number, loses_store in enumerate((False, True)):
        with cluster.learner("one") as process:
            sending = asyncio.create_task(cluster.send(told.messages[number * third : (number + 1) * third]))
            await cluster.until_matured((2 * number + 1) * len(told.matured) // 6)
            process.send_signal(signal.SIGKILL)
            process.wait()
            await sending
        if loses_store:
            shutil.rmtree(tmp_path / "data" / "awaiting")
    with cluster.learner("one"):
        await cluster.send(told.messages[2 * third :])
        await cluster.check(told)
        said = await cluster.ask("one", "/metrics")
        assert f"pixguard_online_labels_learned {float(len(told.matured))}" in said
        status = await cluster.ask("one")
        assert [row["records_left"] for row in status["partitions"]] == [0] * _PARTITIONS
        assert status["learner"]["labels"] == len(told.matured)


async def test_another_takes_over(cluster: Cluster) -> None:
    """Two share the joining, one of them learns; the other one goes on where it was killed, without its store."""
    told = story()
    part = len(told.messages) // 3
    with cluster.learner("one") as one, cluster.learner("two") as two:
        await cluster.until_ready("one", "two")
        await cluster.send(told.messages[:part])
        await cluster.until_learned(1)
        status = await cluster.until_ready("one", "two")
        owners = [name for name, each in status.items() if each["learner"] is not None]
        assert len(owners) == 1
        await cluster.send(told.messages[part : 2 * part])
        {"one": one, "two": two}[owners[0]].send_signal(signal.SIGKILL)
        await cluster.send(told.messages[2 * part :])
        await cluster.check(told)


async def _pause_with_unpublished_labels(
    cluster: Cluster, learners: dict[str, subprocess.Popen[bytes]], parts: Iterator[list[Said]]
) -> str:
    """Stop the one that learns while it has learned what no checkpoint has; its name.

    It is given more to learn, part by part, until it is caught at that: a busy machine looks too late now and then.
    """
    async with asyncio.timeout(_DEADLINE_S):
        for part in parts:
            await cluster.send(part)
            for name, process in learners.items():
                told = await cluster.ask(name)
                if not told or not told["learner"] or not told["learner"]["labels"]:
                    continue
                process.send_signal(signal.SIGSTOP)
                published = await cluster.snapshots()
                if published and told["learner"]["labels"] > published[-1].labels:
                    return name
                process.send_signal(signal.SIGCONT)
            await asyncio.sleep(0.2)
    pytest.fail("the learner was never caught with labels that it had not published")


async def test_a_zombie_publishes_nothing_and_dies_of_it(cluster: Cluster, node: LocalBroker) -> None:
    """Paused until another one has learned on, it ends and says why; nothing that it would publish is in the log."""
    told = story()
    # The last third is for when the zombie has woken.
    last = len(told.messages) * 2 // 3
    parts = iter([told.messages[begin : min(begin + 20, last)] for begin in range(0, last, 20)])
    log = node.data_dir / "log" / f"{ONLINE_MODEL.name}-0"
    cluster.variables["PIXGUARD_LEARNER_PUBLISH_S"] = "3"  # time enough to be stopped in
    # On a busy machine a learner that is well misses a shorter one, and the partitions go to and fro.
    cluster.variables["PIXGUARD_SESSION_TIMEOUT_S"] = "6"
    with cluster.learner("one") as one, cluster.learner("two") as two:
        learners = {"one": one, "two": two}
        await cluster.until_ready(*learners)
        zombie = await _pause_with_unpublished_labels(cluster, learners, parts)
        sending = asyncio.create_task(cluster.send([each for part in parts for each in part]))
        owner = f"{cluster.settings.app_id}-learner-{'two' if zombie == 'one' else 'one'}"
        async with asyncio.timeout(_DEADLINE_S):
            # The owner has claimed the log, and has published: what it appended last is no claim.
            while [each.claimed_by for each in read_log(log)][-2:] != [owner, None]:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        learners[zombie].send_signal(signal.SIGCONT)
        exit_code = await asyncio.to_thread(learners[zombie].wait, 30)
        await sending
        await cluster.send(told.messages[last:])
        await cluster.check(told)
    assert exit_code != 0
    reasons = (cluster.settings.data_dir / f"{zombie}.log").read_text()
    assert "FencedError" in reasons or "PartitionsLostError" in reasons
    batches = read_log(log)
    assert len({batch.producer_id for batch in batches}) == 1
    epochs = [batch.epoch for batch in batches]
    assert epochs == sorted(epochs)
    assert {batch.epoch for batch in batches if batch.claimed_by} == set(epochs)
    assert next(batch.claimed_by for batch in batches if batch.epoch == epochs[-1]) == owner
