"""Reading sources over connections of our own, whatever becomes of connections, leaders and answers."""

import asyncio
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from aiokafka.errors import NotLeaderForPartitionError, TopicAuthorizationFailedError

from app.batching.fetch import API_KEY, Fetched, decode_fetch
from app.batching.wire import Answer, Wire
from tests.app.batching.recording import Cluster, MakeApp, Until

Decode = Callable[[Answer], Iterator[Fetched]]


def refusing(error_code: int, times: int) -> tuple[Decode, list[Fetched]]:
    """Return a decoder of answers that says so often that a partition is not served, and what it said."""
    refused: list[Fetched] = []

    def decode(answer: Answer) -> Iterator[Fetched]:
        for fetched in decode_fetch(answer):
            if len(refused) < times:
                refused.append(fetched._replace(error_code=error_code, records=memoryview(b"")))
                yield refused[-1]
            else:
                yield fetched

    return decode, refused


async def test_a_broken_connection_is_opened_again(cluster: Cluster, make_app: MakeApp, until: Until) -> None:
    """Nothing is lost or delivered twice."""
    source = await cluster.create(partitions=2)
    app = make_app(source)
    await app.start()
    for first in range(0, 500, 100):
        for partition in range(2):
            await cluster.fill(source, partition, range(first, first + 100))
        await until(lambda: len(app.numbers()) == 2 * (first + 100))  # noqa: B023  (called in this turn)
        for feed in app.batch_consumer.sources._feeds.values():
            if feed.wire is not None:
                feed.wire.close()
    assert sorted(app.numbers()) == sorted([*range(500), *range(500)])


async def test_a_broker_that_does_not_lead_any_more_is_asked_who_does(
    cluster: Cluster, make_app: MakeApp, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The partition is left alone for a moment, then read on where it was."""
    decode, refused = refusing(NotLeaderForPartitionError.errno, 3)
    monkeypatch.setattr("app.batching.sources.decode_fetch", decode)
    source = await cluster.create()
    await cluster.fill(source, 0, range(300))
    app = make_app(source)
    await app.start()
    await until(lambda: len(app.numbers()) == 300)
    assert len(refused) == 3
    assert app.numbers() == list(range(300))


async def test_a_refusal_that_does_not_get_better_takes_the_app_down(
    cluster: Cluster, make_app: MakeApp, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that may not read a partition any more must not look as if it were idle."""
    decode, _ = refusing(TopicAuthorizationFailedError.errno, 1)
    monkeypatch.setattr("app.batching.sources.decode_fetch", decode)
    source = await cluster.create()
    await cluster.fill(source, 0, range(10))
    app = make_app(source)
    await app.start()
    await until(lambda: app.crashed)
    assert isinstance(app.crash_reason, TopicAuthorizationFailedError)
    assert f"{source}-0" in str(app.crash_reason)


async def test_fetches_of_a_topic_lie_apart(
    cluster: Cluster, make_app: MakeApp, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrives meanwhile comes in one answer."""
    sent_s: list[float] = []
    send = Wire.send

    def count(wire: Wire, api_key: int, api_version: int, request: memoryview) -> asyncio.Future[Answer]:
        if api_key == API_KEY:
            sent_s.append(asyncio.get_running_loop().time())
        return send(wire, api_key, api_version, request)

    source = await cluster.create(partitions=3)
    app = make_app(source, fetch_pause_ms=200)
    await app.start()
    await until(lambda: app.sources_open)
    monkeypatch.setattr(Wire, "send", count)
    for first in range(0, 2_000, 100):
        await cluster.fill(source, first % 3, range(first, first + 100))
        await asyncio.sleep(0.02)
    await until(lambda: len(app.numbers()) == 2_000)
    gaps_s = [later - sooner for sooner, later in pairwise(sent_s)]
    assert min(gaps_s) >= 0.199
    assert len(app.steps) < 20
