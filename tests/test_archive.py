"""`pixguard archive` on a real broker and real Delta: killed, shared, without storage, given nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import polars as pl
from aiokafka import AIOKafkaProducer, TopicPartition
from deltalake import DeltaTable

from app.domain.rejection import decode_dead_letter
from app.kafka_options import client_options
from app.settings import Settings
from app.topics import DECISIONS, FEATURES, LABELLED, REJECTED, topics
from ops.broker import LocalBroker, free_port
from ops.supervised import stop
from ops.topic_admin import ensure_topics
from tests.lake_traffic import decision_message, identifier, label_message, vector_message
from tests.workers import read_records

_PARTITIONS = 4
_DEADLINE_S = 60.0
_VARIABLES = {
    "PIXGUARD_SESSION_TIMEOUT_S": "2",
    "PIXGUARD_FETCH_MAX_RECORDS": "150",
    "PIXGUARD_PARTITIONS": str(_PARTITIONS),
    "PIXGUARD_ARCHIVE_SECONDS": "0.2",
}

Place = tuple[int, int]


@dataclass
class Cluster:
    """A broker with topics, archives on it, and what was sent: the number of each message by its place."""

    settings: Settings
    ports: dict[str, int] = field(default_factory=dict)
    sent: dict[str, dict[Place, int]] = field(
        default_factory=lambda: {"decisions": {}, "features": {}, "labels": {}}
    )

    @property
    def lake(self) -> Path:
        """Folder of the tables."""
        return Path(self.settings.lake_uri())

    @contextlib.contextmanager
    def archive(self, name: str = "one", **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run an archive until the end of the block."""
        port = self.ports.setdefault(name, free_port())
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        with (self.settings.data_dir / f"{name}.log").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "archive", "--name", name, "--web-port", str(port)],
                env={
                    **os.environ,
                    "PIXGUARD_BROKER": self.settings.broker,
                    "PIXGUARD_DATA_DIR": str(self.settings.data_dir),
                    **_VARIABLES,
                    **variables,
                },
                stdout=output,
                stderr=output,
            )
        try:
            yield process
        finally:
            stop(process)

    async def ask(self, name: str = "one", path: str = "/ready") -> Any:  # noqa: ANN401 - JSON
        """What an archive says of itself, None where it gives no answer."""
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            try:
                answer = await client.get(f"http://127.0.0.1:{self.ports[name]}{path}")
            except httpx.TransportError:
                return None
        return answer.json() if path == "/ready" else answer.text

    async def until(self, is_so: Callable[[Any], bool], name: str = "one") -> Any:  # noqa: ANN401 - JSON
        """Wait until an archive says so of itself; what it said."""
        async with asyncio.timeout(_DEADLINE_S):
            while True:
                told = await self.ask(name)
                if told is not None and is_so(told):
                    return told
                await asyncio.sleep(0.1)

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
            while any(len(self.rows(table)) < len(sent) for table, sent in self.sent.items()):
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
        for _ in range(4):
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
