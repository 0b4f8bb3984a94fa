"""`pixguard archive` on a real broker and real Delta: killed, shared, without storage, given nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from aiokafka import AIOKafkaProducer, TopicPartition
from deltalake import DeltaTable

from app.domain.rejection import DeadLetter, decode_dead_letter
from app.kafka_options import client_options
from app.settings import Settings
from app.topics import DECISIONS, FEATURES, LABELLED, REJECTED, topics
from models.stages.receivers import FEATURES_VERSION
from ops.broker import LocalBroker, free_port
from ops.topic_admin import ensure_topics
from tables.catalog import CATALOG
from tables.lake_columns import lake_kinds
from tables.lake_table import LakeTable, Span
from tests.lake_traffic import decision_message, identifier, label_message, vector_message
from tests.workers import ask, read_records, running

_PARTITIONS = 4
_DEADLINE_S = 60.0
_VARIABLES = {
    "PIXGUARD_SESSION_TIMEOUT_S": "2",
    "PIXGUARD_FETCH_MAX_RECORDS": "150",
    "PIXGUARD_ARCHIVE_SECONDS": "0.2",
}

Place = tuple[int, int]


@dataclass
class Cluster:
    """A broker with topics, archives on it, and what was sent: the number of each message by its place."""

    settings: Settings
    ports: dict[str, int] = field(default_factory=dict)
    sent: dict[str, dict[Place, int]] = field(default_factory=lambda: {"decisions": {}, "features": {}, "labels": {}})

    @property
    def lake(self) -> Path:
        """Folder of the tables."""
        return Path(self.settings.lake_uri())

    @contextlib.contextmanager
    def archive(self, name: str = "one", **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run an archive until the end of the block."""
        port = self.ports.setdefault(name, free_port())
        with running("archive", name, self.settings, port, _VARIABLES | variables) as process:
            yield process

    async def ask(self, name: str = "one", path: str = "/ready") -> Any:  # noqa: ANN401 - JSON
        """What an archive says of itself, None where it gives no answer."""
        return await ask(self.ports[name], path)

    async def until(self, is_so: Callable[[Any], bool], name: str = "one") -> Any:  # noqa: ANN401 - JSON
        """Wait until an archive says so of itself; what it said."""
        async with asyncio.timeout(_DEADLINE_S):
            while True:
                told = await self.ask(name)
                if told is not None and is_so(told):
                    return told
                await asyncio.sleep(0.1)

    async def reject(self, message: bytes) -> None:
        """Send a message that cannot be read to each topic."""
        async with AIOKafkaProducer(**client_options(self.settings)) as producer:
            for topic in (DECISIONS.name, FEATURES.name, LABELLED.name):
                await producer.send_and_wait(topic, message, b"key", 0)

    async def letters(self) -> list[DeadLetter]:
        """All dead letters."""
        places = [TopicPartition(REJECTED.name, partition) for partition in range(_PARTITIONS)]
        found = await read_records(client_options(self.settings), places)
        return [decode_dead_letter(record.value) for records, _ in found.values() for record in records]

    async def send(self, numbers: Sequence[int]) -> None:
        """Send decision, vector and label of numbered payments."""
        made = (
            ("decisions", DECISIONS.name, decision_message),
            ("features", FEATURES.name, vector_message),
            ("labels", LABELLED.name, label_message),
        )
        async with AIOKafkaProducer(**client_options(self.settings), linger_ms=5) as producer:
            waiting = []
            for number in numbers:
                key = identifier(number).encode()
                for table, topic, message in made:
                    partition = 0 if table == "labels" else number % _PARTITIONS
                    waiting.append((table, number, await producer.send(topic, message(number), key, partition)))
            for table, number, sent in waiting:
                told = await sent
                self.sent[table][told.partition, told.offset] = number

    def rows(self, table: str) -> pl.DataFrame:
        """All rows of a table, as they are now."""
        if not DeltaTable.is_deltatable(str(self.lake / table)):
            return pl.DataFrame({"topic_partition": [], "topic_offset": [], "end_to_end_id": []})
        return pl.read_delta(str(self.lake / table))

    async def until_written(self) -> None:
        """Wait until each table has as many rows as were sent."""
        async with asyncio.timeout(_DEADLINE_S):
            while any(len(self.rows(table)) < len(sent) for table, sent in self.sent.items()):  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    def check(self) -> None:
        """Every place is in its table once, with what was sent to it, and nothing else is."""
        for table, sent in self.sent.items():
            rows = self.rows(table)
            places = list(zip(rows["topic_partition"].to_list(), rows["topic_offset"].to_list(), strict=True))
            assert len(places) == len(set(places)), table
            found = dict(zip(places, rows["end_to_end_id"].to_list(), strict=True))
            assert found == {place: identifier(number) for place, number in sent.items()}, table


@contextlib.asynccontextmanager
async def _started(tmp_path: Path, node: LocalBroker) -> AsyncIterator[Cluster]:
    await asyncio.to_thread(node.start)
    settings = Settings(broker=node.bootstrap, data_dir=tmp_path / "data", partitions=_PARTITIONS)
    await ensure_topics(client_options(settings), topics(settings.app_id), partitions=_PARTITIONS)
    yield Cluster(settings)


