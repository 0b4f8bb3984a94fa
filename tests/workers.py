"""Whole workers for tests: processes of the command line, the traffic that they are given, and their answers."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from app.kafka_options import client_options
from app.settings import Settings
from app.topics import DECISIONS, REJECTED, TRANSACTIONS
from ops.supervised import stop
from ops.traffic.generator import Simulated

__all__ = ["Tail", "answers", "ask", "read_records", "running", "running_worker", "send", "until_ready"]

_DEADLINE_S = 150.0


@contextmanager
def running(
    command: str, name: str, settings: Settings, port: int, variables: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a long-lived command, which logs to NAME.log in the data folder, until the end of the block."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with (settings.data_dir / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", command, "--name", name, "--web-port", str(port)],
            env={
                **os.environ,
                "PIXGUARD_BROKER": settings.broker,
                "PIXGUARD_DATA_DIR": str(settings.data_dir),
                "PIXGUARD_PARTITIONS": str(settings.partitions),
                **variables,
            },
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        stop(process)


@contextmanager
def running_worker(name: str, settings: Settings, port: int, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker until the end of the block."""
    # Most profiles leave memory and come back meanwhile; the replay keeps all of them.
    often = {"PIXGUARD_CHECKPOINT_INTERVAL_S": "0.2", "PIXGUARD_MAX_ACTIVE_KEYS": "100"}
    with running("worker", name, settings, port, often | variables) as process:
        yield process


async def ask(port: int, path: str = "/ready") -> Any:  # noqa: ANN401 - JSON
    """What a process says of itself, None where it gives no answer."""
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        try:
            answer = await client.get(f"http://127.0.0.1:{port}{path}")
        except httpx.TransportError:
            return None
    return answer.json() if path == "/ready" else answer.text


async def until_ready(port: int) -> None:
    """Wait until a worker holds its partitions and decides."""
    deadline_s = time.monotonic() + _DEADLINE_S
    async with httpx.AsyncClient() as client:
        while True:
            try:
                if (await client.get(f"http://127.0.0.1:{port}/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline_s, "the worker is not ready"
            await asyncio.sleep(0.2)


async def send(settings: Settings, messages: Sequence[Simulated], *, per_second: float = math.inf) -> None:
    """Send messages as a bank's own producer would, at most so many a second."""
    async with AIOKafkaProducer(**client_options(settings), linger_ms=5, max_request_size=2 << 20) as producer:
        for number, message in enumerate(messages, 1):
            if number % 50 == 0:
                await asyncio.sleep(50 / per_second)
            await producer.send(TRANSACTIONS.name, message.value, key=message.key)
        await producer.flush()


async def read_records(
    connection: Mapping[str, Any], places: Iterable[TopicPartition]
) -> dict[TopicPartition, tuple[list[Any], int]]:
    """Read partitions from their beginning to where they end now: the records of each, and its end."""
    records: dict[TopicPartition, list[Any]] = {place: [] for place in places}
    async with AIOKafkaConsumer(**connection, group_id=None, enable_auto_commit=False) as consumer:
        consumer.assign(list(records))
        await consumer.seek_to_beginning(*records)
        ends = await consumer.end_offsets(list(records))
        while any([await consumer.position(place) < ends[place] for place in records]):
            for place, fetched in (await consumer.getmany(timeout_ms=100)).items():
                records[place] += fetched
    return {place: (held, ends[place]) for place, held in records.items()}


class Tail:
    """What a topic holds, read on from where it was read before."""

    def __init__(self, settings: Settings, topic: str, partitions: int) -> None:
        self._held: dict[TopicPartition, list[Any]] = {TopicPartition(topic, each): [] for each in range(partitions)}
        self._consumer = AIOKafkaConsumer(**client_options(settings), group_id=None, enable_auto_commit=False)

    async def open(self) -> None:
        """Begin at the beginning."""
        await self._consumer.start()
        self._consumer.assign(list(self._held))
        await self._consumer.seek_to_beginning(*self._held)

    async def records(self) -> list[Any]:
        """Return all that is there now, partition by partition."""
        ends = await self._consumer.end_offsets(list(self._held))
        while any([await self._consumer.position(place) < end for place, end in ends.items()]):
            for place, fetched in (await self._consumer.getmany(timeout_ms=100)).items():
                self._held[place] += fetched
        return [record for records in self._held.values() for record in records]

    async def close(self) -> None:
        """Let go of the broker."""
        await self._consumer.stop()


async def answers(settings: Settings, ids: set[str], rejected: int) -> dict[bytes, list[bytes]]:
    """Read decisions until every id has one and every bad message its dead letter."""
    decisions: defaultdict[bytes, list[bytes]] = defaultdict(list)
    letters = 0
    consumer = AIOKafkaConsumer(
        DECISIONS.name, REJECTED.name, **client_options(settings), auto_offset_reset="earliest", group_id=None
    )
    deadline_s = time.monotonic() + _DEADLINE_S
    async with consumer:
        while len(decisions) < len(ids) or letters < rejected:
            assert time.monotonic() < deadline_s, f"{len(decisions)} of {len(ids)} decided, {letters} dead letters"
            for place, records in (await consumer.getmany(timeout_ms=200)).items():
                for record in records:
                    if place.topic == DECISIONS.name:
                        decisions[record.key].append(record.value)
                    else:
                        letters += 1
    return decisions
