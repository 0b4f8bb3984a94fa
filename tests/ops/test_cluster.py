"""Three brokers: topics in three copies, and a worker that outlives the loss of any of them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from app.settings import load_settings
from app.topics import DECISIONS, TRANSACTIONS, topics
from ops.broker import LocalBroker, Quorum, free_port
from ops.topic_admin import patiently
from ops.traffic.generator import Simulated, TrafficConfig, generate
from tests.workers import answers, running_worker, until_ready

pytestmark = pytest.mark.broker

_PARTITIONS = 4
_TOPIC_SETTING = 1  # DescribeConfigs: set on the topic itself
_DEADLINE_S = 60.0


def _start(nodes: list[LocalBroker]) -> None:
    """Start nodes together: none is ready before most of the quorum runs."""
    with ThreadPoolExecutor(len(nodes)) as together:
        list(together.map(LocalBroker.start, nodes))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, jars_dir: Path) -> Iterator[list[LocalBroker]]:
    """Three nodes of one cluster, each broker and controller."""
    quorum, data_dir = Quorum.of(3), tmp_path_factory.mktemp("cluster")
    made = [
        LocalBroker(data_dir / str(each), jars_dir=jars_dir, port=free_port(), node_id=each, quorum=quorum)
        for each in quorum.controller_ports
    ]
    try:
        yield made
    finally:
        for node in made:
            node.kill()


@pytest.fixture
def cluster(nodes: list[LocalBroker]) -> list[LocalBroker]:
    """All three running; a test may leave some of them dead."""
    down = [node for node in nodes if node.pid is None]
    if down:
        _start(down)
    return nodes


def _bootstrap(cluster: list[LocalBroker]) -> str:
    return ",".join(node.bootstrap for node in cluster)


def _topics(cluster: list[LocalBroker], *options: str) -> tuple[int, str]:
    """Run `pixguard topics`: exit status and output."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PIXGUARD_")}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "topics", "--broker", _bootstrap(cluster), *options],
        env={**inherited, "PIXGUARD_PARTITIONS": str(_PARTITIONS), "COLUMNS": "160"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@asynccontextmanager
async def _admin(cluster: list[LocalBroker]) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=_bootstrap(cluster))
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def _partitions(admin: AIOKafkaAdminClient) -> dict[tuple[str, int], dict[str, Any]]:
    """Of all topics, by topic and number: `leader`, `replicas` and `isr` are node ids."""
    found = await patiently(admin.describe_topics)
    return {(topic["topic"], each["partition"]): each for topic in found for each in topic["partitions"]}


async def _own_settings(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    """What is set on the topic itself, whatever the brokers' defaults are."""
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    ((*_, entries),) = answer.resources
    return {name: value for name, value, _, source, *_ in entries if source == _TOPIC_SETTING}


async def _use_kafkas_own_topics(cluster: list[LocalBroker]) -> None:
    """Commit an offset of a group, and begin a transaction: Kafka makes its topics for both on first use."""
    where = TopicPartition(TRANSACTIONS.name, 0)
    async with AIOKafkaConsumer(
        bootstrap_servers=_bootstrap(cluster), group_id="anyone", enable_auto_commit=False
    ) as consumer:
        consumer.assign([where])
        await consumer.commit({where: 0})
    async with AIOKafkaProducer(bootstrap_servers=_bootstrap(cluster), transactional_id="anyone"):
        pass


async def test_every_topic_has_three_copies_and_a_write_waits_for_two(cluster: list[LocalBroker]) -> None:
    """`pixguard topics` makes them so, Kafka makes its own so, and a second run finds nothing to do."""
    status, said = _topics(cluster)
    assert status == 0, said
    await _use_kafkas_own_topics(cluster)
    async with _admin(cluster) as admin:
        partitions = await _partitions(admin)
        declared = topics("pixguard")
        assert {topic for topic, _ in partitions} == {
            *(topic.name for topic in declared),
            "__consumer_offsets",
            "__transaction_state",
        }
        assert [each for each, row in partitions.items() if sorted(row["replicas"]) != [1, 2, 3]] == []
        for topic in [*(topic.name for topic in declared), "__transaction_state"]:
            assert (await _own_settings(admin, topic))["min.insync.replicas"] == "2", topic
    status, said = _topics(cluster)
    assert (status, f"{len(declared)} topics" in said, "as declared" in said) == (0, True, True), said


async def test_a_changed_setting_is_reported_and_mended_on_request(cluster: list[LocalBroker]) -> None:
    """Status 1 and a row that says what differs; `--fix` alters it, and nothing differs afterwards."""
    _topics(cluster)
    declared = DECISIONS.config["retention.ms"]
    async with _admin(cluster) as admin:
        found = await _own_settings(admin, DECISIONS.name)
        await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, DECISIONS.name, {**found, "retention.ms": "1000"})]
        )
        for options, status, now in [((), 1, "differs"), (("--fix",), 0, "mended")]:
            done, said = _topics(cluster, *options)
            (row,) = [line for line in said.splitlines() if DECISIONS.name in line]
            assert row.replace("│", "").split() == [DECISIONS.name, "retention.ms", declared, "1000", now]
            assert done == status
        assert await _own_settings(admin, DECISIONS.name) == found
    assert _topics(cluster)[0] == 0


