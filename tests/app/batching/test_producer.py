"""Sending records in record batches."""

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import RequestTimedOutError

from app.batching import BatchApp, OversizeError
from tests.app.batching.recording import Cluster, MakeApp, Until

MEBIBYTE = 1024 * 1024


async def started(app: BatchApp) -> BatchApp:
    """Start the producer alone."""
    app.producer_only = True
    await app.start()
    return app


async def test_records_keep_their_order_over_as_few_batches_as_needed(cluster: Cluster, make_app: MakeApp) -> None:
    """2.5 MB go out as three record batches of at most 1 MB, with keys, values and times unchanged."""
    topic = await cluster.create(partitions=2)
    app = await started(make_app(topic))
    keys = [b"%d" % number for number in range(2_500)]
    values = [key.ljust(1_000, b".") for key in keys]
    sent = await (await app.batch_producer.send_records(topic, 1, keys, values, range(2_500)))
    assert len(sent) == 3
    assert [each.partition for each in sent] == [1, 1, 1]
    records = await cluster.read(topic, partitions=2)
    assert [(each.key, each.value, each.timestamp) for each in records] == list(
        zip(keys, values, range(2_500), strict=True)
    )


async def test_an_atomic_call_is_one_record_batch(cluster: Cluster, make_app: MakeApp) -> None:
    """A checkpoint of many megabytes is appended as a whole."""
    topic = await cluster.create(max_message_bytes=str(16 * MEBIBYTE))
    app = await started(make_app(topic))
    values = [bytes(1_000)] * 10_000
    sent = await (await app.batch_producer.send_records(topic, 0, [b"k"] * 10_000, values, [0] * 10_000, atomic=True))
    assert [each.offset for each in sent] == [0]
    assert len(await cluster.read(topic)) == 10_000


async def test_a_record_larger_than_a_batch_goes_alone(cluster: Cluster, make_app: MakeApp) -> None:
    """The dead letter of a large message is a third larger than it."""
    topic = await cluster.create(max_message_bytes=str(4 * MEBIBYTE))
    app = await started(make_app(topic))
    values = [b"before", bytes(2_700_000), b"after"]
    sent = await (await app.batch_producer.send_records(topic, 0, [None] * 3, values, [0] * 3))
    assert len(sent) == 3
    assert [each.value for each in await cluster.read(topic)] == values


@pytest.mark.parametrize(
    ("values", "atomic"),
    [([bytes(600_000), bytes(600_000)], True), ([bytes(1_200_000)], False), ([b"", bytes(1_200_000)], False)],
    ids=["atomic", "one record", "a later record"],
)
async def test_what_does_not_fit_is_refused(
    cluster: Cluster, make_app: MakeApp, *, values: list[bytes], atomic: bool
) -> None:
    """The error names the limit, and nothing is sent, not even what fits."""
    topic = await cluster.create()
    app = await started(make_app(topic, producer_max_request_size=MEBIBYTE))
    with pytest.raises(OversizeError, match=f"{topic}-0: expected .* of at most [0-9]+ bytes, got"):
        await app.batch_producer.send_records(topic, 0, [None] * len(values), values, [0] * len(values), atomic=atomic)
    await app.producer.flush()
    assert await cluster.read(topic) == []


async def test_nothing_is_sent_for_no_records(make_app: MakeApp, cluster: Cluster) -> None:
    """An empty call completes at once."""
    topic = await cluster.create()
    app = await started(make_app(topic))
    assert await (await app.batch_producer.send_records(topic, 0, [], [], [])) == []
    assert await cluster.read(topic) == []


