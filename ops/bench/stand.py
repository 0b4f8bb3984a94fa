"""The test stand: one broker and one worker as processes of their own, each on a core of its own where asked."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, Self
from urllib.error import URLError
from urllib.request import urlopen

from aiokafka import AIOKafkaClient, AIOKafkaConsumer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from app.allocator import tuned
from app.batching.packing import Records
from app.batching.sending import RecordSender
from app.kafka_options import client_options
from app.settings import load_settings
from app.topics import TRANSACTIONS, Topic, topics
from ops.bench.load import Payments
from ops.bench.processes import cpu_s
from ops.broker import STEADY_JVM, LocalBroker, free_port
from ops.bulk_sender import BATCH_BYTES
from ops.supervised import last_lines, stop
from ops.topic_admin import ensure_topics

__all__ = [
    "COMPACTION",
    "SLOW_COMPACTION",
    "BenchError",
    "Stand",
    "Worker",
    "ends",
    "on_cores",
    "open_sender",
    "preload",
    "send",
]

_POLL_S = 0.05
_MESSAGE_BYTES = 1_000_000

COMPACTION = "log.cleaner.io.max.bytes.per.second"
"""The broker's setting that bounds it."""

SLOW_COMPACTION = float(8 << 20)
"""While something is measured: see `ops.bench.broker_log`. A slower cleaner would sleep through a change."""

# It has one core: threads for each disk and connection do not make it faster. What was dropped goes at once.
_BROKER = MappingProxyType(
    {
        "num.network.threads": "1",
        "num.io.threads": "2",
        "log.segment.bytes": str(128 << 20),
        "log.retention.check.interval.ms": "2000",
        "log.segment.delete.delay.ms": "1000",
        COMPACTION: str(SLOW_COMPACTION),
    }
)


class BenchError(RuntimeError):
    """A measurement could not be made; the message says what stood in its way."""


@contextmanager
def on_cores(cores: set[int] | None) -> Iterator[None]:
    """Let what this thread starts inside run on these cores only (a child inherits them); None: on all."""
    if cores is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores & before or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass
class Worker:
    """A worker process.

    Parameters
    ----------
    process
        The program.
    web_port
        Where it tells its metrics.
    log
        What it logged.
    """

    process: subprocess.Popen[bytes]
    web_port: int
    log: Path

    def check(self) -> None:
        """Raise when it has ended.

        Raises
        ------
        BenchError
            With the last lines of its log.
        """
        if self.process.poll() is not None:
            self.fail(f"the worker ended with status {self.process.returncode}")

    def fail(self, what: str) -> NoReturn:
        """Raise with the last lines of its log."""
        raise BenchError(f"{what}; {last_lines(self.log, 12)}")

    def wait_ready(self, timeout_s: float = 180.0) -> None:
        """Wait until it decides.

        Raises
        ------
        BenchError
            When it ends or takes too long.
        """
        deadline_s = time.monotonic() + timeout_s
        while self._get("/ready") is None:
            self.check()
            if time.monotonic() > deadline_s:
                raise BenchError(f"the worker is not ready after {timeout_s:g} s; its log: {self.log}")
            time.sleep(_POLL_S)

    def metrics(self) -> dict[str, float]:
        """Its metrics, summed over all labels but `table` and `stage`, by name (`name` or `name{label}`)."""
        totals: dict[str, float] = {}
        for family in text_string_to_metric_families((self._get("/metrics") or b"").decode()):
            for sample in family.samples:
                label = sample.labels.get("table") or sample.labels.get("stage")
                name = f"{sample.name}{{{label}}}" if label else sample.name
                totals[name] = totals.get(name, 0.0) + sample.value
        return totals

    def cpu_s(self) -> float:
        """Processor time that it has used, all threads."""
        return cpu_s(self.process.pid)

    def kill(self) -> None:
        """Kill it as a crash would: no goodbye to the group, no last checkpoint."""
        self.process.kill()
        self.process.wait()

    def _get(self, path: str) -> bytes | None:
        try:
            with urlopen(f"http://127.0.0.1:{self.web_port}{path}", timeout=5) as answer:
                return bytes(answer.read())
        except (URLError, OSError):
            return None


