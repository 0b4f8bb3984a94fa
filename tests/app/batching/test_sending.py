"""Sending whole columns of records: in order, once, and in few requests, whatever becomes of requests and answers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from aiokafka.errors import KafkaConnectionError, NotLeaderForPartitionError, RequestTimedOutError
from aiokafka.errors import UnknownTopicOrPartitionError as UnknownTopic
from aiokafka.structs import TopicPartition

from app.batching import BatchApp, OversizeError
from app.batching.produce import read_answer
from app.batching.wire import Answer
from tests.app.batching.recording import Cluster, MakeApp, Until, meddle

MEBIBYTE = 1024 * 1024

Send = Callable[[], Awaitable[Answer]]


async def started(app: BatchApp) -> BatchApp:
    """Start the producer alone."""
    app.producer_only = True
    await app.start()
    return app


def send(app: BatchApp, topic: str, *values: bytes, partition: int = 0, atomic: bool = False) -> asyncio.Future[int]:
    """Send values without keys."""
    return app.batch_producer.send_records(topic, partition, [None] * len(values), values, 0, atomic=atomic)


async def send_one_by_one(app: BatchApp, topic: str, values: Sequence[bytes]) -> list[asyncio.Future[int]]:
    """Send each value in a request of its own."""
    sent = []
    for value in values:
        sent.append(send(app, topic, value))
        await asyncio.sleep(0.01)
    return sent


async def assert_all_arrive_once_in_order(cluster: Cluster, app: BatchApp, topic: str) -> None:
    """Send eight values in requests of their own; each is told where it is, and is there."""
    values = [b"%d" % number for number in range(8)]
    sent = await send_one_by_one(app, topic, values)
    assert await asyncio.gather(*sent) == list(range(8))
    assert [each.value for each in await cluster.read(topic)] == values


async def test_records_keep_their_order_over_as_few_batches_as_needed(cluster: Cluster, make_app: MakeApp) -> None:
    """2.5 MB go out as three record batches of at most 1 MB, with keys, values and times unchanged."""
    topic = await cluster.create(partitions=2)
    app = await started(make_app(topic))
    keys = [b"%d" % number for number in range(2_500)]
    values = [key.ljust(1_000, b".") for key in keys]
    assert await app.batch_producer.send_records(topic, 1, keys, values, range(2_500)) == 0
    records = await cluster.read(topic, partitions=2)
    assert [(each.key, each.value, each.timestamp) for each in records] == list(
        zip(keys, values, range(2_500), strict=True)
    )


async def test_an_atomic_call_is_one_record_batch(cluster: Cluster, make_app: MakeApp) -> None:
    """A checkpoint of many megabytes is appended as a whole."""
    topic = await cluster.create(max_message_bytes=str(16 * MEBIBYTE))
    app = await started(make_app(topic))
    assert await send(app, topic, *[bytes(1_000)] * 10_000, atomic=True) == 0
    assert len(await cluster.read(topic)) == 10_000


async def test_a_record_larger_than_a_batch_goes_alone(cluster: Cluster, make_app: MakeApp) -> None:
    """The dead letter of a large message is a third larger than it."""
    topic = await cluster.create(max_message_bytes=str(4 * MEBIBYTE))
    app = await started(make_app(topic))
    values = [b"before", bytes(2_700_000), b"after"]
    await send(app, topic, *values)
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
        await send(app, topic, *values, atomic=atomic)
    await app.producer.flush()
    assert await cluster.read(topic) == []


async def test_no_records_are_an_error(make_app: MakeApp, cluster: Cluster) -> None:
    """There is no offset to tell."""
    topic = await cluster.create()
    app = await started(make_app(topic))
    with pytest.raises(ValueError, match=f"{topic}-0: expected records, got none"):
        await send(app, topic)


async def test_each_call_learns_where_its_records_are(cluster: Cluster, make_app: MakeApp) -> None:
    """Though several calls went in one record batch."""
    topic = await cluster.create()
    app = await started(make_app(topic))
    sent = [send(app, topic, *[b"v"] * records) for records in (3, 1, 2)]
    assert await asyncio.gather(*sent) == [0, 3, 4]
    assert await send(app, topic, b"v") == 6


@pytest.mark.parametrize("lost", [{0}, {1}, {1, 2, 3}, {3, 4, 6}])
async def test_a_lost_answer_appends_nothing_twice(
    cluster: Cluster, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, lost: set[int]
) -> None:
    """The broker recognises the repeated record batches by their sequence numbers, and tells where they are."""
    topic = await cluster.create()
    app = await started(make_app(topic))

    async def lose(number: int, send: Send) -> Answer:
        answer = await send()
        if number in lost:
            raise RequestTimedOutError
        return answer

    meddle(monkeypatch, lose)
    await assert_all_arrive_once_in_order(cluster, app, topic)


@pytest.mark.parametrize("lost", [{0}, {1}, {2, 3}, {1, 3, 7}])
async def test_what_follows_a_lost_request_comes_after_it(
    cluster: Cluster, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, lost: set[int]
) -> None:
    """The leader refuses what is out of order; all of it is sent again, in order."""
    topic = await cluster.create()
    app = await started(make_app(topic))

    async def lose(number: int, send: Send) -> Answer:
        if number in lost:
            await asyncio.sleep(0.05)
            raise KafkaConnectionError("lost")
        return await send()

    meddle(monkeypatch, lose)
    await assert_all_arrive_once_in_order(cluster, app, topic)


async def test_a_broker_that_does_not_lead_any_more_is_asked_who_does(
    cluster: Cluster, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch goes out again, and so do those behind it."""
    topic = await cluster.create()
    app = await started(make_app(topic))
    refused: list[object] = []

    def refuse(answer: Answer) -> dict[TopicPartition, tuple[int, int]]:
        blocks = read_answer(answer)
        if len(refused) < 2:
            refused.append(blocks)
            return dict.fromkeys(blocks, (NotLeaderForPartitionError.errno, -1))
        return blocks

    await send(app, topic, b"0")
    monkeypatch.setattr("app.batching.sending.read_answer", refuse)
    values = [b"%d" % number for number in range(1, 6)]
    await asyncio.gather(*await send_one_by_one(app, topic, values))
    assert [each.value for each in await cluster.read(topic)] == [b"0", *values]


