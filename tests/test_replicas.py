"""Several workers on a real broker: copies that take over, names that come back, handovers, joins and leaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from agents.controls import DEFAULT_RULES, read_pack
from app.domain.decision import decode_decision
from app.kafka_options import client_options
from app.settings import Settings
from app.topics import DECISIONS, PAYERS_TABLE, RECEIVERS_TABLE, TRANSACTIONS, changelog, topics
from ops.broker import LocalBroker, free_port
from ops.replay import replay_topics
from ops.topic_admin import ensure_topics
from ops.traffic.generator import Simulated, TrafficConfig, generate
from tests.workers import read_records, running_worker, send

log = logging.getLogger(__name__)
"""Shows what is measured with `--log-cli-level=INFO`."""

_PARTITIONS = 4
_RATE_PER_S = 200.0
_DEADLINE_S = 150.0
_POLL_S = 0.05
_MAX_IN_MEMORY = 125
"""A quarter more than `running_worker` allows a partition before profiles leave that are not idle."""

_LONG_SESSION_S = 80
"""Nobody waits so long in a test: whoever gets partitions sooner did not wait for a session to end."""


@dataclass
class Cluster:
    """A broker, its topics, and what its workers say of themselves."""

    settings: Settings
    ports: dict[str, int] = field(default_factory=lambda: defaultdict(free_port))

    def worker(self, name: str, **variables: str) -> contextlib.AbstractContextManager[Any]:
        """Run a worker until the end of the block."""
        return running_worker(name, self.settings, self.ports[name], **variables)

    def lines(self, name: str, event: str) -> list[dict[str, Any]]:
        """What a worker has logged of one kind, in all its lives."""
        told = []
        for line in (self.settings.data_dir / f"{name}.log").read_text().splitlines():
            # A life that was killed may have left half a line.
            with contextlib.suppress(json.JSONDecodeError):
                told.append(json.loads(line))
        return [line for line in told if isinstance(line, dict) and line.get("event") == event]

    async def ask(self, name: str, path: str) -> Any:  # noqa: ANN401 - JSON
        """A worker's answer, None where it gives none."""
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            try:
                return (await client.get(f"http://127.0.0.1:{self.ports[name]}{path}")).json()
            except httpx.TransportError:
                return None

    async def owned(self, name: str) -> set[int]:
        """The partitions that a worker decides on; none while it is not ready."""
        status = await self.ask(name, "/api/status")
        rows = await self.ask(name, "/api/partitions") or []
        if status is None or status["phase"] != "ready":
            return set()
        return {row["partition"] for row in rows if row["role"] == "active" and row["table"] == RECEIVERS_TABLE}

    async def until_shared(self, *names: str) -> None:
        """Wait until each of the workers has partitions, and they have all of them together."""

        async def is_shared() -> bool:
            owned = [await self.owned(name) for name in names]
            return all(owned) and sorted(place for each in owned for place in each) == list(range(_PARTITIONS))

        await until(is_shared, f"{names} do not share the partitions")

    async def records(self, *names: str) -> dict[tuple[str, int], list[Any]]:
        """All records of topics, by topic and partition."""
        places = [TopicPartition(name, partition) for name in names for partition in range(_PARTITIONS)]
        found = await read_records(client_options(self.settings), places)
        return {(place.topic, place.partition): records for place, (records, _) in found.items()}

    async def until_decided(self, messages: Sequence[Simulated]) -> dict[bytes, list[bytes]]:
        """All decisions by payment, once each payment has one and every checkpoint is taken."""
        expected = {message.payment.end_to_end_id.encode() for message in messages if message.payment is not None}

        places = [TopicPartition(DECISIONS.name, partition) for partition in range(_PARTITIONS)]
        async with AIOKafkaConsumer(**client_options(self.settings)) as consumer:

            async def is_decided() -> bool:
                ends: dict[TopicPartition, int] = await consumer.end_offsets(places)
                return sum(ends.values()) >= len(expected)

            await until(is_decided, f"not all of {len(expected)} are decided", every_s=0.5)
        await asyncio.sleep(1.0)  # for repeats, which would come right behind
        decisions: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for records in (await self.records(DECISIONS.name)).values():
            for record in records:
                decisions[record.key].append(record.value)
        assert set(decisions) == expected
        return decisions

    async def assert_state_is_right(self, transactions: int) -> None:
        """Decide on the record again, in one go and from nothing: each decision must come out byte for byte."""
        report = await replay_topics(self.settings, read_pack(DEFAULT_RULES))
        assert (report.unmatched, report.transactions, report.identical) == (0, transactions, transactions)

    async def seconds_without(self, partitions: set[int], killed_ms: int) -> float:
        """Time from a kill to the first decision on a payment which was sent after it to one of `partitions`."""
        found = await self.records(DECISIONS.name, TRANSACTIONS.name)
        decided_ms: list[int] = []
        for (topic, _), records in found.items():
            for record in records if topic == DECISIONS.name else ():
                source = decode_decision(record.value).source
                sent_ms = found[TRANSACTIONS.name, source.partition][source.offset].timestamp
                if source.partition in partitions and sent_ms > killed_ms:
                    decided_ms.append(record.timestamp)
        return (min(decided_ms) - killed_ms) / 1000

    async def changelog_rows(self) -> int:
        """Rows that recovery from nothing would read."""
        names = [changelog(self.settings.app_id, table).name for table in (RECEIVERS_TABLE, PAYERS_TABLE)]
        return sum(map(len, (await self.records(*names)).values()))