class Stand:
    """A broker with the declared topics, for one benchmark.

    Parameters
    ----------
    folder
        Of everything; emptied by whoever made it.
    jars_dir
        Cache of the broker's jars.
    partitions
        Of the keyed topics.
    broker_cores, worker_cores
        Where they run; None: on all cores.
    broker_dir
        Of the broker; None: in `folder`.
    """

    def __init__(
        self,
        folder: Path,
        jars_dir: Path,
        partitions: int,
        *,
        broker_cores: set[int] | None = None,
        worker_cores: set[int] | None = None,
        broker_dir: Path | None = None,
    ) -> None:
        self.folder = folder
        self.broker = LocalBroker(
            broker_dir or folder / "kafka", jars_dir=jars_dir, port=free_port(), config=_BROKER, jvm=STEADY_JVM
        )
        self.settings = load_settings(
            broker=self.broker.bootstrap, data_dir=folder / "data", partitions=partitions, web_port=free_port()
        )
        self._broker_cores = broker_cores
        self._worker_cores = worker_cores

    def __enter__(self) -> Self:
        """Start the broker and make the topics; not to be called in an event loop."""
        return asyncio.run(self.__aenter__())

    def __exit__(self, *error: object) -> None:
        """Stop the broker."""
        self.broker.kill()

    async def __aenter__(self) -> Self:
        """Start the broker and make the topics."""
        await asyncio.to_thread(self._start_broker)
        await self.make_topics(topics(self.settings.app_id))
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        self.settings.read_hash_key()
        return self

    async def make_topics(self, declared: Iterable[Topic]) -> None:
        """Create topics."""
        await ensure_topics(self.connection, declared, partitions=self.settings.partitions, replication_factor=1)

    def _start_broker(self) -> None:
        with on_cores(self._broker_cores):  # of this thread
            self.broker.start()

    def broker_cpu_s(self) -> float:
        """Processor time that the broker has used.

        Raises
        ------
        BenchError
            When it does not run.
        """
        pid = self.broker.pid
        if pid is None:
            raise BenchError(f"the broker has ended; its log: {self.broker.log_file}")
        return cpu_s(pid)

    async def __aexit__(self, *error: object) -> None:
        """Stop the broker."""
        await asyncio.to_thread(self.broker.kill)

    @property
    def connection(self) -> dict[str, Any]:
        """Arguments of aiokafka's clients."""
        return client_options(self.settings)

    @contextmanager
    def worker(self, name: str = "bench") -> Iterator[Worker]:
        """Run a worker until the end of the block."""
        log = self.folder / f"{name}.log"
        port = free_port()
        with log.open("ab") as output, on_cores(self._worker_cores):
            process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "app.cli", "worker", "--name", name, "--web-port", str(port)],
                env={
                    **tuned(os.environ),
                    "PIXGUARD_BROKER": self.settings.broker,
                    "PIXGUARD_DATA_DIR": str(self.settings.data_dir),
                    "PIXGUARD_PARTITIONS": str(self.settings.partitions),
                    "PIXGUARD_LOG_FORMAT": "json",
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        try:
            yield Worker(process, port, log)
        finally:
            stop(process)


async def preload(
    connection: dict[str, Any],
    batches: Iterable[Mapping[int, Payments]],
    progress: Callable[[int], None] = lambda _done: None,
) -> int:
    """Write payments to `pix-transactions`, stamped with their own times; how many."""
    count = 0
    async with open_sender(connection) as sender:
        for batch in batches:
            await sender.room()
            for partition, payments in batch.items():
                send(sender, partition, payments)
                count += len(payments)
            progress(count)
        await sender.drained()
    return count


@asynccontextmanager
async def open_sender(connection: dict[str, Any]) -> AsyncIterator[RecordSender]:
    """Open the worker's own sender, which costs the least, on a client of its own."""
    client = AIOKafkaClient(**connection)
    await client.bootstrap()
    sender = RecordSender(client, max_batch_bytes=BATCH_BYTES, max_request_bytes=_MESSAGE_BYTES)
    try:
        await sender.start()
        yield sender
    finally:
        await sender.close()
        await client.close()


def send(sender: RecordSender, partition: int, payments: Payments) -> asyncio.Future[int]:
    """Send payments to a partition of `pix-transactions`, with their own times."""
    records = Records.of(payments.keys, payments.values, payments.times_ms)
    return sender.send(TRANSACTIONS.name, partition, records)


async def ends(consumer: AIOKafkaConsumer, topic: str, partitions: int) -> int:
    """Messages ever appended to a topic."""
    ends_by_partition = await consumer.end_offsets([TopicPartition(topic, number) for number in range(partitions)])
    return sum(ends_by_partition.values())