async def test_killed_again_and_again(tmp_path: Path, make_broker: Callable[..., LocalBroker]) -> None:
    """Whatever it was doing, and however large its commits are: every message is in its table once."""
    chance = random.Random(5)
    async with _started(tmp_path, make_broker()) as cluster:
        number = 0
        for _ in range(3):
            limits = {"PIXGUARD_ARCHIVE_ROWS": str(chance.choice((100, 130, 500)))}
            with cluster.archive(**limits) as process:
                await cluster.until(lambda told: told["ready"])
                sending = asyncio.create_task(cluster.send(range(number, number + 1500)))
                number += 1500
                await asyncio.sleep(chance.uniform(0.05, 1.0))
                process.send_signal(signal.SIGKILL)
                process.wait()
                await sending
        with cluster.archive():
            await cluster.until_written()
            told = await cluster.until(lambda told: all(table["lag_rows"] == 0 for table in told["tables"]))
            assert [table["waiting_rows"] for table in told["tables"]] == [0, 0, 0]
        cluster.check()


async def test_two_share_and_one_dies(tmp_path: Path, make_broker: Callable[..., LocalBroker]) -> None:
    """Both write to the same tables; the other one takes over. What cannot be read becomes a dead letter."""
    async with _started(tmp_path, make_broker()) as cluster:
        with cluster.archive("one") as one, cluster.archive("two"):
            for name in ("one", "two"):
                await cluster.until(lambda told: any(table["written"] for table in told["tables"]), name)
            await cluster.send(range(600))
            await cluster.reject(b"nonsense")
            sending = asyncio.create_task(cluster.send(range(600, 2400)))
            await asyncio.sleep(0.4)
            one.send_signal(signal.SIGKILL)
            await sending
            await cluster.until_written()
            told = await cluster.until(lambda told: sum(len(table["written"]) for table in told["tables"]) == 9, "two")
            assert all(table["error"] is None for table in told["tables"])
        cluster.check()
        letters = await cluster.letters()
        assert {letter.source.topic for letter in letters} == {DECISIONS.name, FEATURES.name, LABELLED.name}
        assert {(letter.raw_base64, letter.kafka_key_base64) for letter in letters} == {(b"nonsense", b"key")}


async def test_storage_that_fails_for_a_while(tmp_path: Path, make_broker: Callable[..., LocalBroker]) -> None:
    """It says so, keeps no more than it may, hands over meanwhile without a crash, and loses nothing."""
    async with _started(tmp_path, make_broker()) as cluster:
        with cluster.archive("one", PIXGUARD_ARCHIVE_ROWS="100") as one:
            await cluster.until(lambda told: told["ready"])
            await cluster.send(range(100))
            await cluster.until_written()
            away = cluster.lake.with_name("away")
            cluster.lake.rename(away)
            cluster.lake.write_text("no folder")
            await cluster.send(range(100, 4100))
            told = await cluster.until(lambda told: all(table["error"] for table in told["tables"]))
            assert str(cluster.lake / "decisions") in told["tables"][0]["error"]
            await asyncio.sleep(1.0)
            told = await cluster.ask()
            assert all(table["waiting_rows"] < 2500 for table in told["tables"]), "back-pressure bounds what waits"
            await cluster.until(lambda told: all(table["lag_rows"] == 4000 for table in told["tables"]))
            metrics = await cluster.ask(path="/metrics")
            assert 'pixguard_lake_oldest_unwritten_seconds{table="decisions"} 0.0' not in metrics
            assert 'pixguard_lake_retries_total{table="features"}' in metrics
            with cluster.archive("two", PIXGUARD_ARCHIVE_ROWS="100"):
                await cluster.until(lambda told: told["ready"], "two")
                assert one.poll() is None
                cluster.lake.unlink()
                away.rename(cluster.lake)
                await cluster.until_written()
                assert one.poll() is None
                await cluster.until(lambda told: all(table["error"] is None for table in told["tables"]))
        cluster.check()


async def test_a_full_disk(tmp_path: Path, make_broker: Callable[..., LocalBroker]) -> None:
    """It is called by its name, in the log and by the probe; with room again, all is written, nothing told twice."""
    async with _started(tmp_path, make_broker()) as cluster:
        with cluster.archive() as process:
            await cluster.until(lambda told: told["ready"])
            await cluster.send(range(10))
            await cluster.until_written()
            _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, most))
            await cluster.reject(b"nonsense")
            await cluster.send(range(10, 900))
            told = await cluster.until(lambda told: all(table["error"] for table in told["tables"]))
            assert all("The disk is full" in table["error"] for table in told["tables"])
            await asyncio.sleep(1.0)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
            await cluster.until_written()
        cluster.check()
        assert len(await cluster.letters()) == 3, "one for each message, however often its commit was tried"


async def test_a_lake_that_was_lost_is_written_again(tmp_path: Path, make_broker: Callable[..., LocalBroker]) -> None:
    """From what the topics hold though the group has read all of it; one that holds more than the topics is refused."""
    async with _started(tmp_path, make_broker()) as cluster:
        with cluster.archive():
            await cluster.send(range(500))
            await cluster.until_written()
        shutil.rmtree(cluster.lake / "features")
        with cluster.archive():
            await cluster.until_written()
        cluster.check()
        # The lake of another life of the topics: it holds more of a partition than there is.
        _, _, labels = lake_kinds({FEATURES_VERSION: CATALOG.names})
        ahead = LakeTable(str(cluster.lake / "labels"), labels.schema)
        ahead.append(labels.schema.empty_table(), [Span(LABELLED.name, 0, 500, 10_000)])
        with cluster.archive() as process:
            assert await asyncio.to_thread(process.wait, _DEADLINE_S) != 0
        assert "The topic was made anew" in (cluster.settings.data_dir / "one.log").read_text()
