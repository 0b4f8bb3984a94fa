"""A worker that is paused beyond its session, and goes on when others own its partitions: it must leave no trace."""

from __future__ import annotations

import asyncio
import signal
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from aiokafka.record.memory_records import MemoryRecords

from agents.controls import DEFAULT_RULES, read_pack
from app.batching import CLAIM_KEY
from app.batching.claims import ClaimRow
from app.kafka_options import client_options
from app.settings import Settings
from app.topics import PAYERS_TABLE, RECEIVERS_TABLE, changelog, topics
from ops.broker import LocalBroker, free_port
from ops.replay import replay_topics
from ops.topic_admin import ensure_topics
from ops.traffic.generator import TrafficConfig, generate
from tests.workers import answers, running_worker, send, until_ready

_PARTITIONS = 4
_TRANSACTIONS = 2400
_RATE_PER_S = 200
_SESSION_TIMEOUT_S = 2
_PAUSE_DEADLINE_S = 40.0
_PRODUCER = struct.Struct(">qh")
_PRODUCER_AT = 43
"""Where producer id and epoch lie in a record batch."""


@dataclass(frozen=True, slots=True)
class Appended:
    """One record batch of a changelog."""

    producer_id: int
    epoch: int
    claimed_by: str | None


def read_log(folder: Path) -> list[Appended]:
    """Read a partition from the broker's disk, where alone producer ids and epochs can be seen."""
    return [batch for segment in sorted(folder.glob("*.log")) for batch in _batches(segment.read_bytes())]


def _batches(data: bytes) -> Iterator[Appended]:
    records = MemoryRecords(data)
    at = 0
    while records.has_next():
        batch = records.next_batch()
        producer_id, epoch = _PRODUCER.unpack_from(data, at + _PRODUCER_AT)
        at += 12 + int.from_bytes(data[at + 8 : at + 12], "big")
        first = next(iter(batch))
        claim = msgspec.json.decode(first.value, type=ClaimRow) if first.key == CLAIM_KEY else None
        yield Appended(producer_id, epoch, claim.owner if claim else None)


def changelogs(node: LocalBroker, settings: Settings) -> dict[str, list[Appended]]:
    """Read all changelogs, by name of the partition."""
    names = [
        f"{changelog(settings.app_id, table).name}-{partition}"
        for table in (RECEIVERS_TABLE, PAYERS_TABLE)
        for partition in range(_PARTITIONS)
    ]
    return {name: read_log(node.data_dir / "log" / name) for name in names}


async def until_owner_writes(node: LocalBroker, settings: Settings, owner: str) -> None:
    """Wait until `owner` has claimed every partition, and has written a checkpoint of each."""
    async with asyncio.timeout(_PAUSE_DEADLINE_S):
        while not all(  # noqa: ASYNC110 - it is about another process
            log[-1].claimed_by is None and [each.claimed_by for each in log if each.claimed_by][-1] == owner
            for log in changelogs(node, settings).values()
        ):
            await asyncio.sleep(0.1)


async def test_a_zombie_writes_nothing_and_dies_of_it(tmp_path: Path, make_broker: Callable[..., LocalBroker]) -> None:
    """Its late checkpoint stays out, every payment has one decision, and whoever recovers is not misled."""
    node = make_broker()
    await asyncio.to_thread(node.start)
    settings = Settings(broker=node.bootstrap, data_dir=tmp_path / "data", partitions=_PARTITIONS)
    await ensure_topics(client_options(settings), topics(settings.app_id), partitions=_PARTITIONS)
    settings.read_hash_key()
    config = TrafficConfig(start_ms=int(time.time() * 1000), count=_TRANSACTIONS, rate_per_s=100)
    messages = list(generate(config))
    third = len(messages) // 3
    variables = {"PIXGUARD_SESSION_TIMEOUT_S": str(_SESSION_TIMEOUT_S)}
    ports = [free_port(), free_port(), free_port()]
    with (
        running_worker("zombie", settings, ports[0], **variables) as zombie,
        running_worker("owner", settings, ports[1], **variables),
    ):
        await asyncio.gather(*map(until_ready, ports[:2]))
        sending = asyncio.create_task(send(settings, messages[: 2 * third], per_second=_RATE_PER_S))
        await asyncio.sleep(1.0)
        zombie.send_signal(signal.SIGSTOP)
        await until_owner_writes(node, settings, f"{settings.app_id}-owner")
        zombie.send_signal(signal.SIGCONT)
        exit_code = await asyncio.to_thread(zombie.wait, 30)
        await sending
    with running_worker("third", settings, ports[2], **variables):
        await send(settings, messages[2 * third :])
        ids = {message.payment.end_to_end_id for message in messages if message.payment is not None}
        decisions = await answers(settings, ids, 0)
        report = await replay_topics(settings, read_pack(DEFAULT_RULES))
    assert exit_code != 0
    reasons = (settings.data_dir / "zombie.log").read_text()
    assert "FencedError" in reasons or "PartitionsLostError" in reasons
    for name, log in changelogs(node, settings).items():
        assert len({batch.producer_id for batch in log}) == 1, name
        epochs = [batch.epoch for batch in log]
        assert epochs == sorted(epochs), name
        assert {batch.epoch for batch in log if batch.claimed_by} == set(epochs), name
    assert {key.decode() for key in decisions} == ids
    assert [values for values in decisions.values() if len(set(values)) > 1] == []
    assert (report.unmatched, report.transactions, report.identical) == (0, len(ids), len(ids))