@asynccontextmanager
async def _started(tmp_path: Path, make_broker: Callable[..., LocalBroker]) -> AsyncIterator[Cluster]:
    node = make_broker()
    await asyncio.to_thread(node.start)
    settings = Settings(broker=node.bootstrap, data_dir=tmp_path / "data", partitions=_PARTITIONS)
    await ensure_topics(client_options(settings), topics(settings.app_id), partitions=_PARTITIONS)
    settings.read_hash_key()
    yield Cluster(settings)


async def until(
    holds: Callable[[], Awaitable[bool]], otherwise: str, *, every_s: float = _POLL_S, deadline_s: float = _DEADLINE_S
) -> float:
    """Wait until something holds; the seconds that it took."""
    started_s = time.monotonic()
    while not await holds():
        assert time.monotonic() - started_s < deadline_s, otherwise
        await asyncio.sleep(every_s)
    return time.monotonic() - started_s


def _traffic(count: int) -> list[Simulated]:
    config = TrafficConfig(
        start_ms=int(time.time() * 1000), count=count, rate_per_s=100, malformed_share=0, retry_share=0
    )
    return list(generate(config))


@pytest.mark.parametrize("standbys", [0, 1])
async def test_after_a_kill_the_other_takes_over(
    tmp_path: Path, make_broker: Callable[..., LocalBroker], standbys: int
) -> None:
    """It decides on as if nothing had happened; with a standby it reads next to nothing of the changelog."""
    messages = _traffic(3000)
    variables = {"PIXGUARD_SESSION_TIMEOUT_S": "4", "PIXGUARD_STANDBY_REPLICAS": str(standbys)}
    async with _started(tmp_path, make_broker) as cluster:
        with cluster.worker("one", **variables) as first, cluster.worker("two", **variables):
            await cluster.until_shared("one", "two")
            await send(cluster.settings, messages[:2000])
            sending = asyncio.create_task(send(cluster.settings, messages[2000:], per_second=_RATE_PER_S))
            await asyncio.sleep(2.0)
            copies = [row for row in await cluster.ask("two", "/api/partitions") if row["role"] == "standby"]
            lost, before = await cluster.owned("one"), len(cluster.lines("two", "recovered"))
            first.kill()
            killed_ms = int(time.time() * 1000)
            rows = await cluster.changelog_rows()
            await cluster.until_shared("two")
            await sending
            decisions = await cluster.until_decided(messages)
            gap_s = await cluster.seconds_without(lost, killed_ms)
            await cluster.assert_state_is_right(len(messages))
        recovered = sum(line["rows"] for line in cluster.lines("two", "recovered")[before:])
    log.info("gap_s: %s", gap_s)
    log.info("recovered_rows: %s", f"{recovered} of {rows}")
    assert [values for values in decisions.values() if len(set(values)) > 1] == []
    assert lost
    assert {(row["table"], row["partition"]) for row in copies} == (
        {(table, partition) for table in (RECEIVERS_TABLE, PAYERS_TABLE) for partition in lost} if standbys else set()
    )
    assert all(row["recovered_rows"] > row["profiles"] <= _MAX_IN_MEMORY for row in copies)
    assert recovered < rows / 10 if standbys else recovered > rows / 5


async def test_a_worker_that_returns_under_its_name_gets_its_partitions_back(
    tmp_path: Path, make_broker: Callable[..., LocalBroker]
) -> None:
    """Within the session timeout the group does not even notice; and it tells how far its recovery is."""
    messages = _traffic(2400)
    variables = {"PIXGUARD_SESSION_TIMEOUT_S": str(_LONG_SESSION_S)}
    told: list[dict[str, Any]] = []
    async with _started(tmp_path, make_broker) as cluster:
        with cluster.worker("one", **variables) as first, cluster.worker("two", **variables):
            await cluster.until_shared("one", "two")
            await send(cluster.settings, messages[:1600])
            sending = asyncio.create_task(send(cluster.settings, messages[1600:], per_second=_RATE_PER_S))
            await asyncio.sleep(1.0)
            owned = await cluster.owned("one")
            rebalances = [cluster.lines("two", event) for event in ("ready", "handed over")]
            first.kill()
            await asyncio.to_thread(first.wait)
            with cluster.worker("one", **variables):

                async def is_ready() -> bool:
                    told.append(await cluster.ask("one", "/ready") or {})
                    return bool(told[-1].get("ready"))

                await until(is_ready, "the worker does not come back", every_s=0.01)
                assert await cluster.owned("one") == owned
                await sending
                decisions = await cluster.until_decided(messages)
                await cluster.assert_state_is_right(len(messages))
                # Before the first one leaves, whose partitions the other takes at once.
                assert [cluster.lines("two", event) for event in ("ready", "handed over")] == rebalances
    assert [values for values in decisions.values() if len(set(values)) > 1] == []
    # A recovery of so few rows is over within two of these looks, so that its log tells the rest.
    assert "recovering" in {answer.get("phase") for answer in told}
    recoveries = [answer["recovery"] for answer in told if answer.get("recovery")]
    assert [each["percent"] for each in recoveries] == sorted(each["percent"] for each in recoveries)
    begun, done = (cluster.lines("one", event)[-2:] for event in ("recovering", "recovered"))
    assert {line["table"] for line in begun} == {line["table"] for line in done} == {RECEIVERS_TABLE, PAYERS_TABLE}
    assert all(line["percent"] == 0 and line["rows"] > 0 for line in begun)
    assert all(line["percent"] == 100 and set(line["partitions"]) == owned for line in done)


