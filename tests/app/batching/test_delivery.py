"""Delivery, acknowledgement and commit on a real broker."""

import asyncio
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.consumer.fetcher import READ_COMMITTED
from faust.exceptions import ImproperlyConfigured
from faust.types import TP

from app.batching import BatchSchema
from tests.app.batching.recording import Cluster, MakeApp, Until


async def test_every_record_is_delivered_once_in_order_and_in_bounded_batches(
    cluster: Cluster, make_app: MakeApp, until: Until
) -> None:
    """Each partition arrives complete and in order, in batches without a gap and of at most the configured size."""
    source = await cluster.create(partitions=3)
    for partition in range(3):
        await cluster.fill(source, partition, range(1_000))
    app = make_app(source, fetch_max_records=150)
    await app.start()
    await until(lambda: len(app.numbers()) >= 3_000)
    for partition in range(3):
        batches = [batch for batch in app.batches if batch.tp == TP(source, partition)]
        assert [int(value or b"") for batch in batches for value in batch.values] == list(range(1_000))
        assert [batch.base for batch in batches] == [0, *(batch.next_offset for batch in batches[:-1])]
        assert max(len(batch) for batch in batches) <= 150
        assert [offset for batch in batches for offset in batch.offsets] == list(range(1_000))
        assert batches[-1].timestamps_ms[-1] == 999
    assert not app.batch_consumer._gap  # where stock lists the offsets inside a batch, one by one


async def test_what_waits_of_several_partitions_comes_together(
    cluster: Cluster, make_app: MakeApp, until: Until
) -> None:
    """While an agent is at work, batches gather: at most one of a partition, and no more bytes than a step may have."""
    source = await cluster.create(partitions=4)
    app = make_app(source, fetch_max_records=100, step_max_bytes=1_000)
    await app.start()
    app.may_process.clear()
    for partition in range(4):
        await cluster.fill(source, partition, range(300))
    await until(lambda: len(app.steps) == 0 and app.batch_consumer.taken_partitions() != set())
    await until(lambda: sum(progress.queued_batches() for progress in app.batch_consumer._progress.values()) >= 6)
    app.may_process.set()
    await until(lambda: len(app.numbers()) == 1_200)
    assert max(len(step) for step in app.steps) > 1
    for step in app.steps:
        assert len({batch.tp for batch in step}) == len(step)
        assert len(step) == 1 or sum(batch.nbytes for batch in step) <= 1_000
    for partition in range(4):
        batches = [batch for batch in app.batches if batch.tp == TP(source, partition)]
        assert [offset for batch in batches for offset in batch.offsets] == list(range(300))


async def test_no_commit_passes_an_unacknowledged_batch(cluster: Cluster, make_app: MakeApp, until: Until) -> None:
    """Later acknowledgements are committed once the earlier batch is acknowledged, then all at once."""
    source = await cluster.create()
    await cluster.fill(source, 0, range(1_000))
    app = make_app(source, fetch_max_records=100)
    await app.start()
    await until(lambda: len(app.numbers()) == 1_000)
    first = app.held.pop(0)
    app.ack_all()
    await app.consumer.commit()
    assert await cluster.committed(app.conf.id, source) == {}
    first.ack()
    await app.consumer.commit()
    assert await cluster.committed(app.conf.id, source) == {0: 1_000}


async def test_a_stream_acknowledges_nothing_by_itself(cluster: Cluster, make_app: MakeApp, until: Until) -> None:
    """An agent that forgets `noack` loses nothing: what it did not acknowledge is not committed."""
    source, plain = await cluster.create(), await cluster.create()
    await cluster.fill(plain, 0, range(100))
    app = make_app(source)
    seen: list[int] = []

    @app.agent(app.topic(plain, schema=BatchSchema()))
    async def without_noack(stream: object) -> None:
        async for batch in stream:  # type: ignore[attr-defined]
            seen.append(len(batch))  # noqa: PERF401  (the stream never ends)

    await app.start()
    await until(lambda: sum(seen) == 100)
    await cluster.fill(plain, 0, range(10))
    await until(lambda: sum(seen) == 110)
    await app.consumer.commit()
    assert await cluster.committed(app.conf.id, plain) == {}
    assert app.batch_consumer.taken_partitions() == {TP(plain, 0)}
    for message in list(app.consumer.unacked):
        message.ack(app.consumer)


