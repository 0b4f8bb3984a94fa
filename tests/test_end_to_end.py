"""The whole engine on a real broker: worker processes, traffic, a kill -9 in the middle, and the record afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from agents.controls import DEFAULT_RULES, read_pack
from app.kafka_options import client_options
from app.settings import Settings
from app.topics import DECISIONS, REJECTED, TRANSACTIONS, topics
from ops.broker import LocalBroker, free_port
from ops.replay import replay_topics
from ops.topic_admin import ensure_topics
from ops.traffic.generator import Simulated, TrafficConfig, generate

_PARTITIONS = 4
_TRANSACTIONS = 4000
_DEADLINE_S = 150.0


@contextmanager
def _worker(name: str, settings: Settings, port: int) -> Iterator[subprocess.Popen[bytes]]:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with (settings.data_dir / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "worker", "--name", name, "--web-port", str(port)],
            env={
                **os.environ,
                "PIXGUARD_BROKER": settings.broker,
                "PIXGUARD_DATA_DIR": str(settings.data_dir),
                "PIXGUARD_PARTITIONS": str(_PARTITIONS),
                "PIXGUARD_CHECKPOINT_INTERVAL_S": "0.2",
                # Most profiles leave memory and come back meanwhile; the replay keeps all of them.
                "PIXGUARD_MAX_ACTIVE_KEYS": "100",
            },
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _until_ready(port: int) -> None:
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


async def _send(settings: Settings, messages: list[Simulated]) -> None:
    async with AIOKafkaProducer(**client_options(settings), linger_ms=5) as producer:
        for message in messages:
            await producer.send(TRANSACTIONS.name, message.value, key=message.key)
        await producer.flush()


async def _answers(settings: Settings, ids: set[str], rejected: int) -> dict[bytes, list[bytes]]:
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


async def test_a_kill_in_the_middle_loses_nothing_and_changes_no_decision(
    tmp_path: Path, make_broker: Callable[..., LocalBroker]
) -> None:
    """Every payment is decided once, or again with the same bytes; replaying the record gives these bytes too."""
    node = make_broker()
    await asyncio.to_thread(node.start)
    settings = Settings(broker=node.bootstrap, data_dir=tmp_path / "data", partitions=_PARTITIONS)
    await ensure_topics(client_options(settings), topics(settings.app_id), partitions=_PARTITIONS)
    settings.read_hash_key()
    config = TrafficConfig(start_ms=int(time.time() * 1000), count=_TRANSACTIONS, rate_per_s=100, malformed_share=0.01)
    messages = list(generate(config))
    ids = {message.payment.end_to_end_id for message in messages if message.payment is not None}
    rejected = sum(message.payment is None for message in messages)
    ports = [free_port(), free_port()]
    with _worker("one", settings, ports[0]) as first, _worker("two", settings, ports[1]):
        await asyncio.gather(*map(_until_ready, ports))
        half = len(messages) // 2
        await _send(settings, messages[:half])
        sending = asyncio.create_task(_send(settings, messages[half:]))
        await asyncio.sleep(0.3)
        first.kill()
        await sending
        with _worker("one", settings, ports[0]):
            decisions = await _answers(settings, ids, rejected)
            assert {key.decode() for key in decisions} == ids
            assert [values for values in decisions.values() if len(set(values)) > 1] == []
            report = await replay_topics(settings, read_pack(DEFAULT_RULES))
    assert report.unmatched == 0
    assert report.transactions == len(ids)
    assert report.identical == len(ids)