async def test_a_stop_under_load_hands_over_without_a_repeat(
    tmp_path: Path, make_broker: Callable[..., LocalBroker]
) -> None:
    """All that it took is in the log within three seconds; the other goes on at once, and decides on nothing again."""
    messages = _traffic(2400)
    variables = {"PIXGUARD_SESSION_TIMEOUT_S": str(_LONG_SESSION_S), "PIXGUARD_CHECKPOINT_INTERVAL_S": "1"}
    async with _started(tmp_path, make_broker) as cluster:
        with cluster.worker("one", **variables) as first, cluster.worker("two", **variables):
            await cluster.until_shared("one", "two")
            sending = asyncio.create_task(send(cluster.settings, messages, per_second=_RATE_PER_S))
            await asyncio.sleep(3.0)
            lost = await cluster.owned("one")
            first.send_signal(signal.SIGTERM)
            stopped_ms, stopped_s = int(time.time() * 1000), time.monotonic()
            assert await asyncio.to_thread(first.wait, _DEADLINE_S) == 0
            log.info("exit_s: %s", time.monotonic() - stopped_s)
            await cluster.until_shared("two")
            taken_s = time.monotonic() - stopped_s
            await sending
            decisions = await cluster.until_decided(messages)
            log.info("gap_s: %s", await cluster.seconds_without(lost, stopped_ms))
            await cluster.assert_state_is_right(len(messages))
        handed_over_s = cluster.lines("one", "handed over")[-1]["seconds"]
    log.info("handed_over_s: %s", handed_over_s)
    log.info("taken_s: %s", taken_s)
    assert handed_over_s < 3
    assert taken_s < _LONG_SESSION_S / 2
    assert {len(values) for values in decisions.values()} == {1}


async def test_a_worker_joins_and_leaves_under_load(tmp_path: Path, make_broker: Callable[..., LocalBroker]) -> None:
    """Whoever owns a partition decides on it, and nobody else does again."""
    messages = _traffic(3600)
    variables = {"PIXGUARD_SESSION_TIMEOUT_S": str(_LONG_SESSION_S)}
    async with _started(tmp_path, make_broker) as cluster:
        with cluster.worker("one", **variables), cluster.worker("two", **variables):
            await cluster.until_shared("one", "two")
            sending = asyncio.create_task(send(cluster.settings, messages, per_second=_RATE_PER_S))
            with cluster.worker("three", **variables):
                await cluster.until_shared("one", "two", "three")
                await asyncio.sleep(1.0)
            await cluster.until_shared("one", "two")
            await sending
            decisions = await cluster.until_decided(messages)
            await cluster.assert_state_is_right(len(messages))
    assert [values for values in decisions.values() if len(set(values)) > 1] == []


async def test_a_stop_while_it_warms_up_ends_it_at_once(tmp_path: Path, broker: LocalBroker) -> None:
    """A compiler that has its cache still to fill does not keep a worker alive that owns nothing yet."""
    settings = Settings(broker=broker.bootstrap, data_dir=tmp_path / "data", partitions=_PARTITIONS)
    cluster = Cluster(settings)
    with cluster.worker("cold", NUMBA_CACHE_DIR=str(tmp_path / "numba")) as worker:

        async def is_warming_up() -> bool:
            return bool(cluster.lines("cold", "warming up"))

        await until(is_warming_up, "the worker does not start")
        await asyncio.sleep(1.0)  # into the middle of the compilation
        assert not cluster.lines("cold", "warm")
        worker.send_signal(signal.SIGTERM)
        stopped_s = time.monotonic()
        assert await asyncio.to_thread(worker.wait, _DEADLINE_S) == 0
    ended_s = time.monotonic() - stopped_s
    log.info("ended_s: %s", ended_s)
    assert ended_s < 15, "with nothing else on the machine it takes about a second"