async def test_a_slow_agent_bounds_what_is_delivered(cluster: Cluster, make_app: MakeApp, until: Until) -> None:
    """One batch is in the agent's hands and the configured number wait; when it goes on, the rest arrives."""
    source = await cluster.create()
    app = make_app(source, fetch_max_records=100, max_queued_batches=2, consumer_max_fetch_size=1_000)
    app.may_process.clear()
    await app.start()
    await until(lambda: app.sources_open)
    await cluster.fill(source, 0, range(5_000))
    await asyncio.sleep(0.5)
    progress = app.batch_consumer._progress[TP(source, 0)]
    assert progress.queued_batches() == 2
    assert 200 <= progress.pending_records <= 300
    app.may_process.set()
    await until(lambda: len(app.numbers()) == 5_000)


async def test_unacknowledged_records_pause_the_partition(cluster: Cluster, make_app: MakeApp, until: Until) -> None:
    """An agent that takes batches and acknowledges none is given no more than the limit and a fetch."""
    source = await cluster.create()
    await cluster.fill(source, 0, range(3_000))
    app = make_app(source, fetch_max_records=100, max_pending_records=500, consumer_max_fetch_size=1_000)
    await app.start()
    await until(lambda: len(app.numbers()) >= 500)
    await asyncio.sleep(0.3)
    assert 500 <= len(app.numbers()) <= 600
    while len(app.numbers()) < 3_000:
        app.ack_all()
        await asyncio.sleep(0.01)
    assert app.numbers() == list(range(3_000))


@pytest.mark.parametrize("read_committed", [False, True])
async def test_transactions_are_read_and_their_markers_committed(
    cluster: Cluster, make_app: MakeApp, until: Until, *, read_committed: bool
) -> None:
    """Aborted records are left out when asked for; the commit reaches the end of the log, markers included."""
    source = await cluster.create()
    async with AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, transactional_id=uuid4().hex) as producer:
        for number in range(4):
            await producer.begin_transaction()
            await producer.send(source, b"%d" % number, partition=0)
            await (producer.abort_transaction() if number % 2 else producer.commit_transaction())
    # One record a batch, so that what is left at the end is a batch of markers alone.
    app = make_app(source, read_committed=read_committed, fetch_max_records=1)
    await app.start()
    await until(lambda: bool(app.batches) and app.batches[-1].next_offset == 8)
    assert app.numbers() == ([0, 2] if read_committed else [0, 1, 2, 3])
    app.ack_all()
    await app.consumer.commit()
    assert await cluster.committed(app.conf.id, source) == {0: 8}


async def test_batch_topics_and_ordinary_ones_share_an_app(cluster: Cluster, make_app: MakeApp, until: Until) -> None:
    """A topic without the schema arrives record by record and is committed by Faust as ever."""
    source, ordinary = await cluster.create(), await cluster.create()
    await cluster.fill(source, 0, range(100))
    await cluster.fill(ordinary, 0, range(100))
    app = make_app(source)
    seen: list[bytes] = []

    @app.agent(app.topic(ordinary, value_type=bytes, value_serializer="raw"))
    async def each(stream: object) -> None:
        async for value in stream:  # type: ignore[attr-defined]
            seen.append(value)  # noqa: PERF401  (the stream never ends)

    await app.start()
    await until(lambda: len(seen) == 100 and len(app.numbers()) == 100)
    await app.consumer.commit()
    assert await cluster.committed(app.conf.id, ordinary) == {0: 100}
    assert await cluster.committed(app.conf.id, source) == {}


async def test_two_agents_on_one_batch_topic_are_refused(cluster: Cluster, make_app: MakeApp, until: Until) -> None:
    """They would share one acknowledgement, so that what one of them skipped could be committed."""
    source = await cluster.create()
    await cluster.fill(source, 0, range(10))
    app = make_app(source)
    app.agent(app.topic(source, schema=BatchSchema()), name="second")(app.record)
    await app.start()
    await until(lambda: app.crashed)
    assert isinstance(app.crash_reason, ImproperlyConfigured)


async def test_fetch_settings_reach_the_client(cluster: Cluster, make_app: MakeApp) -> None:
    """Stock Faust lets the broker hold a fetch back for 1.5 seconds, whatever one sets."""
    app = make_app(await cluster.create(), fetch_max_wait_ms=23, fetch_min_bytes=45, read_committed=True)
    await app.start()
    fetcher = app.batch_consumer._thread._ensure_consumer()._fetcher
    assert (fetcher._fetch_max_wait_ms, fetcher._fetch_min_bytes) == (23, 45)
    assert fetcher._isolation_level == READ_COMMITTED
