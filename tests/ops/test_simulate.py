"""`pixguard simulate` on the real broker: what arrives, when, and in which order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from app.domain.feedback import Feedback, decode_feedback
from app.domain.field_checks import TimeLimits
from app.domain.partitioner import partition_of
from app.settings import Settings, load_settings
from app.topics import FEEDBACK, TRANSACTIONS
from ops.broker import LocalBroker
from ops.bulk_sender import SendError
from ops.simulate import SimulateProgress, simulate_to_kafka, timed
from ops.topic_admin import ensure_topics
from ops.traffic.feedback import FeedbackConfig
from ops.traffic.generator import TrafficConfig, generate

QUICK_FEEDBACK = FeedbackConfig(delay_scale=1e-6, contested_honest=0.5)


@pytest.fixture
async def settings(broker: LocalBroker) -> Settings:
    """A cluster with the two topics that the simulation feeds."""
    await ensure_topics({"bootstrap_servers": broker.bootstrap}, [TRANSACTIONS, FEEDBACK], partitions=3)
    return load_settings(broker=broker.bootstrap)


def traffic(**changes: Any) -> TrafficConfig:  # noqa: ANN401 (of several types)
    """A small town, at any hour of the day."""
    options: dict[str, Any] = {
        "start_ms": round(time.time() * 1000), "rate_per_s": 200.0, "people": 300, "companies": 30, "steady": True,
    }  # fmt: skip
    return TrafficConfig(**options | changes)


@asynccontextmanager
async def arriving(settings: Settings) -> AsyncIterator[Callable[[str], Any]]:
    """Give a function that reads what has arrived on a topic since."""
    async with AIOKafkaConsumer(bootstrap_servers=settings.broker, group_id=None) as consumer:
        places = [TopicPartition(topic.name, partition) for topic in (TRANSACTIONS, FEEDBACK) for partition in range(3)]
        consumer.assign(places)
        starts = await consumer.end_offsets(places)

        async def read(topic: str) -> list[Any]:
            records: list[Any] = []
            ends = await consumer.end_offsets(places)
            for place in places:
                consumer.seek(place, starts[place])
            left = {place for place in places if starts[place] < ends[place]}
            while left:
                for place, found in (await consumer.getmany(timeout_ms=200)).items():
                    records += found if place.topic == topic else []
                left = {place for place in left if await consumer.position(place) < ends[place]}
            return records

        yield read


async def test_the_topic_gets_what_the_configuration_generates(settings: Settings) -> None:
    """Same configuration, same messages, keys and order per partition, retries and damaged ones included."""
    config = traffic(count=1500, duration_s=60.0, malformed_share=0.02, retry_share=0.02)
    told: list[SimulateProgress] = []
    async with arriving(settings) as read:
        report = await simulate_to_kafka(settings, config, speed=None, progress=told.append)
        records = await read(TRANSACTIONS.name)
    expected = list(generate(timed(config, None)))
    assert (report.sent, report.interrupted) == (1500, False)
    assert told[-1][:2] == (report.sent, report.feedback)
    for partition in range(3):
        arrived = [(record.key, record.value) for record in records if record.partition == partition]
        assert arrived == [(each.key, each.value) for each in expected if partition_of(each.key, 3) == partition]


def _fields(message: bytes) -> dict[str, Any]:
    """Return what a message says; nothing for one that the simulator has damaged."""
    with suppress(ValueError):
        fields = json.loads(message)
        if isinstance(fields, dict):
            return fields
    return {}


async def test_feedback_follows_the_payments_that_it_is_about(settings: Settings) -> None:
    """Each is on its topic, keyed by its payment, decodes, and comes in order of time."""
    async with arriving(settings) as read:
        report = await simulate_to_kafka(
            settings, traffic(count=1000, duration_s=60.0), feedback=QUICK_FEEDBACK, speed=None
        )
        feedback, payments = await read(FEEDBACK.name), await read(TRANSACTIONS.name)
    assert report.feedback == len(feedback) > 100
    assert len(payments) == 1000
    ids = {_fields(record.value).get("end_to_end_id") for record in payments}
    for record in feedback:
        assert isinstance(decode_feedback(record.value, record.key, record.timestamp, TimeLimits()), Feedback)
        assert record.key.decode() in ids
    for partition in range(3):
        times = [json.loads(record.value)["timestamp"] for record in feedback if record.partition == partition]
        assert times == sorted(times)


async def test_the_wall_clock_sets_the_pace(settings: Settings) -> None:
    """Ten seconds of traffic take one at speed 10; nothing goes out before it is due."""
    config = traffic(duration_s=10.0, late_share=0.0, retry_share=0.0, rate_per_s=100.0)
    first_ms, *_, last_ms = [simulated.arrival_ms for simulated in generate(timed(config, 10.0))]
    async with arriving(settings) as read:
        report = await simulate_to_kafka(settings, config, speed=10.0)
        records = await read(TRANSACTIONS.name)
    span_s = (last_ms - first_ms) / 10_000
    assert span_s <= report.seconds < span_s + 3
    assert 600 < report.sent < 1500
    begun_ms = min(record.timestamp for record in records)
    for record in records[::20]:
        event_ms = _fields(record.value).get("timestamp", first_ms)
        assert record.timestamp - begun_ms >= (event_ms - first_ms) / 10 - 50
        assert event_ms <= record.timestamp
    assert last_ms == pytest.approx(config.start_ms + 1_000, abs=500)


def test_traffic_faster_than_the_clock_reaches_it_and_never_leads() -> None:
    """Event time starts by as much in the past as it gains; as the clock goes, or slower, nothing is moved."""
    config = traffic(duration_s=86_400.0 * 3)
    for speed in (1.0, 0.5):
        assert timed(config, speed) == config
    fast = timed(config, 100.0)
    assert fast.start_ms + 86_400_000 * 3 == config.start_ms + 864_000 * 3
    assert timed(config, None).start_ms + 86_400_000 * 3 == config.start_ms


@pytest.mark.parametrize("endless", [{}, {"count": 10}])
def test_traffic_of_no_known_duration_cannot_outrun_the_clock(endless: dict[str, int]) -> None:
    """The error says what to do."""
    with pytest.raises(SendError, match=r"--speed 10 needs an end.*give --duration"):
        timed(traffic(**endless), 10.0)


async def test_endless_traffic_stops_at_ctrl_c(settings: Settings) -> None:
    """What was due has been sent and acknowledged by then."""
    async with arriving(settings) as read:

        async def interrupt() -> None:
            while not await read(TRANSACTIONS.name):
                pass
            os.kill(os.getpid(), signal.SIGINT)

        interrupting = asyncio.create_task(interrupt())
        report = await simulate_to_kafka(settings, traffic())
        await interrupting
        assert report.interrupted
        assert len(await read(TRANSACTIONS.name)) == report.sent > 0


async def test_a_cluster_without_the_topics_is_an_error(make_broker: Callable[..., LocalBroker]) -> None:
    """It is said which topic is missing and how to make it."""
    with make_broker() as broker, pytest.raises(SendError, match=r"no topic pix-transactions: .*`pixguard topics`"):
        await simulate_to_kafka(load_settings(broker=broker.bootstrap), traffic(count=1))