async def test_topics_are_checked_and_made_while_a_broker_is_down(cluster: list[LocalBroker]) -> None:
    """Three copies stay the rule, although only two brokers answer; the first one named may be the dead one."""
    _topics(cluster)
    async with _admin(cluster) as admin:
        await admin.delete_topics([DECISIONS.name])
    cluster[0].kill()
    status, said = _topics(cluster)
    assert status == 0, said
    async with _admin(cluster) as admin:
        partitions = await _partitions(admin)
    assert len(partitions[DECISIONS.name, 0]["replicas"]) == 3


async def _until_in_sync(cluster: list[LocalBroker]) -> None:
    """Wait until each partition has all its copies again."""
    deadline_s = time.monotonic() + _DEADLINE_S
    async with _admin(cluster) as admin:
        while any(len(row["isr"]) < len(cluster) for row in (await _partitions(admin)).values()):
            assert time.monotonic() < deadline_s, "a partition misses a copy"
            await asyncio.sleep(0.2)


async def _leads(cluster: list[LocalBroker]) -> Counter[int]:
    """How many partitions each node leads."""
    async with _admin(cluster) as admin:
        return Counter(row["leader"] for row in (await _partitions(admin)).values())


async def _crash_each_in_turn(cluster: list[LocalBroker], down_s: float) -> None:
    """Crash (kill -9) one broker after another, each once the one before it has caught up; all are leaders then."""
    left = {node.node_id: node for node in cluster}
    while left:
        leads = await _leads(cluster)
        node = left.pop(max(left, key=lambda each: leads[each]))
        assert leads[node.node_id] > 0
        await asyncio.to_thread(node.kill)
        await asyncio.sleep(down_s)
        await asyncio.to_thread(node.start)
        await _until_in_sync(cluster)


async def _send_while(cluster: list[LocalBroker], messages: list[Simulated], trouble: asyncio.Task[None]) -> int:
    """Send payments at a steady pace until the trouble is over, and the rest at once; how many went before that."""
    before = 0
    async with AIOKafkaProducer(bootstrap_servers=_bootstrap(cluster), enable_idempotence=True, acks="all") as producer:
        for message in messages:
            await producer.send(TRANSACTIONS.name, message.value, key=message.key)
            if not trouble.done():
                before += 1
                await asyncio.sleep(0.02)
        await trouble
    return before


async def test_a_worker_outlives_the_crash_of_every_broker(cluster: list[LocalBroker], tmp_path: Path) -> None:
    """Leaders, group coordinator and first bootstrap server are killed in turn: each payment is decided, one way."""
    _topics(cluster)
    settings = load_settings(broker=_bootstrap(cluster), data_dir=tmp_path, partitions=_PARTITIONS)
    port = free_port()
    config = TrafficConfig(start_ms=int(time.time() * 1000), count=1500, rate_per_s=100, malformed_share=0)
    messages = list(generate(config))
    ids = {message.payment.end_to_end_id for message in messages if message.payment is not None}
    with running_worker("one", settings, port) as worker:
        await until_ready(port)
        trouble = asyncio.create_task(_crash_each_in_turn(cluster, down_s=3))
        before = await _send_while(cluster, messages, trouble)
        decisions = await answers(settings, ids, 0)
        assert worker.poll() is None
    assert before > 100
    assert {key.decode() for key in decisions} == ids
    assert [key for key, values in decisions.items() if len(set(values)) > 1] == []


async def test_a_worker_stops_while_a_broker_is_down(cluster: list[LocalBroker], tmp_path: Path) -> None:
    """SIGTERM hands over and ends with status 0, although fetches from the dead broker are failing."""
    _topics(cluster)
    settings = load_settings(broker=_bootstrap(cluster), data_dir=tmp_path, partitions=_PARTITIONS)
    port = free_port()
    with running_worker("one", settings, port) as worker:
        await until_ready(port)
        await asyncio.to_thread(cluster[1].kill)
        await asyncio.sleep(1)
        worker.terminate()
        assert await asyncio.to_thread(worker.wait, 30) == 0