async def test_a_retry_after_a_lost_answer_appends_nothing_twice(
    cluster: Cluster, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker recognises the repeated record batch by its sequence number."""
    topic = await cluster.create()
    app = await started(make_app(topic))
    client: Any = app.batch_producer._ensure_producer().client
    send = client.send
    lost: list[object] = []

    async def lose_first_answer(node: int, request: object, **options: object) -> object:
        answer = await send(node, request, **options)
        if type(request).__name__.startswith("Produce") and not lost:
            lost.append(request)
            raise RequestTimedOutError
        return answer

    monkeypatch.setattr(client, "send", lose_first_answer)
    await (await app.batch_producer.send_records(topic, 0, [b"k"], [b"once"], [0]))
    assert len(lost) == 1
    assert [each.value for each in await cluster.read(topic)] == [b"once"]


async def test_a_slow_answer_holds_up_its_own_partition_alone(
    cluster: Cluster, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    """What is ready for others is sent meanwhile; what follows in the partition waits, so that the order is kept."""
    topic = await cluster.create(partitions=2)
    app = await started(make_app(topic))
    client: Any = app.batch_producer._ensure_producer().client
    send, answer_may_come, held = client.send, asyncio.Event(), []

    async def hold_first_answer(node: int, request: object, **options: object) -> object:
        first = type(request).__name__.startswith("Produce") and not held
        held.append(first)
        answer = await send(node, request, **options)
        if first:
            await answer_may_come.wait()
        return answer

    monkeypatch.setattr(client, "send", hold_first_answer)
    first = await app.batch_producer.send_records(topic, 0, [b"k"], [b"first"], [0])
    await until(lambda: bool(held))
    second = asyncio.ensure_future(app.batch_producer.send_records(topic, 0, [b"k"], [b"second"], [0]))
    async with asyncio.timeout(10):
        await (await app.batch_producer.send_records(topic, 1, [b"k"], [b"other"], [0]))
    assert not first.done()  # type: ignore[attr-defined]
    assert [each.value for each in await cluster.read(topic, partitions=2) if each.partition == 0] == [b"first"]
    answer_may_come.set()
    await first
    await (await second)
    records = await cluster.read(topic, partitions=2)
    assert [each.value for each in records if each.partition == 0] == [b"first", b"second"]


async def test_a_prepared_batch_takes_in_nothing_else(cluster: Cluster, make_app: MakeApp) -> None:
    """What others send to the partition meanwhile goes into a batch of its own."""
    topic = await cluster.create()
    app = await started(make_app(topic))
    prepared = await app.batch_producer.send_records(topic, 0, [b"k"], [b"prepared"], [0])
    other = await app.producer.send(topic, b"k", b"other", 0, None, None)
    (written,), _ = await asyncio.gather(prepared, other)
    assert written.offset == 0
    assert [each.value for each in await cluster.read(topic)] == [b"prepared", b"other"]


async def test_sequence_numbers_begin_again_after_the_last(cluster: Cluster, make_app: MakeApp) -> None:
    """A worker does not stop after two billion records to one partition."""
    topic = await cluster.create()
    app = await started(make_app(topic))
    sequences = app.batch_producer._ensure_producer()._txn_manager._sequence_numbers
    sequences[TopicPartition(topic, 0)] = 2**31 - 3  # the leader takes any number from a producer it does not know
    for _ in range(3):
        await (await app.batch_producer.send_records(topic, 0, [b"k"] * 3, [b"v"] * 3, [0] * 3))
    assert len(await cluster.read(topic)) == 9


async def test_what_is_on_its_way_is_bounded(cluster: Cluster, make_app: MakeApp) -> None:
    """More than the broker takes in one request, for many partitions at once, arrives all the same, and in order."""
    topic = await cluster.create(partitions=12, max_message_bytes=str(16 * MEBIBYTE))
    app = await started(make_app(topic))
    values = [b"%04d" % number + bytes(MEBIBYTE) for number in range(9)]  # 9 MB for each of 12 partitions: 108 MB
    sends = [
        app.batch_producer.send_records(topic, partition, [None] * 9, values, [0] * 9, atomic=True)
        for partition in range(12)
    ]
    await asyncio.gather(*[await sent for sent in asyncio.as_completed(sends)])
    records = await cluster.read(topic, partitions=12)
    assert sorted((each.partition, each.value[:4]) for each in records) == [
        (partition, value[:4]) for partition in range(12) for value in values
    ]
