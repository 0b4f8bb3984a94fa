"""The whole engine on a real broker: worker processes, traffic, a kill -9 in the middle, and the record afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from agents.controls import DEFAULT_RULES, read_pack
from app.kafka_options import client_options
from app.settings import Settings
from app.topics import topics
from ops.broker import LocalBroker, free_port
from ops.replay import replay_topics
from ops.topic_admin import ensure_topics
from ops.traffic.generator import TrafficConfig, generate
from tests.workers import answers, running_worker, send, until_ready

_PARTITIONS = 4
_TRANSACTIONS = 4000


async def test_a_kill_in_the_middle_loses_nothing_and_changes_no_decision(
    tmp_path: Path, make_broker: Callable[..., LocalBroker]
) -> None:
    """Every payment is decided once, or again with the same bytes; replaying the record gives these bytes too."""
    node = make_broker()
    await asyncio.to_thread(node.start)
    settings = Settings(broker=node.bootstrap, data_dir=tmp_path / "data", partitions=_PARTITIONS)
    await ensure_topics(client_options(settings), topics(settings.app_id), partitions=_PARTITIONS)
    settings.read_hash_key()
    config = TrafficConfig(start_ms=int(time.time() * 1000), count=_TRANSACTIONS, rate_per_s=100, malformed_share=0.01)
    messages = list(generate(config))
    # As large as the topic takes it; its dead letter is a third larger.
    messages.insert(7, messages[0]._replace(key=b"noise", value=bytes(2_000_000), payment=None))
    ids = {message.payment.end_to_end_id for message in messages if message.payment is not None}
    rejected = sum(message.payment is None for message in messages)
    ports = [free_port(), free_port()]
    with running_worker("one", settings, ports[0]) as first, running_worker("two", settings, ports[1]):
        await asyncio.gather(*map(until_ready, ports))
        half = len(messages) // 2
        await send(settings, messages[:half])
        sending = asyncio.create_task(send(settings, messages[half:]))
        await asyncio.sleep(0.3)
        first.kill()
        await sending
        with running_worker("one", settings, ports[0]):
            decisions = await answers(settings, ids, rejected)
            assert {key.decode() for key in decisions} == ids
            assert [values for values in decisions.values() if len(set(values)) > 1] == []
            report = await replay_topics(settings, read_pack(DEFAULT_RULES))
    assert report.unmatched == 0
    assert report.transactions == len(ids)
    assert report.identical == len(ids)
