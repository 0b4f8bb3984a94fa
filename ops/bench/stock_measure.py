"""`measure_stock`: how fast the baseline `ops/bench/stock_faust.py` works off a backlog, on one core if asked."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from app.topics import Topic
from ops.bench import stock_faust
from ops.bench.processes import cpu_s
from ops.bench.stock_faust import StockTopics
from ops.bulk_sender import BulkSender, open_producer
from ops.supervised import last_lines, stop
from ops.topic_admin import ensure_topics

__all__ = ["StockError", "StockResult", "measure_stock"]

_CHUNK_MESSAGES = 1000
_START_TIMEOUT_S = 90.0
_POLL_S = 0.05


class StockError(RuntimeError):
    """The baseline could not be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class StockResult:
    """What stock Faust did on one core.

    Parameters
    ----------
    app_id
        What the names of its topics begin with; they stay on the broker.
    events
        Payments worked off while it was measured, each stage being half of one: the first may run ahead of the second
        on a backlog, which is work done too. What was done before the clock started is not counted.
    decisions
        Of these, the decisions alone.
    seconds
        For so long; less than asked for where the backlog came to its end.
    cpu_seconds
        Processor time of the worker (all threads, user and system) meanwhile.
    """

    app_id: str
    events: float
    decisions: int
    seconds: float
    cpu_seconds: float

    @property
    def events_per_s(self) -> float:
        """Payments per second of wall clock."""
        return self.events / self.seconds

    @property
    def cpu_us_per_event(self) -> float:
        """Microseconds of processor time per payment: what other processes took does not count."""
        return self.cpu_seconds / self.events * 1e6


def measure_stock(
    bootstrap: str,
    values: Sequence[bytes],
    keys: Sequence[bytes],
    *,
    partitions: int,
    seconds: float,
    data_dir: Path,
    pin_core: int | None,
    packed: bool = False,
) -> StockResult:
    """Run the baseline on a preloaded backlog and say how fast it was. Blocks; not to be called in an event loop.

    Parameters
    ----------
    bootstrap
        `HOST:PORT` of the broker.
    values, keys
        The backlog, in order: well-formed messages of `pix-transactions` with their Kafka keys.
    partitions
        Of every topic.
    seconds
        How long to measure, from the first decision on; less if the backlog is worked off before.
    data_dir
        For Faust's own files and the worker's log.
    pin_core
        The one core that the worker may use; None: any.
    packed
        Whether a key's windows share one row of a plain table; by default they lie in windowed tables.

    Raises
    ------
    StockError
        When the backlog is empty or cannot be sent, the core is not there, or the worker ends or decides nothing in
        time; the end of the worker's log is shown.
    TopicError, aiokafka.errors.KafkaError
        When the broker refuses a topic or cannot be reached.
    """
    if not values:
        raise StockError("no messages: expected a backlog to work off")
    if pin_core is not None and pin_core not in os.sched_getaffinity(0):
        raise StockError(f"core {pin_core}: expected one of {sorted(os.sched_getaffinity(0))}")
    app_id = f"stock-faust-{uuid.uuid4().hex[:8]}"
    topics = StockTopics.of(app_id).declared(app_id, packed=packed)
    asyncio.run(_preload(bootstrap, topics, values, keys, partitions))
    options = {"broker": bootstrap, "app-id": app_id, "partitions": partitions, "data": data_dir / "faust"}
    arguments = [*(f"--{name}={value}" for name, value in options.items()), *(["--packed"] if packed else [])]
    with _worker(arguments, data_dir / f"{app_id}.log", pin_core) as worker:
        return asyncio.run(_watch(bootstrap, app_id, worker, partitions, len(values), seconds))


async def _preload(
    bootstrap: str, topics: Sequence[Topic], values: Sequence[bytes], keys: Sequence[bytes], partitions: int
) -> None:
    """Make the topics and send the backlog to the first."""
    connection = {"bootstrap_servers": bootstrap}
    await ensure_topics(connection, topics, partitions=partitions)
    refused: list[Exception] = []
    async with open_producer(connection) as producer:
        sender = BulkSender(producer, topics[0].name, on_refused=lambda _numbers, error: refused.append(error))
        async with sender:
            for first in range(0, len(values), _CHUNK_MESSAGES):
                last = min(first + _CHUNK_MESSAGES, len(values))
                await sender.send(range(first, last), keys[first:last], values[first:last])
    if refused:
        raise StockError(f"the backlog was not stored: {refused[0]!r}")


@dataclass(frozen=True, slots=True)
class _Worker:
    """The running program, and where it logs."""

    process: subprocess.Popen[bytes]
    log_file: Path

    def cpu_seconds(self) -> float:
        """Processor time so far."""
        return cpu_s(self.process.pid)

    def check(self) -> None:
        """Raise where it has ended."""
        status = self.process.poll()
        if status is not None:
            raise StockError(f"the worker ended with status {status}:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """Last lines of the log."""
        return last_lines(self.log_file, 30)


@contextmanager
def _worker(arguments: Sequence[str], log_file: Path, pin_core: int | None) -> Iterator[_Worker]:
    """Run the baseline's worker in a process of its own, and end it."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", stock_faust.__name__, "worker", "--until-eof", *arguments]
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)  # noqa: S603 - our own
    try:
        if pin_core is not None:
            os.sched_setaffinity(process.pid, {pin_core})  # before it has threads: they inherit it
        yield _Worker(process, log_file)
    finally:
        stop(process)
        process.communicate()  # closes our end of its standard input, too


async def _watch(
    bootstrap: str, app_id: str, worker: _Worker, partitions: int, backlog: int, seconds: float
) -> StockResult:
    """Wait for the first decision, then count for so long."""
    names = StockTopics.of(app_id)
    halves = [TopicPartition(name, part) for name in (names.enriched, names.decisions) for part in range(partitions)]
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:

        async def progress() -> tuple[int, int]:
            worker.check()
            ends = await consumer.end_offsets(halves)
            decided = sum(end for part, end in ends.items() if part.topic == names.decisions)
            return decided, sum(ends.values())

        deadline = time.monotonic() + _START_TIMEOUT_S
        while not (before := await progress())[0]:
            if time.monotonic() > deadline:
                raise StockError(f"no decision within {_START_TIMEOUT_S:g} s:\n{worker.log_tail()}")
            await asyncio.sleep(_POLL_S)
        started, cpu_before = time.monotonic(), worker.cpu_seconds()
        while True:
            await asyncio.sleep(_POLL_S)
            count, elapsed = await progress(), time.monotonic() - started
            if count[0] >= backlog or elapsed >= seconds:
                break
        cpu_seconds = worker.cpu_seconds() - cpu_before
    if count == before:
        raise StockError(f"no progress in {elapsed:.1f} s after the first {before[0]}:\n{worker.log_tail()}")
    return StockResult(app_id, (count[1] - before[1]) / 2, count[0] - before[0], elapsed, cpu_seconds)
