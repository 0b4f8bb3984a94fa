"""Fixtures of the tests on a real broker."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from ops.broker import LocalBroker
from tests.app.batching.recording import Cluster, MakeApp, RecordingApp, Until


@pytest.fixture
async def cluster(broker: LocalBroker) -> AsyncIterator[Cluster]:
    """Return a client of the session's broker."""
    async with AsyncExitStack() as stack:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
        await admin.start()
        stack.push_async_callback(admin.close)
        producer = await stack.enter_async_context(AIOKafkaProducer(bootstrap_servers=broker.bootstrap))
        yield Cluster(broker.bootstrap, admin, producer)


@pytest.fixture
async def make_app(cluster: Cluster, tmp_path: Path) -> AsyncIterator[MakeApp]:
    """Make apps, not yet started, that are stopped at the end. Every group is new unless named."""
    made: list[RecordingApp] = []

    def make(source: str, *, group: str = "", **options: Any) -> RecordingApp:  # noqa: ANN401
        defaults = {
            "broker": f"kafka://{cluster.bootstrap}",
            "datadir": tmp_path / f"app-{len(made)}",
            "broker_session_timeout": 6,
            "broker_heartbeat_interval": 0.2,
            "broker_rebalance_timeout": 10,
            "broker_commit_interval": 0.2,
            "topic_disable_leader": True,
            "web_enabled": False,
        }
        made.append(RecordingApp(group or f"group-{uuid4().hex[:10]}", source, **{**defaults, **options}))
        return made[-1]

    yield make
    for app in made:
        if app.started:
            await app.stop()
        if app._consumer is not None and not app._consumer.started:
            # Faust makes the loop of a consumer's thread at once, and closes it only if the thread ran.
            app.batch_consumer._thread.thread_loop.close()


@pytest.fixture
def until() -> Until:
    """Wait until something is true, for half a minute at most."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110  (it may be about another process)
                await asyncio.sleep(0.01)

    return wait