async def test_a_slow_answer_holds_nobody_up(
    cluster: Cluster, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    """What is ready for other partitions, and for the same, is sent meanwhile, up to a number of requests."""
    topic = await cluster.create(partitions=2)
    app = await started(make_app(topic))
    for partition in range(2):
        await send(app, topic, b"known", partition=partition)
    requests: list[int] = []
    answer_may_come = asyncio.Event()

    async def hold(number: int, send: Send) -> Answer:
        requests.append(number)
        answer = await send()
        if number == 0:
            await answer_may_come.wait()
        return answer

    meddle(monkeypatch, hold)
    first = send(app, topic, b"first")
    await until(lambda: bool(requests))
    async with asyncio.timeout(10):
        await send(app, topic, b"other", partition=1)
        await send(app, topic, b"second")
    assert not first.done()
    answer_may_come.set()
    await first
    records = await cluster.read(topic, partitions=2)
    assert [each.value for each in records if each.partition == 0] == [b"known", b"first", b"second"]


async def test_to_a_leader_that_has_taken_nothing_yet_one_request_goes(
    cluster: Cluster, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    """It would take the second batch though the first was lost: any number is as good as the first."""
    topic = await cluster.create()
    app = await started(make_app(topic))
    lost: list[int] = []

    async def lose_first(number: int, send: Send) -> Answer:
        if number == 0:
            lost.append(number)
            await asyncio.sleep(0.3)
            raise KafkaConnectionError("lost")
        return await send()

    meddle(monkeypatch, lose_first)
    first = send(app, topic, b"first")
    await until(lambda: bool(lost))
    second = send(app, topic, b"second")
    assert await asyncio.gather(first, second) == [0, 1]


async def test_a_connection_that_breaks_is_opened_again(cluster: Cluster, make_app: MakeApp) -> None:
    """What was on its way goes out again, and nothing twice."""
    topic = await cluster.create()
    app = await started(make_app(topic))
    await send(app, topic, b"0")
    sender = app.batch_producer._sender
    assert sender is not None
    (wire,) = sender._wires._wires.values()
    sent = await send_one_by_one(app, topic, [b"1", b"2"])
    sent.append(send(app, topic, b"3"))
    await asyncio.sleep(0)
    wire.close()
    assert await asyncio.gather(*sent) == [1, 2, 3]
    assert [each.value for each in await cluster.read(topic)] == [b"0", b"1", b"2", b"3"]


async def test_sequence_numbers_begin_again_after_the_last(cluster: Cluster, make_app: MakeApp) -> None:
    """A worker does not stop after two billion records to one partition."""
    topic = await cluster.create()
    app = await started(make_app(topic))
    sender = app.batch_producer._sender
    assert sender is not None
    first = send(app, topic, b"v", b"v", b"v")
    sender._lanes[topic, 0].sequence = 2**31 - 5  # the leader takes any number from a producer it does not know
    sent = [first, *[send(app, topic, b"v", b"v", b"v") for _ in range(2)]]
    await asyncio.gather(*sent)
    assert await send(app, topic, b"v") == 9
    assert sender._lanes[topic, 0].sequence == 5


async def test_a_topic_that_is_not_there_is_an_error_in_the_end(make_app: MakeApp, cluster: Cluster) -> None:
    """It may be on its way; waited for as long as for an answer."""
    topic = await cluster.create()
    app = await started(make_app(topic, producer_request_timeout=1.0))
    missing = send(app, "no-such-topic", b"v", partition=77)
    with pytest.raises(UnknownTopic):
        await missing
    assert await send(app, topic, b"v") == 0


async def test_what_is_not_answered_fails_when_the_producer_stops(
    cluster: Cluster, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever."""
    topic = await cluster.create()
    app = await started(make_app(topic))

    async def hold(number: int, send: Send) -> Answer:  # noqa: ARG001  (the meddler's signature)
        await send()
        return await asyncio.get_running_loop().create_future()

    meddle(monkeypatch, hold)
    sent = send(app, topic, b"v")
    await asyncio.sleep(0.05)
    sender = app.batch_producer._sender
    assert sender is not None
    await sender.close()
    with pytest.raises(KafkaConnectionError, match="the producer was closed"):
        await sent


async def test_what_is_on_its_way_is_bounded(cluster: Cluster, make_app: MakeApp) -> None:
    """More than the broker takes in one request, for many partitions at once, arrives all the same, and in order."""
    topic = await cluster.create(partitions=12, max_message_bytes=str(16 * MEBIBYTE))
    app = await started(make_app(topic))
    values = [b"%04d" % number + bytes(MEBIBYTE) for number in range(9)]  # 9 MB for each of 12 partitions: 108 MB

    async def one(partition: int) -> int:
        return await send(app, topic, *values, partition=partition, atomic=True)

    assert await asyncio.gather(*map(one, range(12))) == [0] * 12
    records = await cluster.read(topic, partitions=12)
    assert sorted((each.partition, each.value[:4]) for each in records) == [
        (partition, value[:4]) for partition in range(12) for value in values
    ]
